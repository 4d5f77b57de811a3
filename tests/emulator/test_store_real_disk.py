"""A store on file systems that are full or read-only for the kernel: memory takes over, and everything accepted arrives later.

The tests mount file systems, so they need root.
"""

import asyncio
import contextlib
import errno
import logging
import re
import shutil
import subprocess

import pytest
from device_peer import make_client

from store_kills import all_delivered
from tb_mqtt_client import Certainty, QueueFullError, StoreFullError
from tb_mqtt_client.service.store.contents import StoreContents

WRITTEN, FULL, LATER = 20, 10, 10
"""Sends before the disk fails, while it does, and after that."""
LOGGER = "tb_mqtt_client.service.store.group_commit"


class Mounts:
    """Mounts file systems, and unmounts them at the end."""

    def __init__(self, folder):
        self._folder = folder
        self._mounted = []

    def mount(self, *arguments, at=None):
        """Mount a file system, and return its path; skip the test where that is not permitted."""
        path = at or self._folder / "disk"
        path.mkdir(exist_ok=True)
        _run("mount", *arguments, str(path))
        self._mounted.append(path)
        return path

    def remount(self, options, path):
        _run("mount", "-o", f"remount,{options}", str(path))

    def unmount(self, path):
        self._mounted.remove(path)
        _run("umount", str(path))

    def end(self):
        for path in reversed(self._mounted):
            # A test that failed may have left a client with open files.
            subprocess.run(["umount", "-l", str(path)], check=True)


def _run(program, *arguments):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed, which this test needs")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this test mounts a file system, which is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def mounts(tmp_path):
    mounts = Mounts(tmp_path)
    yield mounts
    mounts.end()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.RETRY_SECONDS_MIN", 0.01)
    monkeypatch.setattr("tb_mqtt_client.service.store.group_commit.RETRY_SECONDS_MAX", 0.02)


async def send(client, key, size=5000):
    [delivery] = await client.send_timeseries({key: "x" * size}, wait_for_publish=False)
    return delivery


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


async def fails(client, number):
    """Wait until the disk has failed with this error, and check that ``health()`` and ``flush()`` report it."""
    async with asyncio.timeout(60):
        while not client.health()["store"]["error"]:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0.001)
    assert client.health()["store"]["error"].startswith(f"[Errno {number}]")
    with pytest.raises(OSError, match=re.escape(f"[Errno {number}]")):
        await client.flush()


async def works_again(client, deliveries):
    """Wait until the sends are on disk."""
    async with asyncio.timeout(60):
        await asyncio.gather(*[delivery.stored for delivery in deliveries])
    store = client.health()["store"]
    assert (store["error"], store["unwritten_sends"]) == ("", 0)


def logged(caplog):
    """Return how often the log says that the disk has failed, and that it works again."""
    texts = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    return sum("cannot be written" in text for text in texts), sum("works again" in text for text in texts)


async def all_arrives(emulator, options, keys):
    """Send what is in the store with another client, and compare it with what was accepted."""
    await emulator.start()
    async with make_client(emulator, store=options) as later:
        assert later.statistics.recovered == len(keys)
        await all_delivered(later)
        assert adds_up(later)
    assert sorted(point.key for point in emulator.device("device").telemetry) == sorted(keys)
    async with make_client(emulator, store=options) as last:
        assert last.statistics.recovered == 0


