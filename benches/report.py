"""Print pytest-benchmark's results as tables; with --write, put them into docs/performance.md and three numbers into the README.

python benches/report.py RESULTS.json [--write]

Incomplete results are printed with a list of the missing benchmarks. Only complete results can be written.
"""

import argparse
import json
import platform
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from curves import LATENCY, PEERS, THROUGHPUT, Curves, amount, datapoints_per_second, milliseconds, percentiles_of

ROOT = Path(__file__).parents[1]
README, PERFORMANCE = ROOT / "README.md", ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Row:
    """One case: its peer and unit, its target, and whether more is better.

    ``by`` names the fact that is compared in place of the time, such as ``cpu_seconds``. The peer of an optional row needs sources
    that the user has to give. ``or_rate`` is the number of datapoints per second with which the target is reached, too.
    """

    case: str
    peer: str | None
    unit: str
    target: float
    more_is_better: bool
    by: str | None = None
    optional: bool = False
    or_rate: float = 0.0


ROWS = [
    Row("dicts to payloads: gateway, 1000 sends of 100 datapoints, 50 devices", "orjson.dumps", "x its throughput", 0.75, True),
    Row("dicts to payloads: gateway, 10,000 sends of 10 datapoints, 50 devices", "orjson.dumps", "x its throughput", 0.75, True),
    Row("dicts to payloads: device, 10,000 sends of 10 datapoints", "orjson.dumps", "x its throughput", 0.75, True),
    Row("dicts to payloads: device, one send of 100,000 datapoints", "orjson.dumps", "x its throughput", 0.75, True),
    Row("dicts to payloads: gateway, 1000 sends of 100 datapoints, 50 devices", "SDK 1.13", "x its throughput", 10.0, True),
    Row(
        "dicts to payloads: gateway, 1000 sends of 100 datapoints, 50 devices",
        "SDK 2.0",
        "x its throughput",
        10.0,
        True,
        optional=True,
    ),
    Row("dicts to payloads: device, 10,000 sends of 10 datapoints", "SDK 1.13", "x its throughput", 10.0, True),
    Row("dicts to payloads: device, 10,000 sends of 10 datapoints", "SDK 2.0", "x its throughput", 10.0, True, optional=True),
    Row("entries to payloads: gateway, 1000 sends of 100 datapoints, 50 devices", "orjson.dumps", "x its throughput", 0.75, True),
    Row("entries to payloads: gateway, 10,000 sends of 10 datapoints, 50 devices", "orjson.dumps", "x its throughput", 0.75, True),
    Row("entries to payloads: device, 10,000 sends of 10 datapoints", "orjson.dumps", "x its throughput", 0.75, True),
    Row("entries to payloads: device, one send of 100,000 datapoints", "orjson.dumps", "x its throughput", 0.75, True),
    Row(
        "ready uplinks to payloads: gateway, 1000 sends of 100 datapoints, 50 devices",
        "orjson.dumps",
        "x its throughput",
        0.8,
        True,
    ),
    Row(
        "ready uplinks to payloads: gateway, 10,000 sends of 10 datapoints, 50 devices",
        "orjson.dumps",
        "x its throughput",
        0.5,
        True,
    ),
    Row("ready uplinks to payloads: device, 10,000 sends of 10 datapoints", "orjson.dumps", "x its throughput", 0.8, True),
    Row("ready uplinks to payloads: device, one send of 100,000 datapoints", "orjson.dumps", "x its throughput", 0.8, True),
    Row("Arrow to payloads: device, 1,000,000 rows of 10 columns", "orjson.dumps", "x its throughput", 4.0, True),
    Row("a dict of 10 keys to an encoded uplink", "orjson.dumps", "x its time", 1.2, False),
    Row("a dict of 10 keys that are new objects each time to an encoded uplink", "orjson.dumps", "x its time", 1.3, False),
    Row("key, value and ts to a TimeseriesEntry", "plain class", "x its time", 1.0, False),
    Row("ready uplinks to payloads: gateway, 20 sends of 10 datapoints", "reference", "x its throughput", 1.0, True),
    Row("taking tokens from a limit with two windows, one call", None, "ns", 200.0, False),
    Row("one million queued datapoints, 10 to a message", None, "bytes per datapoint", 64.0, False),
    Row("100,000 sub-devices announced and streaming: memory", None, "bytes per sub-device", 1000.0, False),
    Row("device, one datapoint per send, not awaited", "by hand", "x its sends per second", 3.0, True),
    Row("gateway, 200 devices, a dict of 10 keys per send, not awaited", "by hand", "x its datapoints per second", 2.5, True),
    Row("gateway, 10 devices, 1000 entries per send", "by hand", "x its datapoints per second", 0.6, True),
    Row(
        "Arrow to acknowledgements: device, 1,000,000 rows of 10 columns",
        "bytes by hand",
        "x its datapoints per second",
        0.8,
        True,
        or_rate=5e6,
    ),
    Row("CPU time of a send of one datapoint, not awaited, to its acknowledgement", None, "µs", 2.6, False),
    Row("CPU time of an enqueued send of one datapoint, to its acknowledgement", None, "µs", 2.0, False),
    Row("device, one datapoint per send, not awaited", "paho-mqtt", "x its sends per second", 3.0, True),
    Row("device, one datapoint per send, not awaited", "aiomqtt", "x its sends per second", 3.0, True),
    Row("device, one datapoint per send, not awaited", "SDK 1.13", "x its sends per second", 5.0, True),
    Row("device, one datapoint per send, not awaited", "SDK 1.13", "x its sends of a CPU second", 10.0, True, "cpu_seconds"),
    Row(
        "device, one datapoint per send, not awaited",
        "SDK 2.0",
        "x its sends of a CPU second",
        10.0,
        True,
        "cpu_seconds",
        optional=True,
    ),
    Row("gateway, 200 devices, a dict of 10 keys per send, not awaited", "paho-mqtt", "x its datapoints per second", 3.0, True),
    Row("gateway, 200 devices, a dict of 10 keys per send, not awaited", "aiomqtt", "x its datapoints per second", 3.0, True),
    Row("gateway, 200 devices, a dict of 10 keys per send, not awaited", "SDK 1.13", "x its datapoints per second", 5.0, True),
    Row(
        "gateway, 200 devices, a dict of 10 keys per send, not awaited",
        "SDK 1.13",
        "x its datapoints of a CPU second",
        10.0,
        True,
        "cpu_seconds",
    ),
    Row(
        "gateway, 200 devices, a dict of 10 keys per send, not awaited",
        "SDK 2.0",
        "x its datapoints of a CPU second",
        10.0,
        True,
        "cpu_seconds",
        optional=True,
    ),
    Row("latency of one awaited send, p50", "by hand", "x its time", 1.5, False),
    Row(
        "program for SDK 1.x, gateway, 10 datapoints a send, then get() of all",
        "SDK 1.13",
        "x its datapoints per second",
        15.0,
        True,
    ),
    Row(
        "program for SDK 1.x, gateway, 10 datapoints a send, then get() of all",
        "SDK 1.13",
        "x its datapoints of a CPU second",
        15.0,
        True,
        "cpu_seconds",
    ),
    Row(
        "program for SDK 1.x, gateway, 10 datapoints a send from 4 threads, then get() of all",
        "one thread",
        "x its datapoints per second",
        1.0,
        True,
    ),
    Row(
        "program with threads, gateway, 10 datapoints a send, then result() of all",
        "asyncio",
        "x its datapoints per second",
        0.8,
        True,
    ),
    Row("one send after the other, a call and its result, p50", "an awaited send", "x its time", 1.5, False),
    Row("10,000 sub-devices announced and streaming", "100 sub-devices", "x the time of a datapoint", 1.5, False),
    Row(
        "gateway, telemetry during 10,000 attribute updates and 10,000 RPC requests per minute",
        None,
        "x the throughput without them",
        0.9,
        True,
    ),
    Row("waiting for a limit", None, "% of a core", 1.0, False),
    Row("one million datapoints queued while the server is away", None, "bytes per datapoint", 64.0, False),
    Row("one million datapoints queued, sent afterwards", "while connected", "x the speed", 0.8, True),
    Row("gateway, 10 devices, 1000 entries per send, with a store", "without a store", "x its datapoints per second", 0.6, True),
    Row(
        "gateway, 200 devices, a dict of 10 keys per send, with a store",
        "without a store",
        "x its datapoints per second",
        0.4,
        True,
    ),
    Row(
        "one awaited send with a store, durability always, p50",
        None,
        "x the time without a store + 2 x one write and sync of 4 KiB",
        1.0,
        False,
    ),
    Row("a backlog of ten million datapoints: opening the store", None, "s", 1.0, False),
    Row("a backlog of ten million datapoints: growth of memory while it drains", None, "MiB", 64.0, False),
    Row("a backlog of ten million datapoints: draining it", "in-memory bulk path", "x its datapoints per second", 0.5, True),
    Row(
        "a backlog of ten million datapoints: bytes written, from accepting to draining it",
        None,
        "bytes per byte of payload",
        2.5,
        False,
    ),
    Row("bytes written while connected, durability group", None, "bytes per byte of payload", 2.5, False),
    Row("bytes written while connected, durability spill", None, "bytes per byte of payload", 0.0, False),
    Row("age of live data at arrival while a backlog drains under a limit, p99", None, "s", 2.0, False),
    Row("linear in the datapoints of a send, 100 to 100,000", None, "x between the times of a datapoint", 2.0, False),
    Row("flat in the number of devices, 1 to 100,000", None, "x between the times of a datapoint", 2.0, False),
    Row("flat in the number of keys, 10 to 10,000", None, "x between the times of a datapoint", 2.0, False),
    Row("flat in the length of the queue, from 1000 datapoints", None, "x between the times of a datapoint", 2.0, False),
    Row("flat in the limit of a payload, 1 kB to 1 MB", None, "x between the times of a datapoint", 2.0, False),
    Row("import of the package, with both clients", None, "ms", 150.0, False),
]

