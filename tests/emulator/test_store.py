"""Clients with a store: what is accepted survives the process, is sent by the next one, and is counted on both sides."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import random
import resource
import stat
import sys
import threading
from pathlib import Path

import pytest
from device_peer import make_client

from engine_parts import engine_of, running_tasks
from reference.store_log import Disk
from store_kills import all_delivered, kill_rounds
from tb_mqtt_client import Certainty, ClientState, NotConnectedError, Store
from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, StoreLog
from tb_mqtt_client.common.exceptions import BackpressureException, StoreError, StoreFullError, StoreInUseError, StoreOwnerError
from tb_mqtt_client.emulator import Verdict

TELEMETRY = "v1/devices/me/telemetry"


@pytest.fixture
def options(tmp_path):
    """The options of a store; a test machine may have less free space than the default leaves."""
    return {"path": str(tmp_path / "queue"), "min_free": 0}


async def send(client, values):
    [delivery] = await client.send_timeseries(values, wait_for_publish=False)
    return delivery


def outcome(delivery):
    return delivery.result().reason_code, delivery.result().certainty


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


def arrived(emulator, name="device"):
    return sorted(point.key for point in emulator.device(name).telemetry)


def store_threads():
    return [thread for thread in threading.enumerate() if "store" in thread.name]


async def offline(emulator, options, **others):
    """Return a client with a store and without a server."""
    client = make_client(emulator, store=options, **others)
    await emulator.stop()
    await client.start()
    return client


async def test_what_is_left_at_stop_is_kept_and_sent_by_the_next_client(emulator, options):
    client = await offline(emulator, options)
    deliveries = [await send(client, {f"k{number:03}": number}) for number in range(100)]
    await client.stop()
    assert {(one.result().reason_code, one.result().certainty) for one in deliveries} == {(-4, Certainty.KEPT)}
    assert (client.statistics.kept, client.statistics.undelivered) == (100, 0)
    assert adds_up(client)
    assert store_threads() == []
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    assert (later.statistics.recovered, later.statistics.accepted) == (100, 0)
    assert adds_up(later)
    await all_delivered(later)
    assert later.statistics.acknowledged == 100
    assert arrived(emulator) == [f"k{number:03}" for number in range(100)]
    await later.stop()
    last = make_client(emulator, store=options)
    await last.connect()
    assert last.statistics.recovered == 0
    await last.stop()


async def test_the_same_client_finds_its_data_after_stop_and_connect(emulator, options):
    client = await offline(emulator, options)
    await send(client, {"a": 1})
    await client.stop()
    await emulator.start()
    await client.connect()
    await send(client, {"b": 1})
    await all_delivered(client)
    assert arrived(emulator) == ["a", "b"]
    now = client.statistics
    assert (now.accepted, now.recovered, now.kept, now.acknowledged) == (2, 1, 1, 2)
    assert adds_up(client)
    await client.stop()


async def test_disconnect_keeps_memory_and_store(emulator, options):
    client = make_client(emulator, store=options)
    await client.connect()
    await client.disconnect()
    delivery = await send(client, {"a": 1})
    await delivery.stored
    with pytest.raises(StoreInUseError, match=str(os.getpid())):
        await make_client(emulator, store=options).connect()
    await client.connect()
    assert (await delivery).is_successful()
    assert client.statistics.recovered == 0
    await client.stop()


async def test_stop_of_a_connected_client_delivers_and_leaves_nothing(emulator, options):
    client = make_client(emulator, store=options)
    await client.connect()
    deliveries = [await send(client, {f"k{number}": 1}) for number in range(500)]
    await client.stop()
    assert all(one.result().is_successful() for one in deliveries)
    later = make_client(emulator, store=options)
    await later.connect()
    assert later.statistics.recovered == 0
    await later.stop()


@pytest.mark.parametrize("timeout", [0, None])
async def test_stop_does_not_wait_for_a_connection(emulator, options, timeout):
    client = await offline(emulator, options)
    delivery = await send(client, {"a": 1})
    async with asyncio.timeout(30):
        await client.stop(timeout=timeout)
    assert delivery.result().certainty is Certainty.KEPT


async def test_stop_ends_when_the_connection_does(emulator, options):
    emulator.on_publish = lambda publish: Verdict.ignore(store=False) if publish.topic == TELEMETRY else None
    client = make_client(emulator, store=options)
    await client.connect()
    delivery = await send(client, {"a": 1})
    stopping = asyncio.ensure_future(client.stop(timeout=None))
    while client.state is not ClientState.DRAINING:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await emulator.disconnect_device("device")
    async with asyncio.timeout(30):
        await stopping
    assert delivery.result().certainty is Certainty.KEPT


async def test_memory_is_never_full(emulator, options):
    client = await offline(emulator, options, max_queued_messages=100)
    deliveries = [await send(client, {f"k{number:04}": number}) for number in range(3000)]
    health = client.health()["store"]
    assert health["backlog_sends"] + engine_of(client).message_service.capacity.sends == 3000
    assert engine_of(client).message_service.capacity.sends <= 100
    assert adds_up(client)
    await emulator.start()
    results = await asyncio.gather(*deliveries)
    assert all(result.is_successful() for result in results)
    assert arrived(emulator) == [f"k{number:04}" for number in range(3000)]
    assert client.statistics.acknowledged == 3000
    assert client.statistics.queued == 0
    await client.stop()


async def test_futures_that_nobody_has_take_no_memory(emulator, options):
    client = await offline(emulator, options, max_queued_messages=100)
    for number in range(1000):
        await send(client, {f"k{number:04}": number})
    # One that something waits for, although the program has no reference to it.
    done = []
    (await send(client, {"waited for": 1})).add_done_callback(lambda future: done.append(future.result()))
    for number in range(1000, 2000):
        await send(client, {f"k{number:04}": number})
    store = engine_of(client).store
    assert len(store._futures._held) == 1
    assert len(store._futures._unheld) == 0
    await emulator.start()
    await all_delivered(client)
    assert [result.is_successful() for result in done] == [True]
    assert len(arrived(emulator)) == 2001
    await client.stop()


async def test_attributes_keep_their_order(emulator, options):
    client = await offline(emulator, options, max_queued_messages=10)
    for number in range(200):
        await client.send_attributes({"state": number}, wait_for_publish=False)
        await send(client, {f"t{number}": 1})
    await client.flush()
    seen = []
    emulator.on_publish = lambda publish: (
        seen.append(publish.json()["state"]) if publish.topic == "v1/devices/me/attributes" else None
    )
    await emulator.start()
    for number in range(200, 210):
        await client.send_attributes({"state": number}, wait_for_publish=False)
        await asyncio.sleep(0.01)
    await all_delivered(client)
    assert seen == sorted(seen)
    assert seen[-1] == 209
    await client.stop()


async def test_a_refusal_settles(emulator, options):
    client = await offline(emulator, options)
    delivery = await send(client, {"a": 1})
    await delivery.stored
    await client.stop()
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if publish.topic == TELEMETRY else None
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    await all_delivered(later)
    assert (later.statistics.rejected, later.statistics.recovered) == (1, 1)
    await later.stop()
    last = make_client(emulator, store=options)
    await last.connect()
    assert last.statistics.recovered == 0
    await last.stop()


async def test_a_cancelled_caller_does_not_leave_its_send_in_the_store(emulator, options):
    client = await offline(emulator, options)
    sending = asyncio.ensure_future(client.send_timeseries({"a": 1}))
    while not client.statistics.accepted:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await client.flush()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await emulator.start()
    await all_delivered(client)
    assert arrived(emulator) == ["a"]
    await client.stop()
    last = make_client(emulator, store=options)
    await last.connect()
    assert last.statistics.recovered == 0
    await last.stop()


@pytest.mark.parametrize("durability", ["group", "always", "spill"])
async def test_the_sum_of_each_durability(emulator, options, durability):
    client = make_client(emulator, store=options | {"durability": durability})
    await client.connect()
    await asyncio.gather(*[client.send_timeseries({f"k{number}": 1}) for number in range(200)])
    await emulator.disconnect_device("device")
    await asyncio.gather(*[client.send_timeseries({f"l{number}": 1}) for number in range(200)])
    assert client.statistics.acknowledged == 400
    assert adds_up(client)
    await client.stop()
    assert len(set(arrived(emulator))) == 400


async def test_always_returns_when_the_send_is_on_disk(emulator, options):
    client = await offline(emulator, options | {"durability": "always"})
    deliveries = await asyncio.gather(*[send(client, {f"k{number}": 1}) for number in range(100)])
    assert client.health()["store"]["unwritten_sends"] == 0
    # Sends at the same time share a commit.
    assert client.health()["store"]["commits"] < 20
    assert not any(delivery.done() for delivery in deliveries)
    await client.stop()


async def test_spill_writes_nothing_while_connected_and_everything_when_the_connection_ends(emulator, options):
    client = make_client(emulator, store=options | {"durability": "spill"})
    await client.connect()
    emulator.on_publish = lambda publish: Verdict.ignore(store=False) if publish.topic == TELEMETRY else None
    delivery = await send(client, {"a": 1})
    await asyncio.sleep(0.1)
    assert client.health()["store"]["commits"] == 0
    emulator.on_publish = None
    await emulator.stop()
    await delivery.stored
    assert client.health()["store"]["commits"] == 1
    assert not delivery.done()
    await client.stop()


async def test_flush_writes_with_spill_too(emulator, options):
    client = make_client(emulator, store=options | {"durability": "spill"})
    await client.connect()
    emulator.on_publish = lambda publish: Verdict.ignore(store=False) if publish.topic == TELEMETRY else None
    await send(client, {"a": 1})
    await client.flush()
    assert client.health()["store"]["unwritten_sends"] == 0
    await client.stop(timeout=0)
    assert client.statistics.kept == 1


async def test_another_credential_or_platform_does_not_get_the_data(emulator, options):
    client = await offline(emulator, options)
    await send(client, {"a": 1})
    await client.stop()
    other = make_client(emulator, store=options, access_token="OTHER")
    with pytest.raises(StoreOwnerError, match="credential"):
        await other.connect()
    assert other.state is ClientState.NEW
    with pytest.raises(NotConnectedError):
        await other.send_timeseries({"b": 1})
    assert store_threads() == []
    await emulator.start()
    async with make_client(emulator, store=options) as later:
        await all_delivered(later)
    assert arrived(emulator) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
async def test_a_read_only_directory(emulator, options, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(PermissionError):
            await make_client(emulator, store=options).connect()
    finally:
        tmp_path.chmod(stat.S_IRWXU)


async def test_something_else_at_the_path(emulator, tmp_path):
    (tmp_path / "queue").write_text("a file")
    client = make_client(emulator, store=str(tmp_path / "queue"))
    with pytest.raises((StoreError, OSError)):
        await client.connect()
    assert (tmp_path / "queue").read_text() == "a file"
    assert store_threads() == []


@pytest.mark.parametrize(
    ("on_full", "outcome"), [("raise", "raised"), ("drop_newest", "dropped"), ("drop_oldest", "oldest dropped"), ("wait", "waits")]
)
async def test_a_full_store(emulator, options, on_full, outcome):
    client = await offline(emulator, options | {"max_bytes": 2**20, "on_full": on_full})
    deliveries, raised, waiting = [], 0, None
    for number in range(150):
        sending = asyncio.ensure_future(send(client, {f"k{number:03}": "x" * 10_000}))
        done, _ = await asyncio.wait([sending], timeout=0.5 if on_full == "wait" else 60)
        if not done:
            waiting = sending
            break
        try:
            deliveries.append(await sending)
        except StoreFullError:
            raised += 1
    assert adds_up(client)
    dropped = [delivery for delivery in deliveries if delivery.done()]
    assert client.health()["store"]["bytes"] <= 2**20 + 64 * 1024
    assert all((one.result().reason_code, one.result().certainty) == (-2, Certainty.NEVER_SENT) for one in dropped)
    assert client.statistics.dropped == len(dropped)
    assert {"raised": raised, "dropped": len(dropped), "oldest dropped": len(dropped), "waits": waiting is not None}[outcome]
    if on_full == "drop_oldest":
        assert deliveries[0].done()
        assert not deliveries[-1].done()
    if on_full == "drop_newest":
        assert not deliveries[0].done()
        assert deliveries[-1].done()
    await emulator.start()
    if waiting is not None:
        deliveries.append(await waiting)
    results = await asyncio.gather(*deliveries)
    assert sum(result.is_successful() for result in results) == len(arrived(emulator)) == len(deliveries) - len(dropped)
    assert adds_up(client)
    await client.stop()


async def test_max_age_drops_what_is_on_disk_only(emulator, options, monkeypatch):
    client = await offline(emulator, options)
    await send(client, {"old": 1})
    await client.stop()
    await emulator.start()
    later = make_client(emulator, store=options | {"max_age": 3600})
    monkeypatch.setattr("tb_mqtt_client.service.store.due.now_ms", lambda: 10**13)
    await later.connect()
    await all_delivered(later)
    assert (later.statistics.dropped, later.statistics.acknowledged) == (1, 0)
    assert adds_up(later)
    await later.stop()


async def test_a_clock_that_goes_backwards_drops_nothing(emulator, options, monkeypatch):
    client = await offline(emulator, options)
    await send(client, {"old": 1})
    await client.stop()
    await emulator.start()
    later = make_client(emulator, store=options | {"max_age": 3600})
    monkeypatch.setattr("tb_mqtt_client.service.store.due.now_ms", lambda: 0)
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.now_ms", lambda: 0)
    await later.connect()
    await send(later, {"new": 1})
    await all_delivered(later)
    assert arrived(emulator) == ["new", "old"]
    await later.stop()


async def test_data_of_sub_devices_after_a_restart(emulator, start_gateway, options):
    first = await start_gateway(store=options)
    session, _ = await first.connect_device("meter", "electric")
    await emulator.stop()
    await first.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await first.send_device_attributes(session, {"serial": 7}, wait_for_publish=False)
    await first.send_timeseries({"own": 1}, wait_for_publish=False)
    await first.stop()
    assert first.statistics.kept == 3
    await emulator.start()
    second = await start_gateway(store=options)
    await all_delivered(second)
    assert arrived(emulator, "meter") == ["a"]
    assert emulator.device("meter").profile == "electric"
    assert arrived(emulator, "gateway") == ["own"]
    assert second.statistics.acknowledged == 3
    # The program connects the device as usual, and gets the session that exists.
    again, _ = await second.connect_device("meter", "electric")
    assert (await second.send_device_timeseries(again, {"b": 1})).is_successful()
    assert arrived(emulator, "meter") == ["a", "b"]


def add_to_store(path, devices):
    """Add a send of each device to a closed store."""
    log = StoreLog.open(path, json.loads(Path(path, "store.json").read_text())["owner"])
    log.commit(
        [(EncodedUplink.timeseries({"a": 1}, 1000, device), number, 5, 0, 0) for number, device in enumerate(devices, 1)], []
    )
    log.close()


@pytest.mark.parametrize("name", ["a\0b", " ", "x" * 256])
async def test_data_of_a_device_that_the_platform_can_never_have(emulator, start_gateway, options, caplog, name):
    """Earlier versions have stored it: it is rejected, and leaves the store. Other data, and devices with odd profiles, arrive."""
    await (await start_gateway(store=options)).stop()
    devices = [DeviceIdentity(name), DeviceIdentity("meter"), DeviceIdentity("odd", "a\0b"), DeviceIdentity(name)]
    await asyncio.to_thread(add_to_store, options["path"], devices)
    gateway = await start_gateway(store=options)
    await all_delivered(gateway)
    assert (gateway.statistics.recovered, gateway.statistics.acknowledged, gateway.statistics.rejected) == (4, 2, 2)
    assert arrived(emulator, "meter") == arrived(emulator, "odd") == ["a"]
    assert [repr(name)[:40] in record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [True]
    await gateway.disconnect()
    await gateway.connect()
    await gateway.stop()
    assert adds_up(gateway)
    assert StoreLog.open(options["path"], "", read_only=True).backlog_sends == 0


async def test_data_of_a_refused_device_is_not_in_the_way_of_other_data(emulator, start_gateway, options, monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.service.store.replay.MAX_IN_MEMORY", 20_000)
    first = await start_gateway(store=options)
    refused, _ = await first.connect_device("refused")
    other, announced = await first.connect_device("other")
    await asyncio.gather(*announced)
    await emulator.stop()
    for number in range(100):
        await first.send_device_timeseries(refused, {f"r{number:02}": "x" * 1000}, wait_for_publish=False)
    await first.send_device_timeseries(other, {"a": 1}, wait_for_publish=False)
    await first.stop()
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x97) if publish.topic == "v1/gateway/connect" and publish.json()["device"] == "refused" else None
    )
    await emulator.start()
    second = await start_gateway(store=options, announce_delay_min=0.01, announce_delay_max=0.02)
    async with asyncio.timeout(60):
        while not arrived(emulator, "other"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert arrived(emulator, "refused") == []
    emulator.on_publish = None
    await all_delivered(second)
    assert len(arrived(emulator, "refused")) == 100


@pytest.mark.parametrize("leaves_memory", [False, True])
async def test_data_of_a_deleted_device_is_settled(emulator, start_gateway, options, leaves_memory):
    gateway = await start_gateway(store=options, max_queued_messages=10 if leaves_memory else 1000)
    session, _ = await gateway.connect_device("meter")
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    emulator.on_publish = lambda publish: Verdict.ignore(store=False) if publish.topic == "v1/gateway/telemetry" else None
    for number in range(100):
        await gateway.send_device_timeseries(session, {f"k{number}": 1}, wait_for_publish=False)
    await gateway.flush()
    await emulator.delete_device("meter")
    emulator.on_publish = None
    await emulator.disconnect_device("gateway")
    await all_delivered(gateway)
    assert adds_up(gateway)
    await gateway.stop()
    assert gateway.statistics.kept == 0
    later = await start_gateway(store=options)
    assert later.statistics.recovered == 0


async def test_a_failed_client_keeps_its_data(emulator, options):
    client = await offline(emulator, options)
    delivery = await send(client, {"a": 1})
    await delivery.stored
    await emulator.start()
    emulator.on_publish = lambda publish: Verdict.ignore(store=False) if publish.topic == TELEMETRY else None
    await client.wait_connected(30)
    [loop] = running_tasks("device uplink queue")
    loop.cancel()
    async with asyncio.timeout(30):
        assert (await delivery).certainty is Certainty.KEPT
    assert client.state is ClientState.FAILED
    emulator.on_publish = None
    await client.connect()
    await all_delivered(client)
    assert arrived(emulator) == ["a"]
    assert adds_up(client)
    await client.stop()


async def test_a_program_that_ends_without_stop_loses_nothing(emulator, options):
    program = (
        "import asyncio\n"
        "from tb_mqtt_client import DeviceClient\n"
        "async def main():\n"
        f"    client = DeviceClient({{'host': '127.0.0.1', 'port': {emulator.port}, 'access_token': 'TOKEN',"
        f" 'store': {options!r}}})\n"
        "    await client.start()\n"
        "    [delivery] = await client.send_timeseries({'a': 1}, wait_for_publish=False)\n"
        "    await delivery.stored\n"
        "asyncio.run(main())\n"
    )
    await emulator.stop()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    await emulator.start()
    async with make_client(emulator, store=options) as client:
        await all_delivered(client)
    assert arrived(emulator) == ["a"]


async def test_stop_during_a_commit_and_cancelled_stop(emulator, options):
    client = await offline(emulator, options | {"durability": "always"})
    sends = [asyncio.ensure_future(client.send_timeseries({f"k{number}": 1})) for number in range(50)]
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(client.stop(timeout=None))
    await asyncio.sleep(0)
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopping
    results = await asyncio.gather(*sends, return_exceptions=True)
    kept = [result for result in results if not isinstance(result, Exception)]
    assert all(result.certainty is Certainty.KEPT for result in kept)
    assert client.statistics.kept == len(kept) == client.statistics.accepted
    assert store_threads() == []
    assert client.state is ClientState.STOPPED
    await emulator.start()
    async with make_client(emulator, store=options) as later:
        assert later.statistics.recovered == len(kept)
        await all_delivered(later)


async def test_a_cancelled_connect_leaves_no_thread_and_no_lock(emulator, options):
    client = make_client(emulator, store=options)
    for turns in range(6):
        connecting = asyncio.ensure_future(client.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connecting
    await client.stop()
    async with asyncio.timeout(30):
        while store_threads():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with make_client(emulator, store=options):
        pass


async def test_stop_while_the_store_is_opened(emulator, options):
    client = make_client(emulator, store=options)
    connecting = asyncio.ensure_future(client.connect())
    await asyncio.sleep(0)
    await client.stop()
    with pytest.raises(NotConnectedError):
        await connecting
    assert store_threads() == []
    async with make_client(emulator, store=options):
        pass


@pytest.fixture
def failing_disk(monkeypatch):
    """A disk in memory in place of the files, which can fail and block."""
    disk = Disk()
    monkeypatch.setattr("tb_mqtt_client.service.engine.open_log", disk.open_log)
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.RETRY_SECONDS_MIN", 0.01)
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.RETRY_SECONDS_MAX", 0.02)
    return disk


async def test_a_failing_disk_leaves_data_in_memory_and_is_retried(emulator, tmp_path, failing_disk, caplog):
    caplog.set_level(logging.INFO)
    options = {"path": str(tmp_path), "min_free": 0}
    client = await offline(emulator, options, max_queued_messages=10, queue_policy="raise")
    failing_disk.fails_with = errno.EIO
    delivery = await send(client, {"a": 1})
    with pytest.raises(OSError, match="the disk fails"):
        await client.flush()
    assert "the disk fails" in client.health()["store"]["error"]
    for number in range(9):
        await send(client, {f"k{number}": 1})
    # The memory is full, and the disk does not take anything: now the queue policy applies.
    with pytest.raises(BackpressureException):
        await send(client, {"b": 1})
    assert not delivery.stored.done()
    assert [record for record in caplog.records if "cannot be written" in record.message][1:] == []
    failing_disk.fails_with = None
    await delivery.stored
    assert client.health()["store"]["error"] == ""
    assert "The store works again" in caplog.text
    await send(client, {"b": 1})
    await emulator.start()
    await all_delivered(client)
    assert client.statistics.acknowledged == 11
    await client.stop()
    assert failing_disk.unsettled(str(tmp_path)) == []


@pytest.mark.parametrize("durability", ["group", "always"])
async def test_a_disk_that_fails_while_connected_stops_nothing(emulator, tmp_path, failing_disk, durability):
    client = make_client(emulator, store={"path": str(tmp_path), "min_free": 0, "durability": durability})
    await client.connect()
    failing_disk.fails_with = errno.ENOSPC
    results = await asyncio.gather(*[client.send_timeseries({f"k{number}": 1}) for number in range(100)])
    assert all(result.is_successful() for result in results)
    await client.stop()
    assert (client.statistics.acknowledged, client.statistics.kept, client.statistics.undelivered) == (100, 0, 0)


async def test_what_a_failing_disk_lacks_at_stop_is_undelivered(emulator, tmp_path, failing_disk):
    client = await offline(emulator, {"path": str(tmp_path), "min_free": 0})
    kept = [await send(client, {f"k{number}": 1}) for number in range(5)]
    await client.flush()
    failing_disk.fails_with = errno.EIO
    lost = [await send(client, {f"l{number}": 1}) for number in range(3)]
    await client.stop()
    assert {outcome(one) for one in kept} == {(-4, Certainty.KEPT)}
    assert {outcome(one) for one in lost} == {(-1, Certainty.NEVER_SENT)}
    assert (client.statistics.kept, client.statistics.undelivered) == (5, 3)
    assert adds_up(client)


async def test_callers_that_wait_for_a_failing_disk_return_at_stop(emulator, tmp_path, failing_disk):
    client = await offline(emulator, {"path": str(tmp_path), "min_free": 0, "durability": "always"})
    failing_disk.fails_with = errno.EIO
    sending = asyncio.ensure_future(client.send_timeseries({"a": 1}))
    while not client.health()["store"]["error"]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await client.stop()
    async with asyncio.timeout(30):
        result = await sending
    assert (result.reason_code, result.certainty) == (-1, Certainty.NEVER_SENT)


async def test_stop_gives_up_on_a_disk_that_does_not_respond(emulator, tmp_path, failing_disk, monkeypatch, caplog):
    monkeypatch.setattr("tb_mqtt_client.service.store.disk_store.CLOSE_SECONDS", 0.1)
    client = await offline(emulator, {"path": str(tmp_path), "min_free": 0})
    failing_disk.blocked = threading.Event()
    lost = await send(client, {"a": 1})
    try:
        await client.stop()
        assert "its disk does not respond" in caplog.text
        # The disk may still write it, and then the next client sends it.
        assert outcome(lost) == (-1, Certainty.UNKNOWN)
        assert adds_up(client)
    finally:
        failing_disk.blocked.set()
        for thread in store_threads():
            await asyncio.to_thread(thread.join)


async def test_the_event_loop_does_not_wait_for_the_disk(emulator, tmp_path, failing_disk):
    client = make_client(emulator, store={"path": str(tmp_path), "min_free": 0})
    await client.connect()
    failing_disk.blocked = threading.Event()
    for number in range(50):
        assert (await client.send_timeseries({f"k{number}": 1})).is_successful()
        await asyncio.sleep(0.001)
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.sleep(0.01)
    failing_disk.blocked.set()
    await stopping
    assert failing_disk.unsettled(str(tmp_path)) == []


async def test_a_send_that_is_acknowledged_during_its_commit_is_not_sent_again(emulator, tmp_path, failing_disk):
    client = make_client(emulator, store={"path": str(tmp_path), "min_free": 0, "durability": "always"})
    await client.connect()
    failing_disk.blocked = threading.Event()
    sending = asyncio.ensure_future(client.send_timeseries({"a": 1}))
    while not client.statistics.acknowledged:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await sending).is_successful()
    failing_disk.blocked.set()
    await client.stop()
    assert failing_disk.unsettled(str(tmp_path)) == []


async def test_a_file_that_cannot_grow(emulator, options):
    client = await offline(emulator, options)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, old[1]))
        delivery = await send(client, {"large": "x" * 30_000})
        with pytest.raises(OSError, match="File too large"):
            await client.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    await client.flush()
    assert delivery.stored.done()
    await client.stop()
    await emulator.start()
    async with make_client(emulator, store=options) as later:
        await all_delivered(later)
    assert arrived(emulator) == ["large"]


async def test_too_little_free_space(emulator, options):
    client = make_client(emulator, store=options | {"min_free": 2**60, "on_full": "raise"})
    await client.connect()
    # With a session and nothing that is on disk only, data is sent.
    for number in range(20):
        assert (await client.send_timeseries({f"k{number}": 1})).is_successful()
    await emulator.stop()
    with contextlib.suppress(StoreFullError, OSError):
        # Accepted if the free space was not measured before.
        await send(client, {"a": 1})
        await client.flush()
    with pytest.raises(StoreFullError, match="min_free"):
        await send(client, {"b": 1})
    await client.stop()
    assert client.statistics.kept == 0


# `make soak-kills` has all combinations.
@pytest.mark.parametrize(("durability", "sub_devices"), [("group", 0), ("always", 20)])
async def test_kills(tmp_path, durability, sub_devices):
    reported, recovered = await kill_rounds(tmp_path / "queue", durability, 4, seed=None, sub_devices=sub_devices)
    # The kills must have hit data that only the store had.
    assert reported
    assert recovered


async def test_the_path_in_the_environment(emulator, tmp_path, monkeypatch):
    monkeypatch.setenv("TB_STORE", str(tmp_path / "queue"))
    async with make_client(emulator) as client:
        assert client.health()["store"]["path"] == str(tmp_path / "queue")
        assert engine_of(client).store.options == Store(str(tmp_path / "queue"))


@pytest.mark.parametrize("durability", ["group", "always"])
async def test_sends_of_many_tasks_keep_their_order_while_memory_is_full(emulator, options, durability):
    store = options | {"durability": durability}
    client = make_client(emulator, store=store, max_queued_messages=50, max_inflight_messages=1)
    await client.connect()
    sending, turns = [], random.Random(1)
    for number in range(600):
        sending.append(asyncio.ensure_future(send(client, {"ts": 1, "values": {f"{number:03}": 1}})))
        if turns.random() < 0.1:
            # Those that have begun wait for memory meanwhile.
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await asyncio.gather(*await asyncio.gather(*sending))
    keys = [point.key for point in emulator.device("device").telemetry]
    assert keys == [f"{number:03}" for number in range(600)]
    await client.stop()
