"""Throughput by the size of a send, for the pictures: from the sends to the last PUBACK of a real broker."""

import asyncio
import random

import orjson
import pytest

from corpora import FIRST_TS, KEYS, sixteen_places, values
from end_to_end import HandWritten, Listener, Ours, expected

PEERS = {"native": Ours, "by hand": HandWritten}
SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
"""Datapoints per send: ten keys per timestamp, or fewer in all."""
SUB_DEVICES = 100
MOST_CALLS = 10_000
MOST_DATAPOINTS = 200_000
ROUNDS = 5


def calls_of(size, names):
    """Return the sends of one measurement, with the sub-devices in turn."""
    source = random.Random(size)
    made = []
    for index in range(min(MOST_CALLS, MOST_DATAPOINTS // size)):
        records = [
            {"ts": FIRST_TS + index * size + number, "values": dict(list(values(source).items())[:size])}
            for number in range(max(1, size // len(KEYS)))
        ]
        made.append((names[index % len(names)] if names else None, records if size > len(KEYS) else records[0]))
    return made


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["device", "gateway"])
def test_throughput(benchmark, broker, kind, size, peer):
    names = [f"device {number}" for number in range(SUB_DEVICES)] if kind == "gateway" else []
    calls = calls_of(size, names)
    datapoints = size * len(calls)
    with asyncio.Runner() as runner:
        program = None

        async def prepare():
            nonlocal program
            program = PEERS[peer](broker, names)
            await program.start()
            async with Listener(broker) as listener:
                await program.send(calls)
                assert sixteen_places(await listener.until(datapoints)) == sixteen_places(expected(calls))

        runner.run(prepare())
        benchmark.group = f"throughput, {kind}"
        benchmark.extra_info.update(peer=peer, correct=True, size=size, datapoints=datapoints)
        benchmark.extra_info["bytes"] = sum(len(orjson.dumps(data)) for _, data in calls) / len(calls)
        counted = benchmark.pedantic(lambda: runner.run(program.send(calls)), rounds=ROUNDS, warmup_rounds=1)
        assert counted == datapoints
        runner.run(program.stop())
