"""The disk store: what it costs a send, how much it writes, and a backlog of ten million datapoints."""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from corpora import FIRST_TS, sixteen_places, telemetry
from end_to_end import Listener, Ours, Subscriber, expected
from tb_mqtt_client import TimeseriesEntry
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits

ROUNDS = 7
PEERS = ("native", "without a store")


def written():
    """Return the bytes that this process has had written to disk."""
    return int(Path("/proc/self/io").read_text().partition("\nwrite_bytes: ")[2].partition("\n")[0])


@pytest.fixture
def folder():
    """Return a folder on a disk: /tmp may be in memory, where a sync costs nothing."""
    on_disk = Path(__file__).parents[1] / ".benchmarks" / f"store-{os.getpid()}"
    shutil.rmtree(on_disk, ignore_errors=True)
    on_disk.mkdir(parents=True)
    yield on_disk
    shutil.rmtree(on_disk)


def measure_sends(benchmark, broker, folder, case, peer, calls, sent, repeats):
    """Time the sends ``sent``, each ``repeats`` times; before that, a listener compares the received telemetry with ``calls``."""
    names = sorted({name for name, _ in calls})
    store = {"store": {"path": str(folder / "queue")}} if peer == "native" else {}
    with asyncio.Runner() as runner:
        program = None

        async def prepare():
            nonlocal program
            program = Ours(broker, names, **store)
            await program.start()
            async with Listener(broker) as listener:
                await program.send(sent)
                received = await listener.until(len(wanted))
            assert sixteen_places(received) == sixteen_places(wanted), f"{peer} sent something else for {case}"

        wanted = expected(calls)
        runner.run(prepare())
        benchmark.group = case
        benchmark.extra_info.update(peer=peer, correct=True, datapoints=repeats * len(wanted), calls=repeats * len(calls))
        bytes_written, payload = written(), program.statistics.bytes_published
        counted = benchmark.pedantic(lambda: runner.run(program.send(repeats * sent)), rounds=ROUNDS, warmup_rounds=1)
        assert counted == repeats * len(wanted)
        benchmark.extra_info["written_per_byte"] = (written() - bytes_written) / (program.statistics.bytes_published - payload)
        runner.run(program.stop())


@pytest.mark.parametrize("peer", PEERS)
def test_bulk(benchmark, broker, folder, peer):
    calls = telemetry(200, 1000, 10).calls
    entries = [
        (name, [TimeseriesEntry(key, value, record["ts"]) for record in records for key, value in record["values"].items()])
        for name, records in calls
    ]
    # Long enough for many commits.
    measure_sends(benchmark, broker, folder, "gateway, 10 devices, 1000 entries per send, with a store", peer, calls, entries, 8)


@pytest.mark.parametrize("peer", PEERS)
def test_small(benchmark, broker, folder, peer):
    calls = [(name, records[0]) for name, records in telemetry(10_000, 10, 200).calls]
    measure_sends(
        benchmark, broker, folder, "gateway, 200 devices, a dict of 10 keys per send, with a store", peer, calls, calls, 4
    )


def test_always(benchmark, broker, folder):
    """One awaited send with durability ``always``; plain sends and bare writes to the disk alternate with it."""
    data = {"ts": FIRST_TS, "values": {"temperature": 21.5}}
    taken = {"always": [], "plain": [], "sync": []}

    async def trips():
        always = Ours(broker, store={"path": str(folder / "queue"), "durability": "always"})
        plain = Ours(broker)
        page = os.urandom(4096)
        file = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT)
        try:
            for program in (always, plain):
                await program.start()
            for _ in range(500):
                for name, program in (("always", always), ("plain", plain)):
                    began = time.perf_counter()
                    result = await program.round_trip(data)
                    taken[name].append(time.perf_counter() - began)
                    assert result.is_successful()
                began = time.perf_counter()
                os.write(file, page)
                os.fdatasync(file)
                taken["sync"].append(time.perf_counter() - began)
        finally:
            os.close(file)
            for program in (always, plain):
                await program.stop()

    benchmark.group = "one awaited send with a store, durability always, p50"
    benchmark.pedantic(lambda: asyncio.run(trips()), rounds=1)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ratio = medians["always"] / (medians["plain"] + 2 * medians["sync"])
    benchmark.extra_info.update(peer="native", correct=True, value=ratio, seconds=medians)


# Programs of their own, so that only the client under test grows in each process, and writes to disk in it.

