"""Priorities and expiry of sends of which the store has the only copy, and of sends that wait for capacity."""

import asyncio
import time

import pytest
from device_peer import make_client

from store_kills import all_delivered
from tb_mqtt_client import Certainty

EXPIRED, DROPPED = -3, -2
LONG = 20
"""Seconds after which a test gives up."""


@pytest.fixture
def options(tmp_path):
    return {"path": str(tmp_path / "queue"), "min_free": 0}


async def send(client, values, **terms):
    [delivery] = await client.send_timeseries(values, wait_for_publish=False, **terms)
    return delivery


async def offline(emulator, options, **others):
    """Return a client with a store and without a server."""
    client = make_client(emulator, store=options, **others)
    await emulator.stop()
    await client.start()
    return client


def arrived(emulator):
    return [point.key for point in emulator.device("device").telemetry]


async def until_dropped(client):
    async with asyncio.timeout(LONG):
        while not client.statistics.dropped:  # noqa: ASYNC110  # no event reports it
            await asyncio.sleep(0.05)


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


async def store_by_priority(emulator, options):
    client = await offline(emulator, options)
    for number, priority in enumerate(["low", "normal", "high"] * 3):
        await send(client, {f"{priority}{number}": 1}, priority=priority)
    await client.stop()
    await emulator.start()


@pytest.mark.parametrize("replay", ["live_first", "in_order"])
async def test_the_backlog_of_an_earlier_process(emulator, options, replay):
    """By priority, and oldest first; with "in_order" in the order in which it was sent, whatever the priorities are."""
    await store_by_priority(emulator, options)
    # One datapoint a message, in order.
    later = make_client(
        emulator, store=options, replay=replay, max_inflight_messages=1, rate_limits={"telemetry_datapoints": "40:1"}
    )
    await later.connect()
    await all_delivered(later)
    kinds = [key.rstrip("012345678") for key in arrived(emulator)]
    in_order = ["low", "normal", "high"] * 3
    assert kinds == (in_order if replay == "in_order" else ["high"] * 3 + ["normal"] * 3 + ["low"] * 3)
    await later.stop()


async def test_a_send_that_only_the_disk_has_expires(emulator, options):
    """Without a session, and without being read."""
    client = await offline(emulator, options, max_queued_messages=3)
    first = await send(client, {"old": 1}, expires_after=1.0)
    for number in range(10):
        await send(client, {f"k{number}": 1})
    assert client.health()["store"]["backlog_sends"] > 0
    async with asyncio.timeout(LONG):
        result = await first
    assert (result.reason_code, result.certainty, client.statistics.dropped) == (EXPIRED, Certainty.NEVER_SENT, 1)
    assert adds_up(client)
    await client.stop()
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    assert later.statistics.recovered == 10
    await later.stop()


async def test_a_send_of_an_earlier_process_expires(emulator, options):
    client = await offline(emulator, options)
    await send(client, {"old": 1}, expires_after=1.0)
    await send(client, {"new": 1})
    await client.stop()
    later = make_client(emulator, store=options)
    await later.start()
    assert later.statistics.recovered == 2
    await until_dropped(later)
    assert later.health()["store"]["backlog_sends"] == 1
    assert adds_up(later)
    await later.stop()


async def test_sends_become_too_old_without_a_session(emulator, options):
    client = await offline(emulator, options)
    await send(client, {"old": 1})
    await client.stop()
    later = make_client(emulator, store=options | {"max_age": 1.0})
    await later.start()
    await until_dropped(later)
    assert later.health()["store"]["backlog_sends"] == 0
    assert adds_up(later)
    await later.stop()


async def test_a_caller_that_waits_for_capacity_stops_at_its_expiry(emulator):
    client = make_client(emulator, max_queued_messages=1)
    await emulator.stop()
    await client.start()
    await send(client, {"a": 1})
    async with asyncio.timeout(LONG):
        expired = await send(client, {"b": 1}, expires_after=0.2)
    result = expired.result()
    assert (result.reason_code, result.certainty, client.statistics.dropped) == (EXPIRED, Certainty.NEVER_SENT, 1)
    assert adds_up(client)
    # A caller that waits longer is not in the way, and neither is one that has gone.
    waiting = asyncio.ensure_future(send(client, {"c": 1}, expires_after=3600))
    await emulator.start()
    async with asyncio.timeout(LONG):
        assert (await (await waiting)).is_successful()
    assert sorted(arrived(emulator)) == ["a", "c"]
    await client.stop()


async def test_a_caller_that_waits_for_space_in_the_store_stops_at_its_expiry(emulator, options):
    client = await offline(emulator, options | {"max_bytes": 2**20})
    large = "x" * 60_000
    async with asyncio.timeout(LONG):
        for number in range(100):
            began = time.monotonic()
            last = await send(client, {f"k{number}": large}, expires_after=0.5)
            if last.done():
                break
    assert last.result().reason_code == EXPIRED
    assert time.monotonic() - began >= 0.4
    assert adds_up(client)
    await client.stop()


async def test_a_send_of_another_thread_that_waits_for_capacity_stops_at_its_expiry(emulator):
    client = make_client(emulator, max_queued_messages=1)
    await emulator.stop()
    await client.start()
    await send(client, {"a": 1})
    receiver = asyncio.get_running_loop().create_future()
    encoded = client.encode_timeseries({"b": 1})
    submitting = asyncio.to_thread(client.submit, encoded, receiver, expires_after=0.3)
    async with asyncio.timeout(LONG):
        await submitting
        assert (await receiver).reason_code == EXPIRED
    assert adds_up(client)
    await client.stop()
