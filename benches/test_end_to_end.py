"""From the sends to the last PUBACK of a real broker, compared with the program that a careful user writes by hand."""

import asyncio
import statistics
import time

import pytest

from corpora import FIRST_TS, sixteen_places, telemetry
from end_to_end import HandWritten, Listener, Ours, expected
from tb_mqtt_client import DeviceClient, TimeseriesEntry
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits

PEERS = {"native": Ours, "by hand": HandWritten}
ROUNDS = 7
TURNS, TRIPS_A_TURN = 50, 100
"""Of awaited sends, one after the other."""


def measure_sends(benchmark, broker, case, peer, calls, sent, names=()):
    """Time the sends ``sent``; before that, a listener compares the received telemetry with ``calls``."""
    with asyncio.Runner() as runner:
        program = None

        async def prepare():
            nonlocal program
            program = PEERS[peer](broker, names)
            await program.start()
            async with Listener(broker) as listener:
                await program.send(sent)
                received = await listener.until(len(wanted))
            assert sixteen_places(received) == sixteen_places(wanted), f"{peer} sent something else for {case}"

        wanted = expected(calls)
        runner.run(prepare())
        benchmark.group = case
        benchmark.extra_info.update(peer=peer, correct=True, datapoints=len(wanted), calls=len(calls))
        cpu = []

        def one_round():
            began = time.process_time()
            count = runner.run(program.send(sent))
            cpu.append(time.process_time() - began)
            return count

        counted = benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
        assert counted == len(wanted)
        benchmark.extra_info["cpu_seconds"] = statistics.median(cpu[1:])
        runner.run(program.stop())


@pytest.mark.parametrize("peer", PEERS)
def test_device_one_datapoint_per_send(benchmark, broker, peer):
    calls = [(None, {"ts": FIRST_TS + index, "values": {"temperature": index / 8}}) for index in range(20_000)]
    measure_sends(benchmark, broker, "device, one datapoint per send, not awaited", peer, calls, calls)


CPU_CASES = {
    "send": "CPU time of a send of one datapoint, not awaited, to its acknowledgement",
    "enqueue": "CPU time of an enqueued send of one datapoint, to its acknowledgement",
}


@pytest.fixture(scope="module")
def measured_in_turns():
    """Results of rows that are compared with each other, which the first of their tests measures in turns.

    The speed of a machine may change within seconds: measured one after the other, the rows would compare its speeds.
    """
    return {}


@pytest.mark.parametrize("case", CPU_CASES)
def test_cpu_time_of_a_send(benchmark, broker, measured_in_turns, case):
    """CPU time of this process, in which no broker runs. It is steadier than the throughput on a machine that does other work."""

    def measured():
        if "cpu" not in measured_in_turns:
            measured_in_turns["cpu"] = cpu_times(broker)
        return measured_in_turns["cpu"][case]

    benchmark.group = CPU_CASES[case]
    taken = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info.update(peer="native", correct=True, value=1e6 * statistics.median(taken))


def cpu_times(broker):
    """Return the seconds of a send in each round, for each case. The cases take turns, and the first round does not count."""
    data = [(None, {"ts": FIRST_TS + index, "values": {"temperature": index / 8}}) for index in range(20_000)]
    taken = {case: [] for case in CPU_CASES}
    with asyncio.Runner() as runner:
        program = Ours(broker)
        runner.run(program.start())
        for _ in range(ROUNDS + 1):
            for case in CPU_CASES:
                began = time.process_time()
                counted = runner.run(getattr(program, case)(data))
                taken[case].append((time.process_time() - began) / len(data))
                assert counted == len(data)
        runner.run(program.stop())
    return {case: rounds[1:] for case, rounds in taken.items()}


@pytest.mark.parametrize("peer", PEERS)
def test_gateway_a_dict_per_send(benchmark, broker, peer):
    calls = [(name, records[0]) for name, records in telemetry(10_000, 10, 200).calls]
    names = sorted({name for name, _ in calls})
    measure_sends(benchmark, broker, "gateway, 200 devices, a dict of 10 keys per send, not awaited", peer, calls, calls, names)