COMMON = """
import asyncio, json, os, sys, time
from pathlib import Path
from tb_mqtt_client import DeviceClient

CALLS, RECORDS = 10_000, 100
DATAPOINTS = CALLS * RECORDS * 10

def client(store=None, **options):
    config = {"host": "127.0.0.1", "port": int(sys.argv[1]), "access_token": "t", "limits_timeout": 0.05,
              "reconnect_delay_min": 0.01, "reconnect_delay_max": 0.01}
    if store is not None:
        config["store"] = {"path": sys.argv[2], "max_bytes": 2**31} | store
    return DeviceClient(config | options)

def data(call):
    return [
        {"ts": 1 + RECORDS * call + index, "values": {f"key {key}": index / 8 + key for key in range(10)}}
        for index in range(RECORDS)
    ]

def written():
    return int(Path("/proc/self/io").read_text().partition("\\nwrite_bytes: ")[2].partition("\\n")[0])

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def peak():
    # Not ru_maxrss: it begins with the memory of the process that started this one.
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

def report(**found):
    print(json.dumps(found), flush=True)
"""
FILL = (
    COMMON
    + """
async def main():
    # Without a server, everything is kept.
    one = client({})
    await one.start()
    for call in range(CALLS):
        await one.send_timeseries(data(call), wait_for_publish=False)
    await one.stop(timeout=60)
    assert one.statistics.kept == DATAPOINTS, one.statistics
    report(written=written())

asyncio.run(main())
"""
)
DRAIN = (
    COMMON
    + """
async def main():
    before = resident()
    one = client({})
    began = time.perf_counter()
    await one.start()
    opened = time.perf_counter() - began
    assert one.statistics.recovered == DATAPOINTS, one.statistics
    while one.statistics.acknowledged < DATAPOINTS:
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - began
    sums = one.statistics
    assert (sums.acknowledged, sums.queued, sums.rejected) == (DATAPOINTS, 0, 0), sums
    await one.stop()
    report(opened=opened, seconds=seconds, grown=peak() - before, written=written(), published=sums.bytes_published)

asyncio.run(main())
"""
)
IN_MEMORY = (
    COMMON
    + """
async def main():
    one = client()
    await one.connect()
    # Made beforehand, and sent again and again: the drain does not make its data either.
    made = [data(call) for call in range(100)]
    began = time.perf_counter()
    for _ in range(CALLS // len(made)):
        for each in made:
            await one.send_timeseries(each, wait_for_publish=False)
    while one.statistics.acknowledged < DATAPOINTS:
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - began
    assert one.statistics.rejected == 0
    await one.stop()
    report(seconds=seconds)

asyncio.run(main())
"""
)
DATAPOINTS = 10_000_000
DRAINS = 3


