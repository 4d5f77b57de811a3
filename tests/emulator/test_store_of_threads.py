"""The synchronous clients with a store, from several threads: what is accepted is kept, and "always" waits for the disk."""

import asyncio
import errno
import threading

import pyarrow as pa
import pytest
from device_peer import FAST

from engine_parts import engine_of
from reference.store_log import Disk
from tb_mqtt_client import Certainty, NotConnectedError, QueueFullError
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.service.store.contents import StoreContents
from tb_mqtt_client.sync import DeviceClient, GatewayClient

SECONDS = 60
"""A limit for waiting in threads, so that a defect cannot block the tests."""
TELEMETRY = "v1/devices/me/telemetry"


@pytest.fixture
def make(emulator, tmp_path):
    """Return a function that makes clients with a store."""

    def make(kind=DeviceClient, durability="always", **others):
        store = {"path": str(tmp_path / "queue"), "min_free": 0, "durability": durability}
        token = "GATEWAY" if kind is GatewayClient else "TOKEN"
        return kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": token, "store": store} | others)

    return make


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A disk in memory in place of the files, which can fail and block."""
    # Its free space is measured.
    (tmp_path / "queue").mkdir()
    disk = Disk()
    monkeypatch.setattr("tb_mqtt_client.service.engine.open_log", disk.open_log)
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.RETRY_SECONDS_MIN", 0.01)
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.RETRY_SECONDS_MAX", 0.02)
    return disk


def core_of(client):
    return engine_of(client._core)


async def all_delivered(client):
    async with asyncio.timeout(SECONDS):
        while client.statistics.queued or client.statistics.in_flight:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0.01)


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


def arrived(emulator, name="device"):
    return sorted(point.key for point in emulator.device(name).telemetry)


@pytest.mark.parametrize("path", ["send", "submit", "send_uplinks"])
async def test_always_returns_when_the_send_is_on_disk(emulator, make, disk, tmp_path, path):
    await emulator.stop()
    client = make()
    await asyncio.to_thread(client.start)
    on_disk = []

    def send():
        if path == "send":
            delivery = client.send_timeseries({"a": 1}, wait=False, timeout=SECONDS)
        elif path == "submit":
            delivery = client._runtime.new_delivery()
            client._core.submit(client._core.encode_timeseries({"a": 1}), delivery, SECONDS)
        else:
            delivery = client._runtime.send_uplinks([client._core.encode_timeseries({"a": 1})], TELEMETRY, False, SECONDS)
        on_disk.append(disk.unsettled(str(tmp_path / "queue")))
        return delivery

    disk.blocked = threading.Event()
    sending = asyncio.ensure_future(asyncio.to_thread(send))
    async with asyncio.timeout(SECONDS):
        while not client.statistics.accepted:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0.001)
    assert not on_disk
    disk.blocked.set()
    delivery = await sending
    assert on_disk == [[1]]
    assert not delivery.done()
    await asyncio.to_thread(client.stop)
    assert delivery.result(SECONDS).certainty is Certainty.KEPT


@pytest.mark.parametrize("kind", [DeviceClient, GatewayClient])
async def test_always_returns_when_all_parts_of_a_table_are_on_disk(emulator, make, monkeypatch, kind):
    """Also without waiting for the result, and in the file that another program can read."""
    monkeypatch.setattr("tb_mqtt_client.service.delivery.tables.DATAPOINTS_A_PART", 10)
    await emulator.stop()
    client = make(kind)
    await asyncio.to_thread(client.start)
    table = pa.table({"ts": list(range(1, 101)), "kwh": list(range(100)), "meter": ["A", "B"] * 50})
    columns = {"device": "meter"} if kind is GatewayClient else {}
    delivery = await asyncio.to_thread(client.send_table, table, wait=False, **columns)
    with StoreContents(client.health()["store"]["path"]) as contents:
        assert contents.datapoints == (100 if columns else 200)
    assert client.health()["store"]["unwritten_sends"] == 0
    assert not delivery.done()
    await asyncio.to_thread(client.stop)
    assert delivery.result(SECONDS).certainty is Certainty.KEPT


async def test_always_ends_with_the_result_of_a_send(make, disk):
    client = make()
    await asyncio.to_thread(client.connect)
    disk.blocked = threading.Event()
    delivery = await asyncio.to_thread(client.send_timeseries, {"a": 1}, wait=False, timeout=SECONDS)
    assert delivery.result(SECONDS).is_successful()
    disk.blocked.set()
    await asyncio.to_thread(client.stop)


async def test_always_in_a_thread_with_an_event_loop(make):
    client = make()
    await asyncio.to_thread(client.connect)
    with pytest.raises(QueueFullError, match="waits for the disk"):
        client.send_timeseries({"a": 1}, wait=False)
    assert client.statistics.accepted == 0
    await asyncio.to_thread(client.stop)


async def test_a_disk_that_fails_longer_than_the_timeout(emulator, make, disk):
    await emulator.stop()
    client = make()
    await asyncio.to_thread(client.start)
    disk.fails_with = errno.EIO
    with pytest.raises(TimeoutError, match=r"not on disk after 0\.05 s"):
        await asyncio.to_thread(client.send_timeseries, {"a": 1}, wait=False, timeout=0.05)
    # It is accepted nevertheless.
    assert client.statistics.accepted == 1
    disk.fails_with = None
    await asyncio.to_thread(client.flush)
    await emulator.start()
    await all_delivered(client)
    assert arrived(emulator) == ["a"]
    await asyncio.to_thread(client.stop)


async def test_threads_that_wait_for_a_failing_disk_return_at_stop(emulator, make, disk):
    await emulator.stop()
    client = make()
    await asyncio.to_thread(client.start)
    disk.fails_with = errno.EIO
    sending = [
        asyncio.ensure_future(asyncio.to_thread(client.send_timeseries, {f"a{number}": 1}, wait=False, timeout=SECONDS))
        for number in range(3)
    ]
    async with asyncio.timeout(SECONDS):
        while client.statistics.accepted < 3:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0.001)
        await asyncio.to_thread(client.stop)
        results = [delivery.result(SECONDS) for delivery in await asyncio.gather(*sending)]
    assert {(result.reason_code, result.certainty) for result in results} == {(-1, Certainty.NEVER_SENT)}
    assert adds_up(client)


@pytest.mark.parametrize("durability", ["group", "always", "spill"])
@pytest.mark.parametrize("max_queued", [10, 10_000])
async def test_sends_of_threads_arrive_after_a_restart(emulator, make, durability, max_queued):
    await emulator.stop()
    client = make(durability=durability, max_queued_messages=max_queued)
    await asyncio.to_thread(client.start)

    def send(thread):
        for number in range(50):
            client.send_timeseries({f"{thread}-{number:02}": 1}, wait=False, timeout=SECONDS)

    await asyncio.gather(*[asyncio.to_thread(send, thread) for thread in range(4)])
    await asyncio.to_thread(client.flush)
    assert client.statistics.queued == 200
    await asyncio.to_thread(client.stop)
    assert (client.statistics.kept, client.statistics.undelivered) == (200, 0)
    await emulator.start()
    later = make(durability=durability)
    await asyncio.to_thread(later.connect)
    await all_delivered(later)
    assert arrived(emulator) == sorted(f"{thread}-{number:02}" for thread in range(4) for number in range(50))
    assert (later.statistics.recovered, later.statistics.acknowledged) == (200, 200)
    await asyncio.to_thread(later.stop)


async def test_a_gateway(emulator, make):
    first = make(GatewayClient)

    await asyncio.to_thread(first.connect)
    session, _ = await asyncio.to_thread(first.connect_device, "meter", "electric")
    await emulator.stop()
    deliveries = [
        await asyncio.to_thread(first.send_device_timeseries, session, {f"k{number}": 1}, wait=False) for number in range(20)
    ]
    await asyncio.to_thread(first.stop)
    assert {delivery.result(SECONDS).certainty for delivery in deliveries} == {Certainty.KEPT}
    await emulator.start()
    later = make(GatewayClient)
    await asyncio.to_thread(later.connect)
    await all_delivered(later)
    assert arrived(emulator, "meter") == sorted(f"k{number}" for number in range(20))
    await asyncio.to_thread(later.stop)


@pytest.mark.parametrize("durability", ["group", "always"])
async def test_withdraw(emulator, make, durability):
    await emulator.stop()
    client = make(durability=durability)
    await asyncio.to_thread(client.start)
    unwanted, wanted = [
        await asyncio.to_thread(client.send_timeseries, {key: 1}, wait=False, timeout=SECONDS) for key in ("a", "b")
    ]
    await asyncio.to_thread(client.flush)
    assert await asyncio.to_thread(client.withdraw, unwanted)
    assert not await asyncio.to_thread(client.withdraw, unwanted)
    assert unwanted.result(SECONDS).reason_code == -2
    assert (client.statistics.dropped, client.statistics.queued) == (1, 1)
    await asyncio.to_thread(client.stop)
    assert wanted.result(SECONDS).certainty is Certainty.KEPT
    await emulator.start()
    later = make(durability=durability)
    await asyncio.to_thread(later.connect)
    await all_delivered(later)
    assert (later.statistics.recovered, arrived(emulator)) == (1, ["b"])
    await asyncio.to_thread(later.stop)


async def test_a_stopped_client_accepts_nothing(make):
    client = make()
    await asyncio.to_thread(client.connect)
    await asyncio.to_thread(client.stop)
    with pytest.raises(NotConnectedError):
        await asyncio.to_thread(client.send_timeseries, {"a": 1}, wait=False, timeout=SECONDS)


async def test_a_refusal_reaches_the_thread_and_is_settled(emulator, make):
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if publish.topic == TELEMETRY else None
    client = make()
    await asyncio.to_thread(client.connect)
    delivery = await asyncio.to_thread(client.send_timeseries, {"a": 1}, wait=False, timeout=SECONDS)
    assert delivery.result(SECONDS).certainty is Certainty.REFUSED
    await asyncio.to_thread(client.stop)
    later = make()
    await asyncio.to_thread(later.connect)
    assert later.statistics.recovered == 0
    await asyncio.to_thread(later.stop)