@pytest.mark.parametrize("peer", PEERS)
def test_gateway_entries(benchmark, broker, peer):
    calls = telemetry(200, 1000, 10).calls
    names = sorted({name for name, _ in calls})
    sent = calls
    if peer == "native":
        sent = [
            (name, [TimeseriesEntry(key, value, record["ts"]) for record in records for key, value in record["values"].items()])
            for name, records in calls
        ]
    measure_sends(benchmark, broker, "gateway, 10 devices, 1000 entries per send", peer, calls, sent, names)


@pytest.mark.parametrize("peer", PEERS)
def test_round_trip(benchmark, broker, measured_in_turns, peer):
    """The median of one awaited send after another."""

    def measured():
        if "round trip" not in measured_in_turns:
            measured_in_turns["round trip"] = round_trips(broker)
        return measured_in_turns["round trip"][peer]

    benchmark.group = "latency of one awaited send, p50"
    taken = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info.update(peer=peer, correct=True, value=statistics.median(taken))


def round_trips(broker):
    """Return the seconds of many round trips of each peer. The peers take turns, and the first turn does not count."""
    data = {"ts": FIRST_TS, "values": {"temperature": 21.5}}
    taken = {peer: [] for peer in PEERS}
    with asyncio.Runner() as runner:
        programs = {peer: program(broker) for peer, program in PEERS.items()}

        async def trips(peer):
            program = programs[peer]
            for _ in range(TRIPS_A_TURN):
                began = time.perf_counter()
                await program.round_trip(data)
                taken[peer].append(time.perf_counter() - began)

        for program in programs.values():
            runner.run(program.start())
        for _ in range(TURNS + 1):
            for peer in programs:
                runner.run(trips(peer))
        for program in programs.values():
            runner.run(program.stop())
    return {peer: times[TRIPS_A_TURN:] for peer, times in taken.items()}


@pytest.mark.parametrize("devices", [100, 10_000])
def test_many_sub_devices(benchmark, broker, devices):
    """The time of a datapoint with 100 announced sub-devices, and with 10,000."""
    calls = [(name, records[0]) for name, records in telemetry(20_000, 10, devices).calls]
    with asyncio.Runner() as runner:
        program = None

        async def announce():
            nonlocal program
            program = Ours(broker, sorted({name for name, _ in calls}))
            await program.start()

        began = time.perf_counter()
        runner.run(announce())
        benchmark.group = "10,000 sub-devices announced and streaming"
        benchmark.extra_info.update(peer="native" if devices == 10_000 else "100 sub-devices", correct=True)
        benchmark.extra_info["seconds_to_announce"] = time.perf_counter() - began
        counted = benchmark.pedantic(lambda: runner.run(program.send(calls)), rounds=ROUNDS, warmup_rounds=1)
        assert counted == 10 * len(calls)
        runner.run(program.stop())


def test_waiting_for_a_limit(benchmark):
    """Share of a core while the rate limit allows no message."""

    async def wait():
        limits = SessionLimits(rate_limits=RateLimits(None, None, "100:60"))
        async with Emulator(limits=limits) as emulator:
            emulator.add_device("TOKEN", "device")
            client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
            await client.connect()
            await client.send_timeseries([{"ts": ts, "values": {"a": ts}} for ts in range(80)])
            for ts in range(1000):
                await client.send_timeseries({"ts": ts, "values": {"b": ts}}, wait_for_publish=False)
            await asyncio.sleep(0.1)
            cpu, wall = time.process_time(), time.perf_counter()
            await asyncio.sleep(5)
            share = (time.process_time() - cpu) / (time.perf_counter() - wall)
            assert client.statistics.queued > 900
            await client.stop(timeout=0)
            return share

    shares = []
    benchmark.group = "waiting for a limit"
    benchmark.pedantic(lambda: shares.append(asyncio.run(wait())), rounds=1)
    benchmark.extra_info.update(peer="native", correct=True, value=100 * shares[-1])