def fill(path):
    """Write a file until there is no space."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(path.parent).free == 0


@pytest.mark.parametrize("durability", ["group", "always", "spill"])
@pytest.mark.parametrize("noticed_by", ["client", "kernel"])
async def test_a_disk_that_is_full_and_has_space_again(emulator, mounts, monkeypatch, caplog, durability, noticed_by):
    caplog.set_level(logging.INFO, LOGGER)
    if noticed_by == "kernel":
        # Otherwise, the client finds out that there is no space, and does not try to write.
        monkeypatch.setattr("tb_mqtt_client.service.store.bounds.Bounds.check", lambda *_: None)
    disk = mounts.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    options = {"path": str(disk / "queue"), "min_free": 0, "durability": durability, "commit_interval": 0.001}
    options["on_full"] = "raise"
    await emulator.stop()
    client = make_client(emulator, store=options, max_queued_messages=WRITTEN + FULL, queue_policy="raise")
    await client.start()
    keys = [f"k{number:02}" for number in range(WRITTEN + FULL + LATER)]
    await asyncio.gather(*[send(client, key) for key in keys[:WRITTEN]])
    await client.flush()
    fill(disk / "other")
    sending = [asyncio.ensure_future(send(client, key)) for key in keys[WRITTEN : WRITTEN + FULL]]
    await fails(client, errno.ENOSPC)
    assert client.health()["store"]["unwritten_sends"] == FULL
    # The user's policies apply: for a store that is full, and for memory that is full while the disk fails.
    with pytest.raises(StoreFullError if noticed_by == "client" else QueueFullError):
        await send(client, "too much")
    # With "always", a send does not return before the disk has it.
    assert {one.done() for one in sending} == {durability != "always"}
    (disk / "other").unlink()
    await works_again(client, await asyncio.gather(*sending))
    assert logged(caplog) == (1, 1)
    await asyncio.gather(*[send(client, key) for key in keys[WRITTEN + FULL :]])
    await client.stop()
    assert client.statistics.kept == client.statistics.accepted == len(keys)
    await all_arrives(emulator, options, keys)


async def test_a_disk_that_is_full_while_there_is_a_connection(emulator, mounts):
    disk = mounts.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    options = {"path": str(disk / "queue"), "min_free": 0, "durability": "always"}
    client = make_client(emulator, store=options)
    await client.connect()
    fill(disk / "other")
    async with asyncio.timeout(60):
        results = await asyncio.gather(*[client.send_timeseries({f"k{number:02}": "x" * 5000}) for number in range(50)])
    assert all(result.is_successful() for result in results)
    await client.stop()
    assert len(emulator.device("device").telemetry) == client.statistics.acknowledged == 50
    (disk / "other").unlink()
    async with make_client(emulator, store=options) as last:
        assert last.statistics.recovered == 0


async def test_a_directory_that_is_read_only_for_a_while(emulator, mounts, tmp_path, caplog):
    """Files that are open can be written, as on some systems; the next file cannot be created."""
    caplog.set_level(logging.INFO, LOGGER)
    queue = tmp_path / "queue"
    # Each file takes a few of the sends only.
    options = {"path": str(queue), "min_free": 0, "max_bytes": 2**20, "commit_interval": 0.001}
    await emulator.stop()
    client = make_client(emulator, store=options)
    await client.start()
    keys = [f"k{number:02}" for number in range(40)]
    for key in keys[:5]:
        await send(client, key, 10_000)
    await client.flush()
    mounts.mount("--bind", str(queue), at=queue)
    mounts.remount("bind,ro", queue)
    deliveries = []
    for key in keys[5:30]:
        # A commit for each, so that a file becomes full.
        deliveries.append(await send(client, key, 10_000))
        with contextlib.suppress(OSError):
            await client.flush()
    await fails(client, errno.EROFS)
    mounts.unmount(queue)
    await works_again(client, deliveries)
    assert logged(caplog) == (1, 1)
    for key in keys[30:]:
        await send(client, key, 10_000)
    await client.stop()
    assert client.statistics.kept == client.statistics.accepted == len(keys)
    await all_arrives(emulator, options, keys)


async def test_a_file_system_that_becomes_read_only(emulator, mounts, tmp_path):
    """As the kernel does it after an error: what is on disk is kept, and what is not is undelivered."""
    image = tmp_path / "image"
    _run("truncate", "-s", "16M", str(image))
    _run("mkfs.ext4", "-q", "-F", str(image))
    disk = mounts.mount("-o", "loop", str(image))
    options = {"path": str(disk / "queue"), "min_free": 0, "commit_interval": 0.001}
    await emulator.stop()
    client = make_client(emulator, store=options)
    await client.start()
    written = [f"k{number:02}" for number in range(WRITTEN)]
    deliveries = [await send(client, key) for key in written]
    await client.flush()
    mounts.remount("abort", disk)
    lost = [await send(client, f"lost {number}") for number in range(FULL)]
    await fails(client, errno.EROFS)
    await client.stop()
    assert {delivery.result().certainty for delivery in deliveries} == {Certainty.KEPT}
    assert {delivery.result().certainty for delivery in lost} == {Certainty.NEVER_SENT}
    assert (client.statistics.kept, client.statistics.undelivered) == (WRITTEN, FULL)
    assert adds_up(client)
    mounts.unmount(disk)
    mounts.mount("-o", "loop", str(image))
    await all_arrives(emulator, options, written)


async def test_a_read_only_file_system_at_the_start(emulator, mounts):
    disk = mounts.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    options = {"path": str(disk / "queue"), "min_free": 0}
    await emulator.stop()
    client = make_client(emulator, store=options)
    await client.start()
    await send(client, "k")
    await client.stop()
    mounts.remount("ro", disk)
    later = make_client(emulator, store=options)
    with pytest.raises(OSError, match="Read-only file system") as failed:
        await later.start()
    assert failed.value.errno == errno.EROFS
    # Reading needs no lock.
    with StoreContents(options["path"]) as contents:
        assert contents.sends == 1
        assert contents.verify().faults == []
    mounts.remount("rw", disk)
    await all_arrives(emulator, options, ["k"])
