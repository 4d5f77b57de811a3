"""Sends that are withdrawn when only the store has them: they leave it, are counted as dropped, and never arrive."""

import asyncio
import errno

import pytest
from device_peer import make_client

from reference.store_log import Disk
from store_kills import all_delivered
from tb_mqtt_client import Certainty
from tb_mqtt_client.sync import DeviceClient

SENDS, MEMORY = 20, 5
DROPPED = (-2, Certainty.NEVER_SENT)


@pytest.fixture
def options(tmp_path):
    return {"path": str(tmp_path), "min_free": 0, "commit_interval": 0.001}


async def send(client, number, **terms):
    [delivery] = await client.send_timeseries({f"k{number:02}": 1}, wait_for_publish=False, **terms)
    return delivery


async def send_attribute(client, number):
    [delivery] = await client.send_attributes({f"k{number:02}": 1}, wait_for_publish=False)
    return delivery


def outcome(delivery):
    return delivery.result().reason_code, delivery.result().certainty


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


def arrived(emulator):
    device = emulator.device("device")
    return sorted([point.key for point in device.telemetry] + [*device.attributes])


async def left_memory(emulator, options, send_one=send):
    """Return a client without a connection, and the deliveries of its sends, most of which are on disk only."""
    await emulator.stop()
    client = make_client(emulator, store=options, max_queued_messages=MEMORY)
    await client.start()
    deliveries = [await send_one(client, number) for number in range(SENDS)]
    await client.flush()
    assert client.health()["store"]["backlog_sends"] >= SENDS - MEMORY
    return client, deliveries


@pytest.mark.parametrize("send_one", [send, send_attribute])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_send_that_only_the_disk_has(emulator, options, send_one, is_restarted):
    client, deliveries = await left_memory(emulator, options, send_one)
    before = client.health()["store"]["backlog_sends"]
    unwanted = deliveries[:3]
    for delivery in unwanted:
        assert client.withdraw(delivery)
        assert outcome(delivery) == DROPPED
        assert not client.withdraw(delivery)
    assert client.health()["store"]["backlog_sends"] == before - 3
    assert (client.statistics.dropped, client.statistics.queued) == (3, SENDS - 3)
    assert adds_up(client)
    if is_restarted:
        await client.stop()
        assert client.statistics.kept == SENDS - 3
    await emulator.start()
    if is_restarted:
        client = make_client(emulator, store=options)
        await client.connect()
        assert client.statistics.recovered == SENDS - 3
    await all_delivered(client)
    assert arrived(emulator) == [f"k{number:02}" for number in range(3, SENDS)]
    assert adds_up(client)
    await client.stop()
    async with make_client(emulator, store=options) as last:
        assert last.statistics.recovered == 0


async def test_all_of_them_while_they_are_read_back(emulator, options):
    client, deliveries = await left_memory(emulator, options)
    withdrawn = [delivery for delivery in deliveries if client.withdraw(delivery)]
    # Reading begins before the log knows it.
    await emulator.start()
    async with asyncio.timeout(60):
        await client.wait_connected(60)
        await all_delivered(client)
    assert len(withdrawn) == client.statistics.dropped == SENDS
    assert arrived(emulator) == []
    assert adds_up(client)
    assert client.health()["store"]["backlog_sends"] == 0
    await client.stop()
    async with make_client(emulator, store=options) as last:
        assert last.statistics.recovered == 0


async def test_a_send_that_leaves_memory_with_its_commit(emulator, options, monkeypatch):
    """Newer attributes wait behind those on disk, and the disk does not take them yet."""
    disk = Disk()
    monkeypatch.setattr("tb_mqtt_client.service.engine.open_log", disk.open_log)
    client, deliveries = await left_memory(emulator, options, send_attribute)
    # While the disk fails, memory must have room for the next ones.
    assert all(client.withdraw(delivery) for delivery in deliveries[-2:])
    disk.fails_with = errno.EIO
    async with asyncio.timeout(60):
        behind = await send_attribute(client, SENDS)
        wanted = await send_attribute(client, SENDS + 1)
        assert client.withdraw(behind)
        assert outcome(behind) == DROPPED
        disk.fails_with = None
        await wanted.stored
        assert client.health()["store"]["unwritten_sends"] == 0
    await emulator.start()
    await all_delivered(client)
    assert arrived(emulator) == [f"k{number:02}" for number in range(SENDS + 2) if number not in range(SENDS - 2, SENDS + 1)]
    assert adds_up(client)
    await client.stop()


async def test_a_send_that_expires_before_the_disk_knows_that_it_is_withdrawn(emulator, options, monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.SETTLE_SECONDS", 600)
    await emulator.stop()
    client = make_client(emulator, store=options, max_queued_messages=MEMORY)
    await client.start()
    for number in range(2, SENDS):
        await send(client, number)
    for expires_after in (0.3, 3, 30):
        unwanted, other = [await send(client, number, expires_after=expires_after) for number in range(2)]
        await client.flush()
        # On a busy machine, they may have expired already.
        if client.withdraw(unwanted):
            break
    async with asyncio.timeout(60):
        assert (await other).reason_code == -3
    assert outcome(unwanted) == DROPPED
    assert client.statistics.dropped == client.statistics.accepted - (SENDS - 2)
    assert adds_up(client)
    await client.stop()
    assert client.statistics.kept == SENDS - 2


async def test_a_send_of_a_thread(emulator, options):
    await emulator.stop()
    config = {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}
    client = DeviceClient(config | {"store": options, "max_queued_messages": MEMORY})
    await asyncio.to_thread(client.start)
    deliveries = [await asyncio.to_thread(client.send_timeseries, {f"k{number:02}": 1}, wait=False) for number in range(SENDS)]
    await asyncio.to_thread(client.flush)
    for delivery in deliveries[:2]:
        assert await asyncio.to_thread(client.withdraw, delivery)
        result = delivery.result(60)
        assert (result.reason_code, result.certainty) == DROPPED
    await asyncio.to_thread(client.stop)
    assert (client.statistics.dropped, client.statistics.kept) == (2, SENDS - 2)
    await emulator.start()
    async with make_client(emulator, store=options) as later:
        await all_delivered(later)
    assert arrived(emulator) == [f"k{number:02}" for number in range(2, SENDS)]
