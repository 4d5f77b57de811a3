"""Send random telemetry through a gateway under random faults; check that all of it arrives and that memory stays flat.

Every row is compared with the sent row when it arrives, so that lost, altered and invented rows are found. Delivery is at least
once: rows that arrive again after a fault are counted. The emulator runs in the measured process, so its records are removed as
they arrive. The exit code is not zero if there is a problem.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import deque
from dataclasses import dataclass, field

import psutil
from faults import PAYLOAD_FORMAT_INVALID, Faults
from memory_in_use import InUse, in_use
from two_addresses import NAME, TwoAddresses

from faulty_link import FaultyLink
from tb_mqtt_client import GatewayClient, PublishResult
from tb_mqtt_client.emulator import Emulator

TOKEN = "soak-gateway"
GATEWAY = "soak gateway"
DEVICES = 20
LARGEST_SEND = 500
SENDS_IN_FLIGHT = 2_000
SECONDS_BETWEEN_LINES = 10.0
WARM_UP_SHARE = 0.2
IMPATIENT = {
    "reconnect_delay_min": 0.01,
    "reconnect_delay_max": 0.2,
    "backpressure_delay": 0.2,
    "limits_timeout": 1.0,
    "ack_timeout": 1.0,
}
"""Short delays, so that most of the time is traffic."""
ALLOWED_BLOCKS = 10_000
ALLOWED_BYTES = 2**20
"""The allowed growth between warm-up and end, with nothing queued, because sessions are opened and closed."""


Row = dict[str, object]
"""``{"ts": milliseconds, "values": {…}}``"""


@dataclass
class Ledger:
    """The rows without a result yet, and the number of datapoints by result."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    rows_again: int = 0
    problems: list[str] = field(default_factory=list)
    _open: dict[tuple[str, int], tuple[dict[str, object], set[str]]] = field(default_factory=dict)
    """The sent values of each row, and the keys that have not arrived."""

    def send(self, name: str, rows: list[Row]) -> None:
        for row in rows:
            self._open[name, row["ts"]] = row["values"], set(row["values"])
            self.sent += len(row["values"])

    def arrive(self, name: str, ts: int, values: dict[str, object]) -> None:
        sent, missing = self._open.get((name, ts), (None, set()))
        if not missing:
            # The row has a result already, or arrives for the second time.
            self.rows_again += 1
        elif sent is None or any(key not in sent or sent[key] != value for key, value in values.items()):
            self.problems.append(f"{name} {ts} was sent as {sent} and arrived as {values}")
        missing.difference_update(values)

    def settle(self, name: str, rows: list[Row], result: PublishResult) -> None:
        missing = [self._open.pop((name, row["ts"]))[1] for row in rows]
        count = sum(len(row["values"]) for row in rows)
        if result.is_successful():
            self.acknowledged += count
            if any(missing):
                self.problems.append(f"{result} for rows that never arrived")
        else:
            self.rejected += count
        if result.datapoints_count != count:
            self.problems.append(f"{result} for {count} datapoints")


