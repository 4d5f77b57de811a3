"""A caller that is cancelled at any of its awaits, with a store: nothing is lost, nothing is left, and the counters add up."""

import asyncio
import contextlib
import threading
import types
from functools import partial

import pytest
from device_peer import make_client

from store_kills import all_delivered
from tb_mqtt_client import Certainty, ClientState, NotConnectedError

MOST = 200
"""More awaits than any of the calls has: a defect must not repeat a test without end."""


class CancelledAt:
    """Awaits a coroutine, and cancels its task at one of the awaits that suspend it."""

    def __init__(self, coroutine, suspension):
        self.was_cancelled = False
        self._task = asyncio.ensure_future(self._run(coroutine, suspension))

    async def _run(self, coroutine, suspension):
        return await self._count(coroutine, suspension)

    @types.coroutine
    def _count(self, coroutine, suspension):
        suspensions, resume = 0, partial(coroutine.send, None)
        while True:
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            suspensions += 1
            if suspensions == suspension:
                self.was_cancelled = True
                # Before the task runs again, whatever it waits for.
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001  # raised in the coroutine
                resume = partial(coroutine.throw, error)
            else:
                resume = partial(coroutine.send, value)

    async def end(self):
        """Wait until the coroutine has ended."""
        async with asyncio.timeout(60):
            await asyncio.wait([self._task])
        with contextlib.suppress(asyncio.CancelledError, NotConnectedError):
            self._task.result()


@pytest.fixture
def make(emulator, tmp_path):
    """Return a function that makes clients, which have the same store if they have the same name."""

    def make(name, durability="group", **others):
        store = {"path": str(tmp_path / name), "min_free": 0, "durability": durability}
        return make_client(emulator, store=store, **others)

    return make


async def send(client, key):
    [delivery] = await client.send_timeseries({"ts": 1, "values": {key: 1}}, wait_for_publish=False)
    return delivery


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


async def arrived_later(emulator, make, name):
    """Send what is in a store with another client; return how much was recovered, and how often each key has arrived."""
    await emulator.start()
    async with make(name) as later:
        await all_delivered(later)
        assert adds_up(later)
        recovered = later.statistics.recovered
    async with make(name) as last:
        assert last.statistics.recovered == 0
    await emulator.stop()
    keys = [point.key for point in emulator.device("device").telemetry]
    emulator.device("device").records.clear()
    return recovered, {key: keys.count(key) for key in keys}


def store_threads():
    return [thread for thread in threading.enumerate() if "store" in thread.name]


@pytest.mark.parametrize("durability", ["group", "always"])
@pytest.mark.parametrize("memory", [3, 1000])
async def test_a_send(emulator, make, durability, memory):
    await emulator.stop()
    for suspension in range(1, MOST):
        name = f"at {suspension}"
        client = make(name, durability, max_queued_messages=memory)
        await client.start()
        others = [await send(client, f"other {number}") for number in range(5)]
        cancelled = CancelledAt(client.send_timeseries({"ts": 1, "values": {"a": 1}}, wait_for_publish=False), suspension)
        others.append(await send(client, "beside"))
        await cancelled.end()
        others.append(await send(client, "later"))
        assert adds_up(client)
        await client.stop()
        assert adds_up(client)
        assert {delivery.result().certainty for delivery in others} == {Certainty.KEPT}
        assert client.statistics.undelivered == client.statistics.dropped == 0
        recovered, arrived = await arrived_later(emulator, make, name)
        assert recovered == client.statistics.kept == client.statistics.accepted
        # A send that was cancelled while it waited for the disk is sent.
        assert arrived.pop("a", 1) == 1
        assert arrived == {f"other {number}": 1 for number in range(5)} | {"beside": 1, "later": 1}
        if not cancelled.was_cancelled:
            break
    else:
        pytest.fail("the send never ends")
    # With "group" and room in memory, it waits for nothing.
    assert (suspension > 1) is (durability == "always" or memory == 3)


@pytest.mark.parametrize("durability", ["group", "spill"])
async def test_flush(emulator, make, durability):
    await emulator.stop()
    for suspension in range(1, MOST):
        name = f"at {suspension}"
        client = make(name, durability)
        await client.start()
        deliveries = [await send(client, f"k{number}") for number in range(5)]
        cancelled = CancelledAt(client.flush(), suspension)
        deliveries.append(await send(client, "beside"))
        await cancelled.end()
        async with asyncio.timeout(60):
            await client.flush()
            await asyncio.gather(*[delivery.stored for delivery in deliveries])
        assert client.health()["store"]["unwritten_sends"] == 0
        await client.stop()
        assert {delivery.result().certainty for delivery in deliveries} == {Certainty.KEPT}
        recovered, arrived = await arrived_later(emulator, make, name)
        assert recovered == 6
        assert arrived == {f"k{number}": 1 for number in range(5)} | {"beside": 1}
        if not cancelled.was_cancelled:
            break
    else:
        pytest.fail("flush() never ends")
    assert suspension > 1


@pytest.mark.parametrize("is_online", [False, True])
async def test_stop(emulator, make, is_online):
    """A cancelled ``stop`` ends completely: everything is delivered or kept, and the files are closed."""
    await emulator.stop()
    for suspension in range(1, MOST):
        name = f"at {suspension}"
        client = make(name, "always")
        if is_online:
            await emulator.start()
            await client.connect()
        else:
            await client.start()
        sending = [asyncio.ensure_future(send(client, f"k{number}")) for number in range(5)]
        while client.statistics.accepted < 5:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0)
        cancelled = CancelledAt(client.stop(), suspension)
        await cancelled.end()
        assert client.state is ClientState.STOPPED
        assert store_threads() == []
        deliveries = await asyncio.gather(*sending)
        certainties = [delivery.result().certainty for delivery in deliveries]
        assert set(certainties) <= {Certainty.KEPT, Certainty.DELIVERED}
        assert adds_up(client)
        now = client.statistics
        assert (now.undelivered, now.dropped, now.kept + now.acknowledged) == (0, 0, 5)
        if is_online:
            await emulator.stop()
        recovered, arrived = await arrived_later(emulator, make, name)
        assert recovered == certainties.count(Certainty.KEPT)
        # One whose acknowledgement was not waited for is sent again.
        assert set(arrived) == {f"k{number}" for number in range(5)}
        if not cancelled.was_cancelled:
            break
    else:
        pytest.fail("stop() never ends")
    assert suspension > 1


async def test_connect(emulator, make):
    """A cancelled ``connect`` leaves the backlog where it is."""
    await emulator.stop()
    first = make("store")
    await first.start()
    for number in range(20):
        await send(first, f"k{number}")
    await first.stop()
    await emulator.start()
    arrived = emulator.device("device").records
    for suspension in range(1, MOST):
        client = make("store")
        cancelled = CancelledAt(client.connect(), suspension)
        await cancelled.end()
        await client.stop(timeout=0)
        assert store_threads() == []
        assert adds_up(client)
        assert client.statistics.undelivered == 0
        if not cancelled.was_cancelled:
            break
    else:
        pytest.fail("connect() never ends")
    async with make("store") as last:
        await all_delivered(last)
    assert {key for _, values in arrived for key in values} == {f"k{number}" for number in range(20)}