class Records(Subscriber):
    """Subscribes to the telemetry of the device, and counts the datapoints of each record that the programs send."""

    def __init__(self, broker):
        super().__init__(broker)
        self._datapoints = bytearray(DATAPOINTS // 10)
        self._missing = DATAPOINTS

    def _receive(self, _client, _topic, payload, _qos, _properties):
        for record in orjson.loads(payload):
            self._datapoints[record["ts"] - 1] += len(record["values"])
            self._missing -= len(record["values"])
        if self._missing <= 0:
            self._complete.set()
        return 0

    async def complete(self):
        """Wait until every datapoint has arrived; return whether each arrived once."""
        await self._complete.wait()
        return set(self._datapoints) == {10}


async def run(program, broker, queue, *arguments):
    """Run a program to its end, and return what it reports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(broker.port), str(queue), *arguments, stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(printed)


async def measure_backlog(broker, folder):
    """Fill a store while the server is down, and drain copies of it; return the median of each number."""
    filled = folder / "filled"
    broker.stop()
    writing = await run(FILL, broker, filled)
    broker.start()
    async with Records(broker) as records:
        shutil.copytree(filled, folder / "checked")
        await run(DRAIN, broker, folder / "checked")
        assert await records.complete()
    drained, sent = [], []
    for number in range(DRAINS):
        queue = folder / f"copy {number}"
        shutil.copytree(filled, queue)
        drained.append(await run(DRAIN, broker, queue))
        sent.append(await run(IN_MEMORY, broker, queue))
        shutil.rmtree(queue)
    medians = {name: statistics.median(one[name] for one in drained) for name in drained[0]}
    return medians | {
        "in memory": statistics.median(one["seconds"] for one in sent),
        "written per byte": (writing["written"] + medians["written"]) / medians["published"],
    }


BACKLOG = {}
"""The numbers of the one measurement, from which each row takes its own."""


@pytest.mark.parametrize(
    ("case", "peer", "number", "scale"),
    [
        ("a backlog of ten million datapoints: opening the store", "native", "opened", 1),
        ("a backlog of ten million datapoints: growth of memory while it drains", "native", "grown", 2**-20),
        ("a backlog of ten million datapoints: draining it", "in-memory bulk path", "in memory", 1),
        ("a backlog of ten million datapoints: draining it", "native", "seconds", 1),
        ("a backlog of ten million datapoints: bytes written, from accepting to draining it", "native", "written per byte", 1),
    ],
)
def test_backlog(benchmark, broker, folder, case, peer, number, scale):
    def measure():
        if not BACKLOG:
            BACKLOG.update(asyncio.run(measure_backlog(broker, folder)))

    benchmark.group = case
    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(peer=peer, correct=True, value=BACKLOG[number] * scale)


CONNECTED = (
    COMMON
    + """
async def main():
    one = client(json.loads(sys.argv[3]))
    await one.connect()
    made = [data(call) for call in range(100)]
    before = written()
    for _ in range(10):
        for each in made:
            await one.send_timeseries(each, wait_for_publish=False)
        while one.statistics.queued or one.statistics.in_flight:
            await asyncio.sleep(0.02)
    sums = one.statistics
    assert sums.acknowledged == 1_000_000
    report(written=written() - before, published=sums.bytes_published)
    await one.stop()

asyncio.run(main())
"""
)


WRITTEN_WHILE_CONNECTED = {
    "group": "bytes written while connected, durability group",
    "spill": "bytes written while connected, durability spill",
}


@pytest.mark.parametrize("durability", WRITTEN_WHILE_CONNECTED)
def test_written_while_connected(benchmark, broker, folder, durability):
    """A million datapoints, acknowledged as fast as the broker can."""
    benchmark.group = WRITTEN_WHILE_CONNECTED[durability]
    found = benchmark.pedantic(
        lambda: asyncio.run(run(CONNECTED, broker, folder / "queue", json.dumps({"durability": durability}))), rounds=1
    )
    benchmark.extra_info.update(peer="native", correct=True, value=found["written"] / found["published"])


LIMIT, LIVE, WAITING = 20_000, 1000, 1_000_000
"""Datapoints per second that the platform accepts, live datapoints per second, and datapoints in the backlog."""


def test_live_data_while_a_backlog_drains(benchmark, folder):
    """The age of live data when it arrives, while the announced limit lets the backlog drain for about a minute."""
    ages = []

    def received(publish):
        now = time.time() * 1000
        if b'"live ' in publish.payload:
            ages.extend((now - record["ts"]) / 1000 for record in orjson.loads(publish.payload) if "live 0" in record["values"])

    async def measure():
        limits = SessionLimits(rate_limits=RateLimits(None, None, f"{LIMIT}:1"))
        async with Emulator(limits=limits, keep_data=False) as emulator:
            emulator.add_device("t", "device")
            await emulator.stop()
            program = Ours(emulator, store={"path": str(folder / "queue")})
            await program.start_offline()
            for ts in range(WAITING // 10):
                await program.send_later({"ts": ts, "values": {f"old {key}": ts / 8 for key in range(10)}})
            await program.stop()
            assert program.statistics.kept == WAITING
            emulator.on_publish = received
            await emulator.start()
            program = Ours(emulator, store={"path": str(folder / "queue")})
            await program.start()
            began, sent = time.monotonic(), 0
            # Not only as many: live data is acknowledged before the last of the backlog.
            while program.statistics.acknowledged < WAITING + sent - LIVE:
                # As many as are due: the event loop is busy with the emulator, too.
                while sent < (time.monotonic() - began) * LIVE:
                    await program.send_later({"ts": int(time.time() * 1000), "values": {f"live {key}": sent for key in range(10)}})
                    sent += 10
                await asyncio.sleep(0.01)
            await program.stop()
            assert program.statistics.acknowledged == WAITING + sent
            # Live data of the same millisecond replaces itself.
            assert emulator.counters.telemetry_datapoints == WAITING + sent - program.statistics.superseded

    benchmark.group = "age of live data at arrival while a backlog drains under a limit, p99"
    benchmark.pedantic(lambda: asyncio.run(measure()), rounds=1)
    assert len(ages) > 100
    p99 = statistics.quantiles(ages, n=100)[98]
    benchmark.extra_info.update(peer="native", correct=True, value=p99, p50=statistics.median(ages))
