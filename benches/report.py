"""Prints pytest-benchmark's results as the table of ratios; with --readme writes it into the README.

python benches/report.py RESULTS.json [--readme]
"""

import argparse
import json
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass(frozen=True)
class Row:
    """One case: how its number is made, what it should be, and whether more is better."""

    case: str
    peer: str | None
    unit: str
    target: float
    more_is_better: bool


ROWS = [
    Row("gateway, 1000 messages of 100 datapoints, 50 devices", "orjson.dumps", "x its throughput", 0.8, True),
    Row("gateway, 10,000 messages of 10 datapoints, 50 devices", "orjson.dumps", "x its throughput", 0.5, True),
    Row("device, one message of 100,000 datapoints", "orjson.dumps", "x its throughput", 0.8, True),
    Row("a dict of 10 keys to an encoded uplink message", "orjson.dumps", "x its time", 2.0, False),
    Row("TimeseriesEntry(key, value, ts)", "plain class", "x its time", 1.0, False),
    Row("gateway, 20 messages of 10 datapoints", "reference", "x its throughput", 1.0, True),
    Row("taking from a limit with two windows, one call", None, "ns", 200.0, False),
    Row("one million queued datapoints, 10 to a message", None, "bytes a datapoint", 64.0, False),
]


class Results:
    """pytest-benchmark's JSON by case and peer. A row whose result was not checked is no result."""

    def __init__(self, path):
        self._by_peer = {}
        for one in json.loads(path.read_text())["benchmarks"]:
            if not one["extra_info"].get("correct"):
                sys.exit(f"{one['name']} has no checked result")
            self._by_peer[one["group"], one["extra_info"]["peer"]] = one

    def number(self, row):
        native = self._by_peer[row.case, "native"]
        if "bytes_per_datapoint" in native["extra_info"]:
            return native["extra_info"]["bytes_per_datapoint"]
        median = native["stats"]["median"]
        if row.peer is None:
            return median / native["extra_info"]["calls"] * 1e9
        peer = self._by_peer[row.case, row.peer]["stats"]["median"]
        return peer / median if row.more_is_better else median / peer


def table(results):
    lines = ["| case | peer | measured | to reach | |", "|---|---|---|---|---|"]
    for row in ROWS:
        number = results.number(row)
        reached = number >= row.target if row.more_is_better else number <= row.target
        bound = "at least" if row.more_is_better else "at most"
        shown = f"{number:.0f}" if number >= 100 else f"{number:.2f}"
        peer = f"`{row.peer}`" if row.peer else ""
        mark = "reached" if reached else "**missed**"
        lines.append(f"| {row.case} | {peer} | {shown} {row.unit} | {bound} {row.target:g} | {mark} |")
    return "\n".join(lines)


def circumstances():
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    return (
        f"Medians of one run, release build, Python {platform.python_version()}, orjson {version('orjson')}, "
        f"{platform.system()} on {platform.machine()} ({processor})."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--readme", action="store_true")
    arguments = parser.parse_args()
    text = f"{table(Results(arguments.results))}\n\n{circumstances()}"
    print(text)
    if arguments.readme:
        before, _, rest = README.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
