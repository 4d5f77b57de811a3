"""Histories of a store, by properties, on a disk in memory: nothing that was reported as stored is ever forgotten."""

import asyncio
import errno
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.store_log import Disk
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.entities.store import Store
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.terms import backlog_terms
from tb_mqtt_client.service.delivery.work_item import ENCODED, FUTURE, NUMBER
from tb_mqtt_client.service.store.disk_store import DiskStore

OK = PublishResult("t", 1, 1, 1, 0, 1)
ORDINALS = itertools.count()


class Queues:
    """The queues of a client, as its store sees them."""

    def __init__(self):
        self.counter = DeliveryCounter()
        self.queued = []

    def backlog_terms(self, accepted_ms, expires_ms, *, is_urgent=False):
        return backlog_terms(accepted_ms, expires_ms, 1, 1, is_urgent=is_urgent)

    def is_memory_wanted(self):
        return False

    def queue_backlog(self, uplinks):
        self.queued += uplinks

    def store_changed(self):
        pass

    def bytes_set_aside(self):
        return 0


class Client:
    """A client with one store, whose process may be killed."""

    def __init__(self, disk, path, durability):
        self.disk, self.path, self.durability = disk, path, durability
        self.reported = set()
        """Keys that were reported as stored, and have no result."""
        self.done = set()
        """Keys that have a result, which was noted on disk in order, or may have been."""
        self.store = None

    async def open(self):
        options = Store(self.path, min_free=0, durability=self.durability, commit_interval=0.0001)
        self.store, self.queues = DiskStore(options, lambda: "owner", self.disk.open_log), Queues()
        self.store.attach(self.queues)
        await self.store.open()
        self.store.set_online(True)

    def send(self, attributes):
        key = f"k{next(ORDINALS)}"
        encode = EncodedUplink.attributes if attributes else lambda data: EncodedUplink.timeseries(data, 0)
        encoded = encode({key: 1})
        delivery = self.store.create_delivery()
        receipt, number = self.store.accept(encoded, delivery)
        self.queues.counter.accept(1)
        delivery.stored.add_done_callback(lambda _: delivery.done() or self.reported.add(key))
        uplink = encoded, receipt, number, None
        if self.store.goes_behind(encoded):
            self.store.release([uplink])
        else:
            self.queues.queued.append(uplink)

    def acknowledge(self, index):
        if self.queues.queued:
            uplink = self.queues.queued.pop(index % len(self.queues.queued))
            key = key_of(uplink)
            self.reported.discard(key)
            self.done.add(key)
            uplink[FUTURE].set_result(OK)
            self.queues.counter.queued -= 1
            self.queues.counter.acknowledged += 1

    def release(self, sends):
        self.queues.queued.sort(key=lambda uplink: uplink[NUMBER])
        leaving = [uplink for uplink in self.queues.queued[:sends] if self.store.is_on_disk(uplink[NUMBER])]
        self.queues.queued = [uplink for uplink in self.queues.queued if uplink not in leaving]
        if leaving:
            self.store.release(leaving)

    async def kill(self):
        """End as a killed process does: what the thread has not done is not done."""
        parts = self.store._now
        parts.commits.close()
        parts.replay.close()
        self.disk.fails_with = errno.EIO
        parts.thread.end(waits=True)
        self.disk.fails_with = None
        self.disk.held.clear()
        # Results of the thread that have arrived may be processed, but change nothing on the disk.
        reported = set(self.reported)
        await asyncio.sleep(0)
        self.store = None
        return reported

    async def stop(self):
        await self.store.finish()
        self.queues.queued.clear()
        await self.store.close()
        self.store = None


def key_of(uplink):
    encoded = uplink[ENCODED]
    [entry] = encoded.attribute_entries() or encoded.timeseries_entries()
    return entry.key


def keys_on(disk, path):
    return [key_of(send) for send in disk.files[path]["sends"].values()]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.booleans()),
        st.tuples(st.just("acknowledge"), st.integers(0, 20)),
        st.tuples(st.just("release"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["wait", "flush", "fail", "work", "kill", "stop"]), st.none()),
    ),
    max_size=60,
)


@pytest.mark.parametrize("durability", ["group", "always"])
@settings(max_examples=60)
@given(steps=STEPS)
def test_nothing_that_was_stored_is_forgotten(durability, steps):
    with TemporaryDirectory() as folder:
        asyncio.run(history(Client(Disk(), str(Path(folder)), durability), steps))


@pytest.fixture
async def client(tmp_path):
    client = Client(Disk(), str(tmp_path), "group")
    await client.open()
    yield client
    client.disk.fails_with = None
    await client.stop()


async def test_a_send_that_is_settled_before_its_commit_is_never_written(client):
    client.send(False)
    client.send(False)
    client.acknowledge(0)
    await client.store.flush()
    assert [numbers for numbers, _ in client.disk.commits] == [[2]]
    assert client.store.health()["unwritten_sends"] == 0


async def test_a_failed_commit_is_repeated_in_its_order_and_without_settled_sends(client):
    client.disk.fails_with = errno.EIO
    for _ in range(3):
        client.send(False)
    with pytest.raises(OSError, match="the disk fails"):
        await client.store.flush()
    client.send(False)
    client.acknowledge(1)
    client.disk.fails_with = None
    await client.store.flush()
    assert [numbers for numbers, _ in client.disk.commits] == [[1, 3, 4]]


async def test_sends_that_leave_memory_are_written_first(client):
    client.send(True)
    await client.store.flush()
    client.release(1)
    # It goes behind the attributes on disk, so it is in no queue, and is read back after them.
    client.store.set_online(False)
    client.send(True)
    assert client.queues.queued == []
    await client.store.flush()
    client.store.set_online(True)
    while len(client.queues.queued) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert [uplink[NUMBER] for uplink in client.queues.queued] == [1, 2]


async def test_a_future_without_a_number_counts_as_stored(client):
    assert client.store.create_delivery().stored.done()


async def history(client, steps):
    await client.open()
    disk = client.disk
    for step, argument in steps:
        if step == "send":
            client.send(argument)
        elif step == "acknowledge":
            client.acknowledge(argument)
        elif step == "release":
            client.release(argument)
        elif step == "wait":
            await asyncio.sleep(0.001)
        elif step == "flush":
            try:
                await client.store.flush()
            except OSError:
                assert disk.fails_with
        elif step == "fail":
            disk.fails_with = errno.ENOSPC
        elif step == "work":
            disk.fails_with = None
        elif step == "kill":
            reported = await client.kill()
            assert reported <= set(keys_on(disk, client.path)) | client.done
            found = set(keys_on(disk, client.path))
            client.reported = found
            # Those that were settled in memory only are sent again.
            client.done -= found
            await client.open()
        else:
            disk.fails_with = None
            await client.stop()
            # After an orderly stop, nothing is sent twice, and nothing is missing.
            found = keys_on(disk, client.path)
            assert len(found) == len(set(found))
            assert not set(found) & client.done
            assert client.reported <= set(found)
            await client.open()
    disk.fails_with = None
    await client.stop()
    assert client.reported <= set(keys_on(disk, client.path))
    assert not set(keys_on(disk, client.path)) & client.done