HIGHLIGHTS = {
    "device, one datapoint per send, not awaited": "{} the sends per second, at one datapoint per send",
    "gateway, 200 devices, a dict of 10 keys per send, not awaited": (
        "{} the datapoints per second of a gateway with 200 sub-devices, at ten datapoints per send"
    ),
    "latency of one awaited send, p50": (
        "The price: a single awaited send takes {} as long, because it passes a queue, packing and rate limiting"
    ),
}
"""The lines of the README by case; each has a place for its ratio."""


class Results:
    """pytest-benchmark's JSON by case and peer. An unchecked result is an error."""

    def __init__(self, path):
        self._by_peer = {}
        for one in json.loads(path.read_text())["benchmarks"]:
            if not one["extra_info"].get("correct"):
                sys.exit(f"{one['name']} has no checked result")
            self._by_peer[one["group"], one["extra_info"]["peer"]] = one

    def number(self, row):
        native = self._value(row, "native")
        if row.peer is None:
            return native
        if found := self.in_turns(row):
            ratio = statistics.median(found)
            return ratio if row.more_is_better else 1 / ratio
        peer = self._value(row, row.peer)
        return peer / native if row.more_is_better else native / peer

    def in_turns(self, row):
        """Return how many times faster this package is than the peer, for each process that measured both in turns."""
        return self._by_peer[row.case, "native"]["extra_info"].get("in_turns", {}).get(row.peer)

    def spread(self, row):
        """Return the lowest and the highest of the numbers that `number` is the median of; empty if there is one."""
        found = self.in_turns(row)
        if not found:
            return ""
        low, high = (found[0], found[-1]) if row.more_is_better else (1 / found[-1], 1 / found[0])
        return f" ({low:.2f} to {high:.2f})"

    def rate(self, row):
        """Return the datapoints per second of this package."""
        found = self._by_peer[row.case, "native"]
        return found["extra_info"]["datapoints"] / found["stats"]["median"]

    def has(self, case, peer):
        return (case, peer) in self._by_peer

    def cpu(self, row, count):
        """Return the CPU time of this package and of the peer for one datapoint or send, as ``count`` says; empty if unknown."""
        shown = []
        for peer in ("native", row.peer) if row.peer else ("native",):
            facts = self._by_peer[row.case, peer]["extra_info"]
            if "cpu_seconds" not in facts or not facts.get(count):
                return ""
            shown.append(nanoseconds(1e9 * facts["cpu_seconds"] / facts[count]))
        return " / ".join(shown)

    def missing(self, row):
        """Return a line for each benchmark that a row needs and that is not in the results."""
        if row.optional and not self.has(row.case, row.peer):
            return []
        peers = ("native",) if row.peer is None else ("native", row.peer)
        return [f"{row.case} ({peer})" for peer in peers if (row.case, peer) not in self._by_peer]

    def unknown(self):
        """Return a line for each benchmark that no table shows, most likely of a renamed case."""
        cases = {row.case for row in ROWS} | THROUGHPUT.keys() | LATENCY.keys()
        return sorted(f"{case} ({peer})" for case, peer in self._by_peer if case not in cases)

    def _value(self, row, peer):
        """Return the fact of a row, or the number that a benchmark computed itself, in the row's unit, or its median time."""
        found = self._by_peer[row.case, peer]
        if row.by is not None:
            return found["extra_info"][row.by]
        return found["extra_info"].get("value", found["stats"]["median"])