class Source:
    """Random sends, each with timestamps that no other send of its device has."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._next_ts = 1_700_000_000_000

    def next_send(self) -> tuple[int, list[Row]]:
        """Return a device number and a list of `{"ts", "values"}` with 1 to `LARGEST_SEND` datapoints."""
        rows: list[Row] = []
        left = int(LARGEST_SEND ** self._random.random())
        while left > 0:
            count = self._random.randint(1, min(left, 20))
            values = {f"key{number}": self._value() for number in range(count)}
            rows.append({"ts": self._next_ts, "values": values})
            self._next_ts += 1
            left -= count
        return self._random.randrange(DEVICES), rows

    def _value(self) -> object:
        if self._random.random() < 0.1:
            return "é\n" * self._random.randint(0, 200)
        return self._random.randint(-(2**53), 2**53)


def take(emulator: Emulator, names: list[str], ledger: Ledger) -> None:
    """Check the arrived records and remove them from the emulator."""
    for name in names:
        records = emulator.device(name).records
        while records:
            ts, values = records.popleft()
            ledger.arrive(name, ts, values)


async def soak(seconds: float, seed: int) -> list[str]:
    """Run the soak and return the problems."""
    names = [f"soak {number}" for number in range(DEVICES)]
    source, ledger, process = Source(seed), Ledger(), psutil.Process()
    warm: InUse | None = None
    async with (
        Emulator() as emulator,
        FaultyLink(emulator.host, emulator.port) as link,
        TwoAddresses(link.port) as addresses,
    ):
        emulator.add_gateway(TOKEN, name=GATEWAY)
        client = GatewayClient({"host": NAME, "port": link.port, "access_token": TOKEN} | IMPATIENT)
        await client.connect()
        sessions = [(await client.connect_device(name, wait_for_publish=True))[0] for name in names]
        waiting: deque[tuple[int, list[Row], asyncio.Future[PublishResult]]] = deque()

        async def check_next() -> None:
            device, rows, future = waiting.popleft()
            result = await future
            take(emulator, names, ledger)
            ledger.settle(names[device], rows, result)

        faults = Faults(seed, link, addresses, emulator, GATEWAY, IMPATIENT["ack_timeout"])
        breaking = asyncio.ensure_future(faults.run())
        began = line_at = time.monotonic()
        while (second := time.monotonic() - began) < seconds:
            device, rows = source.next_send()
            ledger.send(names[device], rows)
            waiting.append((device, rows, await client.send_device_timeseries(sessions[device], rows, wait_for_publish=False)))
            if len(waiting) >= SENDS_IN_FLIGHT:
                await check_next()
            if warm is None and second >= seconds * WARM_UP_SHARE:
                while waiting:
                    await check_next()
                warm = in_use()
            if time.monotonic() >= line_at:
                line_at = time.monotonic() + min(SECONDS_BETWEEN_LINES, seconds / 20)
                resident = process.memory_info().rss
                reconnects = client.statistics.reconnects
                print(
                    f"{second:6.0f} s  {ledger.sent:>13,} datapoints  {resident / 2**20:7.1f} MiB  {reconnects:5} reconnects",
                    flush=True,
                )
        breaking.cancel()
        [broken] = await asyncio.gather(breaking, return_exceptions=True)
        faults.end()
        while waiting:
            await check_next()
        end = in_use()
        await client.stop()
        totals = client.statistics

    print(f"{dict(faults.done)}\n{totals}\nin use with nothing queued: {warm} after warm-up, {end} at the end")
    print(
        f"{ledger.sent:,} datapoints sent, {ledger.acknowledged:,} acknowledged, {ledger.rejected:,} rejected, "
        f"{ledger.rows_again:,} rows arrived again"
    )
    problems = ledger.problems[:5]
    if not isinstance(broken, asyncio.CancelledError):
        problems.append(f"injecting faults failed: {broken!r}")
    if totals.rejected_by_reason.keys() - {PAYLOAD_FORMAT_INVALID}:
        problems.append(f"data was rejected because of a network or server fault: {totals.rejected_by_reason}")
    if totals.accepted != ledger.sent or totals.acknowledged + totals.rejected != ledger.sent:
        problems.append("the client and the soak counted different numbers of datapoints")
    if totals.acknowledged < ledger.acknowledged:
        problems.append("more datapoints have an acknowledged result than the client counted")
    if warm is None or not is_flat(warm, end):
        problems.append("memory is not flat")
    return problems


def is_flat(warm: InUse, end: InUse) -> bool:
    """Return True if memory did not grow. In ten minutes a hundredth of a byte per datapoint would be visible."""
    bytes_more = (end.malloc_bytes or 0) - (warm.malloc_bytes or 0)
    return end.blocks - warm.blocks <= ALLOWED_BLOCKS and bytes_more <= ALLOWED_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    print(f"soak: {options.seconds:g} s, --seed {options.seed}")
    problems = asyncio.run(soak(options.seconds, options.seed))
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
