"""Faults of the disk and of the store's size at inconvenient moments: every caller gets an answer, and every answer is true."""

import asyncio
import errno
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from device_peer import make_client

from engine_parts import engine_of
from reference.store_log import Disk, ReferenceLog
from store_kills import all_delivered, take_arrived
from tb_mqtt_client import Certainty
from tb_mqtt_client.common.exceptions import NotAStoreError, StoreFullError


@pytest.fixture
def disk(monkeypatch):
    """A disk in memory in place of the files, which can fail and block."""
    disk = Disk()
    monkeypatch.setattr("tb_mqtt_client.service.engine.open_log", disk.open_log)
    return disk


class FullDisk(Disk):
    """A disk on which nothing can be written while it is full. What is on it can be read."""

    is_full = False

    def open_log(self, path, owner, max_segment_bytes):
        return LogOnFullDisk(self, path, owner, max_segment_bytes)


class LogOnFullDisk(ReferenceLog):
    def commit(self, sends, settled):
        if self._disk.is_full:
            raise OSError(errno.ENOSPC, "the disk is full", self._path)
        super().commit(sends, settled)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path)


async def send(client, values):
    [delivery] = await client.send_timeseries(values, wait_for_publish=False)
    return delivery


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


async def offline(emulator, store, **others):
    """Return a client with a store and without a server."""
    client = make_client(emulator, store=store, **others)
    await emulator.stop()
    await client.start()
    return client


async def test_a_send_that_waits_for_a_failing_disk_returns_at_stop(emulator, path, disk):
    client = await offline(emulator, {"path": path, "min_free": 0, "durability": "always"})
    disk.fails_with = errno.EIO
    sending = asyncio.ensure_future(client.send_timeseries({"a": 1}))
    while not client.health()["store"]["error"]:  # noqa: ASYNC110  # there is no event for that
        await asyncio.sleep(0.001)
    await client.stop()
    async with asyncio.timeout(30):
        assert (await sending).certainty is Certainty.NEVER_SENT
    assert client.statistics.undelivered == 1


async def test_stop_resolves_the_future_of_the_commit(emulator, path, disk):
    client = await offline(emulator, {"path": path, "min_free": 0})
    disk.fails_with = errno.EIO
    stored = (await send(client, {"a": 1})).stored
    await client.stop()
    async with asyncio.timeout(30):
        await stored