def table(results):
    lines = ["| case | peer | measured | target | | CPU of a datapoint | CPU of a send |", "|---|---|---|---|---|---:|---:|"]
    for row in ROWS:
        bound = "at least" if row.more_is_better else "at most"
        if row.peer and results.has(row.case, "native") and not results.has(row.case, row.peer):
            if not row.optional:
                lines.append(f"| {row.case} | `{row.peer}` | peer not measured | {bound} {row.target:g} | **missed** | | |")
            continue
        if results.missing(row) or not results.has(row.case, "native"):
            continue
        number = results.number(row)
        reached = number >= row.target if row.more_is_better else number <= row.target
        shown = f"{number:.0f}" if number >= 100 else f"{number:.2f}"
        target, unit = f"{row.target:g}", row.unit
        if row.or_rate:
            rate = results.rate(row)
            reached |= rate >= row.or_rate
            target += f", or {row.or_rate / 1e6:g} M/s"
            unit += f" ({rate / 1e6:.1f} M/s)"
        peer = f"`{row.peer}`" if row.peer else ""
        cpu = f"{results.cpu(row, 'datapoints')} | {results.cpu(row, 'calls')}"
        mark = "met" if reached else "**missed**"
        lines.append(f"| {row.case} | {peer} | {shown}{results.spread(row)} {unit} | {bound} {target} | {mark} | {cpu} |")
    return "\n".join(lines)


