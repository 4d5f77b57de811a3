"""Programs with threads: those for SDK 1.x, on this package and on SDK 1.13, and those for the synchronous clients."""

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

import tb_device_mqtt
from corpora import FIRST_TS, telemetry
from end_to_end import Listener, Ours
from peers import installed, measure_peer
from tb_mqtt_client import sync
from tb_mqtt_client.bench.peers import OWN, Peer

ROUNDS = 7
IN_THREADS = Path(__file__).with_name("in_threads.py")
SEND_AND_GET = "program for SDK 1.x, gateway, 10 datapoints a send, then get() of all"
FROM_THREADS = "program for SDK 1.x, gateway, 10 datapoints a send from 4 threads, then get() of all"
SYNCHRONOUS = "program with threads, gateway, 10 datapoints a send, then result() of all"


def own(program):
    return Peer(program, "tb_mqtt_client", worker=IN_THREADS)


PROGRAMS = [
    (SEND_AND_GET, "native", lambda: own("one_x"), 10_000),
    # SDK 1.13 takes many times as long.
    (SEND_AND_GET, "SDK 1.13", lambda: dataclasses.replace(installed("SDK 1.13"), program="one_x", worker=IN_THREADS), 2000),
    (FROM_THREADS, "native", lambda: own("one_x_in_threads"), 10_000),
    (FROM_THREADS, "one thread", lambda: own("one_x"), 10_000),
    (SYNCHRONOUS, "native", lambda: own("sync"), 10_000),
    (SYNCHRONOUS, "asyncio", lambda: OWN, 10_000),
]


@pytest.mark.parametrize(("case", "peer", "program", "sends"), PROGRAMS, ids=[f"{case}, {peer}" for case, peer, *_ in PROGRAMS])
def test_sends_and_their_results(benchmark, broker, case, peer, program, sends):
    corpus = [(name, records[0]) for name, records in telemetry(sends, 10, 100).calls]
    measure_peer(benchmark, case, peer, "send", corpus, rounds=ROUNDS, broker=broker, program=program())
    # Peers with fewer sends are compared by their datapoints.
    benchmark.extra_info["value"] /= sends / 1000
    benchmark.extra_info["cpu_seconds"] /= sends / 1000
    benchmark.extra_info.update(datapoints=10_000, calls=1000)


ROUND_TRIP = "one send after the other, a call and its result, p50"
SENDS = 2000


def sends_of_sdk_1(broker):
    client = tb_device_mqtt.TBDeviceMqttClient(broker.host, broker.port, "t")
    client.connect()
    return lambda data: client.send_telemetry(data).get() == 0, client.disconnect


def sends_of_sync(broker):
    client = sync.DeviceClient({"host": broker.host, "port": broker.port, "access_token": "t", "limits_timeout": 0.05})
    client.connect()
    return lambda data: client.send_timeseries(data).is_successful(), client.stop


def sends_of_asyncio(broker):
    runner = asyncio.Runner()
    program = Ours(broker)
    runner.run(program.start())

    async def all_sends(records):
        taken = []
        for data in records:
            began = time.perf_counter()
            assert (await program.round_trip(data)).is_successful()
            taken.append(time.perf_counter() - began)
        return taken

    def end():
        runner.run(program.stop())
        runner.close()

    return lambda records: runner.run(all_sends(records)), end


def all_sends_with(send):
    def all_sends(records):
        taken = []
        for data in records:
            began = time.perf_counter()
            assert send(data)
            taken.append(time.perf_counter() - began)
        return taken

    return all_sends


@pytest.mark.parametrize("peer", ["native", "synchronous", "an awaited send"])
def test_round_trip(benchmark, broker, peer):
    """The first program is one for SDK 1.x."""
    records = [{"ts": FIRST_TS + index, "values": {"temperature": index / 8}} for index in range(SENDS)]
    makers = {"native": sends_of_sdk_1, "synchronous": sends_of_sync, "an awaited send": sends_of_asyncio}
    send, end = makers[peer](broker)
    all_sends = send if peer == "an awaited send" else all_sends_with(send)

    async def checked():
        async with Listener(broker) as listener:
            await asyncio.to_thread(all_sends, records[:100])
            return dict(await listener.until(100))

    try:
        assert asyncio.run(checked()) == {
            (None, one["ts"], key): value for one in records[:100] for key, value in one["values"].items()
        }
        taken = []
        benchmark.group = ROUND_TRIP
        benchmark.pedantic(lambda: taken.extend(all_sends(records)), rounds=1)
    finally:
        end()
    benchmark.extra_info.update(peer=peer, correct=True, value=sorted(taken)[SENDS // 2], calls=SENDS, datapoints=SENDS)
