"""Sends that are encoded straight into a native queue, mixed with all others: each is counted once, on both sides."""

import asyncio
import random

import pytest
from device_peer import make_client

from engine_parts import engine_of
from tb_mqtt_client import QueueFullError

STATES = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight")


def adds_up(client):
    now = client.statistics
    return now.accepted == sum(getattr(now, state) for state in STATES)


async def send_mixed(client, seed, count, *, priorities):
    """Make sends of all kinds. Return the pending results of timeseries and of attributes, and the values that were withdrawn."""
    chosen = random.Random(seed)
    pending, attributes, withdrawn = {}, [], set()
    for number in range(count):
        data = {"ts": number + 1, "values": {"a": number}}
        match chosen.choices(["await", "enqueue", "attributes", "withdraw", "low", "turn"], [40, 40, 3, 5, 4, 8])[0]:
            case "await":
                [pending[number]] = await client.send_timeseries(data, wait_for_publish=False)
            case "enqueue":
                pending[number] = client.enqueue_timeseries(data)
            case "attributes":
                attributes.append(client.enqueue_attributes({f"attribute {number}": number}))
            case "withdraw":
                pending[number] = client.enqueue_timeseries(data)
                if client.withdraw(pending[number]):
                    withdrawn.add(number)
            case "low" if priorities:
                pending[number] = client.enqueue_timeseries(data, priority="low")
            case _:
                await asyncio.sleep(0)
    return pending, attributes, withdrawn


@pytest.mark.parametrize("priorities", [False, True], ids=["one priority", "priorities"])
@pytest.mark.parametrize("seed", range(3))
async def test_mixed_sends_arrive_once(emulator, seed, priorities):
    async with make_client(emulator) as client:
        pending, attributes, withdrawn = await send_mixed(client, seed, 3000, priorities=priorities)
        results = {number: await one for number, one in pending.items()}
        assert {number for number, result in results.items() if not result.is_successful()} == withdrawn
        assert {result.datapoints_count for result in results.values()} == {1}
        assert all([(await one).is_successful() for one in attributes])
        assert adds_up(client)
        assert len(engine_of(client).futures) == 0
        assert (client.statistics.queued, client.statistics.queued_sends) == (0, 0)
    arrived = [(point.ts, point.value) for point in emulator.device("device").telemetry]
    assert sorted(arrived) == sorted((number + 1, number) for number in pending if number not in withdrawn)


async def test_sends_that_wait_for_a_connection_arrive_in_their_order(emulator):
    client = make_client(emulator, max_queued_messages=2000)
    await emulator.stop()
    await client.start()
    sends = [{"ts": number + 1, "values": {"a": number}} for number in range(2000)]
    pending = [client.enqueue_timeseries(data) for data in sends[:1000]]
    assert engine_of(client).sends.intake.plain.gathers
    assert (client.statistics.accepted, client.statistics.queued_sends) == (1000, 1000)
    for data in sends[1000:]:
        pending += await client.send_timeseries(data, wait_for_publish=False)
    with pytest.raises(QueueFullError, match="2,000 sends"):
        client.enqueue_timeseries({"a": 0})
    assert (client.statistics.accepted, client.statistics.queued_sends) == (2000, 2000)
    await emulator.start()
    results = await asyncio.gather(*pending)
    assert all(result.is_successful() for result in results)
    assert [point.value for point in emulator.device("device").telemetry] == list(range(2000))
    await client.stop()
    assert adds_up(client)


async def test_a_connection_that_ends_loses_none(emulator):
    async with make_client(emulator) as client:
        pending = []
        for number in range(2000):
            pending.append(client.enqueue_timeseries({"ts": number + 1, "values": {"a": number}}))
            if number % 400 == 399:
                await asyncio.sleep(0)
                await emulator.disconnect_device("device")
        results = await asyncio.gather(*pending)
        assert all(result.is_successful() for result in results)
        assert adds_up(client)
    assert {point.value for point in emulator.device("device").telemetry} == set(range(2000))


async def test_stop_resolves_gathered_sends(emulator):
    client = make_client(emulator)
    await emulator.stop()
    await client.start()
    pending = [client.enqueue_timeseries({"a": number}) for number in range(100)]
    await client.stop(timeout=0)
    results = [await one for one in pending]
    assert {result.reason_code for result in results} == {-1}
    assert client.statistics.undelivered == client.statistics.accepted == 100
    assert adds_up(client)