def highlights(results):
    """Return the list of ratios for the README."""
    # The first row of a case is that of the program by hand.
    rows = {row.case: row for row in reversed(ROWS)}
    return "\n".join(f"- {line.format(f'**{results.number(rows[case]):.2f} ×**')}" for case, line in HIGHLIGHTS.items())


def nanoseconds(value):
    return f"{value / 1000:.1f} us" if value >= 1000 else f"{value:.0f} ns"


def table_of_sizes(curves):
    """Return the datapoints per second by the size of a send."""
    lines = [
        "| datapoints per send | JSON bytes | device | by hand | gateway | by hand |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    device, gateway = (curves.of(f"throughput, {kind}", "size") for kind in ("device", "gateway"))
    for size, one in device["native"].items():
        columns = [amount(datapoints_per_second(of_kind[peer][size])) for of_kind in (device, gateway) for peer in PEERS]
        lines.append(f"| {size} | {one['extra_info']['bytes']:.0f} | {' | '.join(columns)} |")
    return "\n".join(lines)


def table_of_latencies(curves):
    """Return the milliseconds to the result: percentiles for one send at a time, and the median and 99 % at each rate."""
    alone = curves.of("latency, one send at a time")
    lines = ["| sends | percentile | tb_mqtt_client | by hand |", "|---|---:|---:|---:|"]
    for percentile in percentiles_of(alone["native"][None]):
        columns = [duration(alone[peer][None], percentile) for peer in PEERS]
        lines.append(f"| one at a time | {percentile:g} % | {' | '.join(columns)} |")
    rates = curves.of("latency at a rate", "rate")
    for rate in rates["native"]:
        for percentile in (50, 99):
            columns = [duration(rates[peer][rate], percentile) for peer in PEERS]
            lines.append(f"| {amount(rate)} per second | {percentile} % | {' | '.join(columns)} |")
    return "\n".join(lines)


def duration(one, percentile):
    value = milliseconds(one, percentile)
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def write_between(path, name, text):
    """Replace the text between the markers with this name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{path} has no {begin} ... {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def circumstances():
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    return (
        f"Medians, release build, Python {platform.python_version()}, orjson {version('orjson')}, "
        f"{platform.system()} on {platform.machine()} ({processor})."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    results, curves = Results(arguments.results), Curves(arguments.results)
    ratios = f"{table(results)}\n\n{circumstances()}"
    without_sizes, without_latencies = curves.missing(THROUGHPUT), curves.missing(LATENCY)
    sizes = "" if without_sizes else table_of_sizes(curves)
    latencies = "" if without_latencies else table_of_latencies(curves)
    print(*filter(None, (ratios, sizes, latencies)), sep="\n\n")
    missing = list(dict.fromkeys(line for row in ROWS for line in results.missing(row))) + without_sizes + without_latencies
    unknown = results.unknown()
    if missing:
        print("\nNot in these results:", *missing, sep="\n  ")
    if unknown:
        print("\nIn no table, so ROWS in benches/report.py lacks them:", *unknown, sep="\n  ")
    if arguments.write:
        if missing or unknown:
            sys.exit("Nothing is written: the results are not those of all benchmarks, or a case was renamed in one place only.")
        write_between(README, "highlights", highlights(results))
        write_between(PERFORMANCE, "bench", table(results))
        write_between(PERFORMANCE, "sizes", sizes)
        write_between(PERFORMANCE, "latency", latencies)
        write_between(PERFORMANCE, "circumstances", circumstances())


if __name__ == "__main__":
    main()
