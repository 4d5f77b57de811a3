"""Growth: the CPU time of a datapoint while one size grows and everything else stays. Each row says how much it varies at most.

``GROWTH=full`` measures the queue up to ten million datapoints, which takes minutes and about 600 MB.
"""

import asyncio
import gc
import os
import random
import time
from functools import partial

import pytest

from corpora import FIRST_TS, sixteen_places, telemetry, values
from end_to_end import Ours
from tb_mqtt_client import _native
from tb_mqtt_client.bench.corpus import points_of

ROUNDS = 5
MAX_SIZE = 65_000
DATAPOINTS = 100_000
"""Datapoints of one round, where the size that grows is not their number."""
MARKED = 20_000
"""Datapoints that are accepted behind a queue of a given length."""


def cpu_seconds(work, datapoints):
    """Return the smallest CPU time of some rounds, for a datapoint: other programs only add to it."""
    found = []
    for _ in range(ROUNDS):
        gc.collect()
        calls, began = 0, time.process_time()
        while not calls or time.process_time() - began < 0.005:
            work()
            calls += 1
        found.append((time.process_time() - began) / calls / datapoints)
    return min(found)


def payloads(calls, identities, max_size=MAX_SIZE):
    """Encode and pack sends, as a client does; identities are those of a gateway, or ``None``."""
    encode = _native.EncodedUplink.timeseries
    uplinks = [encode(data, 0, identities and identities[name]) for name, data in calls]
    packed = _native.pack_timeseries(uplinks, gateway=identities is not None, max_size=max_size, max_devices=0)
    return [payload.data for payload in packed.payloads]


def splitting(calls, *, gateway=False, max_size=MAX_SIZE):
    """Return the CPU time of a datapoint from dicts to payloads, after a check of the payloads."""
    identities = {name: _native.DeviceIdentity(name) for name, _ in calls} if gateway else None
    expected = {
        (name if gateway else None, record["ts"], key): value
        for name, data in calls
        for record in data
        for key, value in sixteen_places(record["values"]).items()
    }
    found = {}
    for payload in payloads(calls, identities, max_size):
        assert len(payload) <= max_size
        found |= points_of(payload, gateway=gateway)
    assert found == expected
    return cpu_seconds(partial(payloads, calls, identities, max_size), len(expected))


def of_a_send(size):
    """One send of this many datapoints, ten or fewer for a timestamp."""
    source = random.Random(size)
    rows = [dict(list(values(source).items())[: min(size, 10)]) for _ in range(max(1, size // 10))]
    return splitting([("device", [{"ts": FIRST_TS + index, "values": row} for index, row in enumerate(rows)])])


def of_devices(devices):
    """Sends of 10 datapoints each; the devices of a gateway send in turn."""
    sends = max(devices, DATAPOINTS // 10)
    return splitting(telemetry(sends, 10, devices).calls, gateway=True)


def of_keys(keys):
    """Sends of 10 datapoints each, which have all keys of a device in turn; with fewer keys, a send has as many datapoints."""
    source = random.Random(keys)
    names = [f"measured_value_{number}" for number in range(keys)]
    width = min(10, keys)
    calls = []
    for send in range(DATAPOINTS // width):
        chosen = [names[(send * width + place) % keys] for place in range(width)]
        calls.append(("device", [{"ts": FIRST_TS + send, "values": {key: source.uniform(0, 100) for key in chosen}}]))
    return splitting(calls)


def of_payloads(limit):
    """Sends of 10 datapoints each, in payloads of at most this many bytes."""
    return splitting(telemetry(DATAPOINTS // 10, 10, 1).calls, max_size=limit)


def of_a_queue(queued):
    """Accept sends of 10 datapoints each behind a queue of this many datapoints, without a connection."""

    async def accept():
        class Nowhere:
            host, port = "127.0.0.1", 9  # discard: nothing listens there

        program = Ours(Nowhere, max_queued_bytes=2**33, max_queued_messages=10**9)
        await program.start_offline()
        rows = [{"ts": FIRST_TS + index, "values": values(random.Random(index % 100))} for index in range(queued // 10)]
        for row in rows:
            await program.send_later(row)
        assert program.statistics.queued == 10 * len(rows)
        more = [{"ts": FIRST_TS + queued + index, "values": values(random.Random(index % 100))} for index in range(MARKED // 10)]
        gc.collect()
        gc.freeze()
        began = time.process_time()
        for row in more:
            await program.send_later(row)
        taken = time.process_time() - began
        gc.unfreeze()
        assert program.statistics.queued == 10 * (len(rows) + len(more))
        await program.stop(timeout=0)
        return taken / MARKED

    return min(asyncio.run(accept()) for _ in range(3))


LONGEST_QUEUE = 10_000_000 if os.environ.get("GROWTH") == "full" else 1_000_000
CASES = {
    "linear in the datapoints of a send, 100 to 100,000": (of_a_send, [1, 10, 100, 1000, 10_000, 100_000], 100),
    "flat in the number of devices, 1 to 100,000": (of_devices, [1, 10, 100, 1000, 10_000, 100_000], 1),
    "flat in the number of keys, 10 to 10,000": (of_keys, [1, 10, 100, 1000, 10_000], 10),
    "flat in the length of the queue, from 1000 datapoints": (
        of_a_queue,
        [length for length in (1000, 10_000, 100_000, 1_000_000, 10_000_000) if length <= LONGEST_QUEUE],
        1000,
    ),
    "flat in the limit of a payload, 1 kB to 1 MB": (of_payloads, [1000, 10_000, 65_000, 100_000, 1_000_000], 1000),
}
"""What is measured at which sizes, and the size from which on the statement holds."""


@pytest.mark.parametrize("case", CASES)
def test_growth(benchmark, case):
    """The value is the longest time of a datapoint divided by the shortest, from the first size of the statement on."""
    measure, sizes, first = CASES[case]
    points = []
    benchmark.group = case
    benchmark.pedantic(lambda: points.extend([size, measure(size)] for size in sizes), rounds=1)
    held = [seconds for size, seconds in points if size >= first]
    benchmark.extra_info.update(peer="native", correct=True, value=max(held) / min(held), points=points)
