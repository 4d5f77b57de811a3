"""Time from a send to its result, for the pictures: one send after another, and sends at a given rate."""

import asyncio
import random
import struct
import time

import orjson
import pytest
from gmqtt import Message

from corpora import FIRST_TS, values
from end_to_end import HandWritten, Ours

RATES = [1000, 2000, 5000, 10_000, 20_000, 40_000, 80_000]
"""Sends per second, of ten datapoints each."""
SECONDS = 2.0
PERCENTILES = [50, 75, 90, 95, 99, 99.5, 99.9]
TICK = 0.001
"""Resolution of the event loop's timers in seconds."""


class OursTimed(Ours):
    """This package; results come through the futures of sends that do not wait."""

    async def send_one(self, data, finished):
        [future] = await self._client.send_timeseries(data, wait_for_publish=False)
        future.add_done_callback(lambda _: finished())


class HandWrittenTimed(HandWritten):
    """The program by hand, which remembers the send of each PUBACK."""

    def __init__(self, broker):
        super().__init__(broker)
        self._waiting = {}
        handler = self._client._package_handler
        count = handler._handle_puback_packet

        def puback(command, packet):
            count(command, packet)
            self._waiting.pop(struct.unpack_from("!H", packet)[0])()

        handler._handle_puback_packet = puback

    async def send(self, calls):
        for _, data in calls:
            done = asyncio.get_running_loop().create_future()
            await self.send_one(data, lambda done=done: done.set_result(None))
            await done
        return len(calls)

    async def send_one(self, data, finished):
        while self._in_flight >= 100:
            self._window_open.clear()
            await self._window_open.wait()
        self._in_flight += 1
        packet_id, _ = self._client._connection.publish(self._message(data))
        self._waiting[packet_id] = finished

    def _message(self, data):
        return Message(self._topic, orjson.dumps(data), qos=1)


PEERS = {"native": OursTimed, "by hand": HandWrittenTimed}


def percentiles(taken):
    """Return seconds by percentile."""
    ordered = sorted(taken)
    return {f"{percent:g}": ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] for percent in PERCENTILES}


def measure_latency(benchmark, broker, peer, case, work, **facts):
    with asyncio.Runner() as runner:
        program = PEERS[peer](broker)
        runner.run(program.start())
        taken = []

        async def once():
            taken[:] = await work(program)

        benchmark.group = case
        benchmark.pedantic(lambda: runner.run(once()), rounds=1, warmup_rounds=1)
        benchmark.extra_info.update(peer=peer, correct=True, percentiles=percentiles(taken), **facts)
        runner.run(program.stop())


@pytest.mark.parametrize("peer", PEERS)
def test_one_after_the_other(benchmark, broker, peer):
    async def work(program):
        data, taken = {"ts": FIRST_TS, "values": values(random.Random(1))}, []
        for _ in range(5000):
            began = time.perf_counter()
            await program.round_trip(data)
            taken.append(time.perf_counter() - began)
        return taken

    measure_latency(benchmark, broker, peer, "latency, one send at a time", work)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("rate", RATES)
def test_at_a_rate(benchmark, broker, rate, peer):
    """The time of a send counts from the time at which it was due, so that a program that falls behind does not look fast."""
    data = {"ts": FIRST_TS, "values": values(random.Random(1))}

    async def work(program):
        calls, taken, done = int(rate * SECONDS), [], asyncio.Event()

        def result_of(due):
            def finished():
                taken.append(time.perf_counter() - due)
                if len(taken) == calls:
                    done.set()

            return finished

        began = time.perf_counter()
        for index in range(calls):
            due = began + index / rate
            while (early := due - time.perf_counter()) > 0:  # noqa: ASYNC110  # only the clock tells when
                await asyncio.sleep(early - TICK if early > 2 * TICK else 0)
            await program.send_one(data, result_of(due))
        await done.wait()
        return taken

    measure_latency(benchmark, broker, peer, "latency at a rate", work, rate=rate)
