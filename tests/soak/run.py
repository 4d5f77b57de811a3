"""Send random telemetry through a gateway under random faults; check that all of it arrives and that memory stays flat.

Every row is compared with the sent row when it arrives, so that lost, altered and invented rows are found. Delivery is at least
once: rows that arrive again after a fault are counted. The emulator runs in the measured process, so its records are removed as
they arrive. The exit code is not zero if there is a problem.

With ``--store``, the client keeps its data on disk, and now and then it is stopped and another one continues: what the stopped one
has kept has to arrive, too.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil
from faults import PAYLOAD_FORMAT_INVALID, Faults
from memory_in_use import InUse, in_use
from two_addresses import NAME, TwoAddresses

from faulty_link import FaultyLink
from tb_mqtt_client import Certainty, DeviceSession, GatewayClient, PublishResult
from tb_mqtt_client.emulator import Emulator

TOKEN = "soak-gateway"
GATEWAY = "soak gateway"
DEVICES = 20
LARGEST_SEND = 500
SENDS_IN_FLIGHT = 2_000
SECONDS_BETWEEN_LINES = 10.0
WARM_UP_SHARE = 0.2
SECONDS_OF_A_CLIENT = 5.0
"""How long a client with a store lives, on average."""
STOP_SECONDS = (0.0, 0.05, 3.0)
"""How long a client with a store may go on sending while it is stopped."""
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
    kept: int = 0
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
        count = sum(len(row["values"]) for row in rows)
        if result.certainty is Certainty.KEPT:
            # These rows stay open, because the next client sends them.
            self.kept += count
            return
        missing = [self._open.pop((name, row["ts"]))[1] for row in rows]
        if result.is_successful():
            self.acknowledged += count
            if any(missing):
                self.problems.append(f"{result} for rows that never arrived")
        else:
            self.rejected += count
        if result.datapoints_count != count:
            self.problems.append(f"{result} for {count} datapoints")

    def check_kept(self) -> None:
        """Check that all open rows have arrived."""
        lost = sum(len(missing) for _, missing in self._open.values())
        if lost:
            self.problems.append(f"{lost} datapoints that were kept never arrived")


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


class Program:
    """One client after the other. Without a store, there is only one."""

    def __init__(self, port: int, store: str | None) -> None:
        options: dict[str, object] = {"host": NAME, "port": port, "access_token": TOKEN}
        self._options = options | IMPATIENT | ({} if store is None else {"store": store})
        self.clients: list[GatewayClient] = []
        self.sessions: list[DeviceSession] = []

    async def begin(self, names: list[str], *, wait: bool = True) -> None:
        """Begin with a new client."""
        client = GatewayClient(self._options)
        self.clients.append(client)
        await (client.connect() if wait else client.start())
        self.sessions = [(await client.connect_device(name, wait_for_publish=wait))[0] for name in names]

    @property
    def client(self) -> GatewayClient:
        """The client that runs."""
        return self.clients[-1]

    def total(self, name: str) -> int:
        """Return the sum of a number in the statistics of all clients."""
        return sum(getattr(client.statistics, name) for client in self.clients)


async def soak(seconds: float, seed: int, store: str | None) -> list[str]:
    """Run the soak and return the problems."""
    names = [f"soak {number}" for number in range(DEVICES)]
    source, ledger, process, dice = Source(seed), Ledger(), psutil.Process(), random.Random(seed)
    warm: InUse | None = None
    async with (
        Emulator() as emulator,
        FaultyLink(emulator.host, emulator.port) as link,
        TwoAddresses(link.port) as addresses,
    ):
        emulator.add_gateway(TOKEN, name=GATEWAY)
        program = Program(link.port, store)
        await program.begin(names)
        waiting: deque[tuple[int, list[Row], asyncio.Future[PublishResult]]] = deque()

        async def check_next() -> None:
            device, rows, future = waiting.popleft()
            result = await future
            take(emulator, names, ledger)
            ledger.settle(names[device], rows, result)

        async def check_all() -> None:
            while waiting:
                await check_next()

        faults = Faults(seed, link, addresses, emulator, GATEWAY, IMPATIENT["ack_timeout"])
        breaking = asyncio.ensure_future(faults.run())
        began = line_at = time.monotonic()
        next_client = began + dice.expovariate(1 / SECONDS_OF_A_CLIENT) if store is not None else float("inf")
        while (second := time.monotonic() - began) < seconds:
            device, rows = source.next_send()
            ledger.send(names[device], rows)
            session = program.sessions[device]
            waiting.append((device, rows, (await program.client.send_device_timeseries(session, rows, wait_for_publish=False))))
            if len(waiting) >= SENDS_IN_FLIGHT:
                await check_next()
            if time.monotonic() >= next_client:
                await program.client.stop(timeout=dice.choice(STOP_SECONDS))
                await check_all()
                await program.begin(names, wait=False)
                next_client = time.monotonic() + dice.expovariate(1 / SECONDS_OF_A_CLIENT)
            if warm is None and second >= seconds * WARM_UP_SHARE:
                await check_all()
                warm = in_use()
            if time.monotonic() >= line_at:
                line_at = time.monotonic() + min(SECONDS_BETWEEN_LINES, seconds / 20)
                resident = process.memory_info().rss
                reconnects = program.total("reconnects")
                print(
                    f"{second:6.0f} s  {ledger.sent:>13,} datapoints  {resident / 2**20:7.1f} MiB  {reconnects:5} reconnects",
                    flush=True,
                )
        breaking.cancel()
        [broken] = await asyncio.gather(breaking, return_exceptions=True)
        faults.end()
        await check_all()
        # With a store, a client that is stopped while its connection is lost keeps what it has.
        while (left := program.client.statistics).queued or left.in_flight:  # noqa: ASYNC110  # no event says this
            await asyncio.sleep(0.1)
        end = in_use()
        await program.client.stop(timeout=None)
        take(emulator, names, ledger)
        ledger.check_kept()

    totals = program.client.statistics
    print(f"{dict(faults.done)}\n{totals}\nin use with nothing queued: {warm} after warm-up, {end} at the end")
    print(
        f"{ledger.sent:,} datapoints sent, {ledger.acknowledged:,} acknowledged, {ledger.rejected:,} rejected, "
        f"{ledger.kept:,} kept for the next one of {len(program.clients)} clients, {ledger.rows_again:,} rows arrived again"
    )
    problems = ledger.problems[:5]
    if not isinstance(broken, asyncio.CancelledError):
        problems.append(f"injecting faults failed: {broken!r}")
    reasons = {reason for client in program.clients for reason in client.statistics.rejected_by_reason}
    if reasons - {PAYLOAD_FORMAT_INVALID}:
        problems.append(f"data was rejected because of a network or server fault: {reasons}")
    counted = [program.total(name) for name in ("accepted", "acknowledged", "rejected", "kept", "recovered")]
    accepted, acknowledged, rejected, kept, recovered = counted
    if accepted != ledger.sent or acknowledged + rejected + kept != ledger.sent + recovered:
        problems.append(f"the clients and the soak counted different numbers of datapoints: {counted}")
    if recovered < kept:
        problems.append(f"{kept} datapoints were kept, and only {recovered} recovered")
    if acknowledged < ledger.acknowledged:
        problems.append("more datapoints have an acknowledged result than the clients counted")
    # With a store, the ledger remembers the rows that were kept.
    if store is None and (warm is None or not is_flat(warm, end)):
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
    parser.add_argument("--store", action="store_true", help="keep the data on disk, and stop clients now and then")
    options = parser.parse_args()
    print(f"soak: {options.seconds:g} s, --seed {options.seed}{' --store' if options.store else ''}")
    with ExitStack() as stack:
        store = f"{stack.enter_context(tempfile.TemporaryDirectory())}/store" if options.store else None
        problems = asyncio.run(soak(options.seconds, options.seed, store))
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