async def test_what_a_disk_that_does_not_respond_has_not_taken_is_not_kept(emulator, path, disk, monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.service.store.disk_store.CLOSE_SECONDS", 0.1)
    client = await offline(emulator, {"path": path, "min_free": 0}, max_queued_messages=5)
    for number in range(20):
        await client.send_attributes({"state": number}, wait_for_publish=False)
    await client.flush()
    disk.blocked = threading.Event()
    # They leave memory with their commit, behind older attributes.
    deliveries = [(await client.send_attributes({"state": number}, wait_for_publish=False))[0] for number in range(20, 23)]
    stopping = asyncio.ensure_future(client.stop())
    await stopping
    assert {(one.result().reason_code, one.result().certainty) for one in deliveries} == {(-1, Certainty.UNKNOWN)}
    assert (client.statistics.kept, client.statistics.undelivered) == (20, 3)
    assert adds_up(client)
    disk.blocked.set()


@pytest.mark.parametrize("on_full", ["wait", "drop_oldest"])
async def test_a_send_that_never_fits_does_not_wait_and_drops_nothing(emulator, path, on_full):
    client = await offline(emulator, {"path": path, "min_free": 0, "max_bytes": 2**20, "on_full": on_full})
    delivery = await send(client, {"a": 1})
    async with asyncio.timeout(30):
        with pytest.raises(StoreFullError):
            await send(client, {f"k{number}": "x" * 10_000 for number in range(150)})
    assert not delivery.done()
    await client.stop()
    assert client.statistics.kept == 1


async def test_sends_that_wait_for_space_go_on_when_others_are_acknowledged_before_their_commit(emulator, path, monkeypatch):
    # Nothing but acknowledgements tells that there is space: nothing is written, and the free space is not measured in time.
    monkeypatch.setattr("tb_mqtt_client.service.store.space.PROBE_SECONDS", 3600)
    client = make_client(emulator, store={"path": path, "min_free": 0, "max_bytes": 2**20, "durability": "spill"})
    await client.connect()
    async with asyncio.timeout(60):
        results = await asyncio.gather(*[client.send_timeseries({f"k{number}": "x" * 10_000}) for number in range(300)])
    assert all(result.is_successful() for result in results)
    assert client.health()["store"]["commits"] == 0
    await client.stop()


@pytest.mark.parametrize("free", [0, 4096])
async def test_a_connected_client_sends_while_other_files_take_all_space(emulator, path, monkeypatch, free):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    client = make_client(emulator, store={"path": path, "min_free": 0, "durability": "always"})
    await client.connect()
    async with asyncio.timeout(60):
        results = await asyncio.gather(*[client.send_timeseries({f"k{number}": "x" * 5000}) for number in range(50)])
    assert all(result.is_successful() for result in results)
    await client.stop()
    assert client.statistics.acknowledged == 50


@pytest.mark.parametrize("memory", [3, 1000])
async def test_files_that_are_removed_while_the_store_is_open(emulator, tmp_path, caplog, memory):
    """As by a program that cleans up: nothing seems to be on disk any more, and everything is sent from memory."""
    queue = tmp_path / "queue"
    options = {"path": str(queue), "min_free": 0, "commit_interval": 0.001}
    client = await offline(emulator, options, max_queued_messages=memory)
    before = [await send(client, {f"before {number}": 1}) for number in range(6)]
    await client.flush()
    for file in queue.iterdir():
        file.unlink()
    after = await send(client, {"after": 1}) if memory > 6 else None
    if after is not None:
        with pytest.raises(OSError, match="were removed while it was open"):
            await client.flush()
        assert not after.stored.done()
        assert "were removed" in client.health()["store"]["error"]
    await client.stop()
    assert "were removed while it was open" in caplog.text
    deliveries = before if after is None else [*before, after]
    assert {(one.result().reason_code, one.result().certainty) for one in deliveries} == {(-1, Certainty.NEVER_SENT)}
    assert (client.statistics.kept, client.statistics.undelivered) == (0, len(deliveries))
    assert adds_up(client)


async def test_a_directory_with_the_name_of_a_file(emulator, path, caplog):
    """The client starts, says what is in the way, and sends what is in the store."""
    client = await offline(emulator, path)
    await send(client, {"a": 1})
    await client.stop(timeout=0)
    name = f"{9:020}.log"
    (Path(path) / name).mkdir()
    await emulator.start()
    async with make_client(emulator, store=path) as client:
        await all_delivered(client)
        assert client.health()["store"]["damaged_places"] == 1
    assert take_arrived(emulator) == {"a": 1}
    [line] = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert line.startswith(f"{name} in the store {path} is not a file")
    assert (Path(path) / "quarantine" / f"{name}.0").is_dir()


async def test_the_disk_of_a_store_is_not_mounted(emulator, tmp_path):
    """The error says where the link leads, and the client connects when the disk is there."""
    (tmp_path / "queue").symlink_to(tmp_path / "disk")
    client = make_client(emulator, store=str(tmp_path / "queue"))
    with pytest.raises(NotAStoreError, match=f"queue is a symbolic link to {tmp_path}/disk, which does not exist: mount or create"):
        await client.connect()
    (tmp_path / "disk").mkdir()
    async with client:
        assert client.health()["store"]["open"]


async def test_sends_that_leave_memory_are_counted_once(emulator, path, disk):
    client = await offline(emulator, {"path": path, "min_free": 0}, max_queued_messages=5)
    for number in range(5):
        await send(client, {f"k{number}": 1})
    await client.flush()
    # It moves the others to the disk in the thread of the store, before the event loop is notified.
    await send(client, {"k5": 1})
    engine = engine_of(client)
    engine.store._parts.thread._executor.submit(lambda: None).result()
    assert engine.store._parts.log.backlog_sends > 0
    assert engine.store.backlog_sends + engine.message_service.capacity.sends == 6
    assert client.statistics.queued_sends == 6
    await client.stop()


@pytest.mark.parametrize("is_repaired", [False, True])
async def test_new_attributes_do_not_overtake_the_backlog_on_a_full_disk(emulator, path, monkeypatch, is_repaired):
    disk = FullDisk()
    monkeypatch.setattr("tb_mqtt_client.service.engine.open_log", disk.open_log)
    monkeypatch.setattr("tb_mqtt_client.service.store.replay.READ_SENDS", 7)
    client = await offline(emulator, {"path": path, "min_free": 0}, max_queued_messages=5)
    for number in range(50):
        await client.send_attributes({"state": number}, wait_for_publish=False)
    await client.flush()
    disk.is_full = True
    await send(client, {"a": 1})
    with pytest.raises(OSError, match="full"):
        await client.flush()
    for number in range(50, 60):
        await client.send_attributes({"state": number}, wait_for_publish=False)
    assert adds_up(client)
    seen = []
    emulator.on_publish = lambda publish: (
        seen.append(publish.json()["state"]) if publish.topic == "v1/devices/me/attributes" else None
    )
    disk.is_full = not is_repaired
    await emulator.start()
    await all_delivered(client)
    assert seen == sorted(seen)
    assert seen[-1] == 59
    assert adds_up(client)
    await client.stop()


async def test_waiting_senders_continue_when_the_disk_works_again(emulator, path, disk):
    """With "spill" and a session, nothing but the lack of memory has sends written."""
    client = make_client(
        emulator, store={"path": path, "min_free": 0, "durability": "spill"}, max_queued_messages=5, max_inflight_messages=1
    )
    await client.connect()
    emulator.puback_delay = 60.0
    disk.fails_with = errno.EIO
    senders = [asyncio.ensure_future(send(client, {"a": value})) for value in range(40)]
    while not engine_of(client).message_service.capacity.is_wanted:  # noqa: ASYNC110  # there is no event for that
        await asyncio.sleep(0.001)
    assert client.health()["store"]["error"]
    disk.fails_with = None
    async with asyncio.timeout(20):
        await asyncio.gather(*senders)
    assert not client.health()["store"]["error"]
    assert adds_up(client)
    await client.stop(timeout=0)
    assert client.statistics.kept == 40


class CountingDisk(Disk):
    """A disk that notes which sends are read."""

    def __init__(self):
        super().__init__()
        self.read = []

    def open_log(self, path, owner, max_segment_bytes):
        return CountingLog(self, path, owner, max_segment_bytes)


class CountingLog(ReferenceLog):
    def read(self, max_bytes, max_sends, lanes):
        found = super().read(max_bytes, max_sends, lanes)
        self._disk.read += [send[1] for send in found]
        return found


async def test_data_that_was_read_back_stays_in_memory(emulator, path, monkeypatch):
    """Otherwise each lack of memory would leave the backlog to the disk, from which it is read again at once."""
    disk = CountingDisk()
    monkeypatch.setattr("tb_mqtt_client.service.engine.open_log", disk.open_log)
    client = make_client(emulator, store={"path": path, "min_free": 0}, max_queued_messages=5, max_inflight_messages=1)
    await client.connect()
    emulator.puback_delay = 60.0
    async with asyncio.timeout(20):
        for value in range(60):
            await send(client, {"a": value})
    assert disk.read
    assert len(disk.read) == len(set(disk.read))
    await client.stop(timeout=0)
    assert client.statistics.kept == 60
