"""With ``clock="wait"`` or ``"correct"``, no telemetry arrives under a time of a clock that is not set."""

import asyncio

import pytest
from device_peer import make_client

from store_kills import all_delivered
from tb_mqtt_client import Certainty, NotConnectedError
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery import device_clock

BOOT = 20_000


class Machine:
    """The clocks of a machine that has just booted in 1970."""

    def __init__(self):
        self.is_set = False
        self.booted = now_ms() - BOOT

    def boot(self):
        return now_ms() - self.booted

    def wall(self):
        return now_ms() if self.is_set else self.boot()

    def is_synchronized(self):
        return self.is_set


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    clocks = device_clock.Clocks(machine.wall, machine.boot, machine.is_synchronized)
    monkeypatch.setattr(device_clock, "Clocks", lambda: clocks)
    # The clock is checked in the tests, and not after times that a test would have to wait for.
    monkeypatch.setattr(device_clock, "FIRST_CHECK", 1000.0)
    return machine


def stored(emulator, name="device"):
    return [(point.key, point.value, point.ts) for point in emulator.device(name).telemetry]


async def test_telemetry_waits_for_the_clock_and_gets_the_time_of_its_send(emulator, machine):
    async with make_client(emulator, clock="wait") as client:
        before = now_ms()
        deliveries = [*await client.send_timeseries({"a": 1}, wait_for_publish=False)]
        after = now_ms()
        await asyncio.sleep(0.05)
        deliveries += await client.send_timeseries([{"a": 2}, {"ts": 7000, "values": {"b": 3}}], wait_for_publish=False)
        assert stored(emulator) == []
        health = client.health()["clock"]
        assert (health["credible"], health["held_sends"], client.statistics.queued) == (False, 2, 3)
        machine.is_set = True
        assert (await client.send_timeseries({"c": 4})).is_successful()
        assert all([(await delivery).is_successful() for delivery in deliveries])
        [first, second, own, last] = sorted(stored(emulator), key=lambda point: point[1])
        assert first[:2] == ("a", 1)
        assert before <= first[2] <= after
        assert second[:2] == ("a", 2)
        assert after < second[2] <= last[2]
        assert own == ("b", 3, 7000)
        health = client.health()["clock"]
        assert (health["credible"], health["held_sends"], client.statistics.queued) == (True, 0, 0)
        assert health["moved_seconds"] > 10**9


async def test_a_timestamp_of_the_program_is_sent_at_once_with_wait_and_moved_with_correct(emulator, machine):
    reading = {"ts": machine.wall(), "values": {"a": 1}}
    history = {"ts": 1_700_000_000_000, "values": {"b": 2}}
    async with make_client(emulator, clock="wait") as client:
        assert (await client.send_timeseries([reading, history])).is_successful()
    assert stored(emulator) == [("a", 1, reading["ts"]), ("b", 2, history["ts"])]
    emulator.device("device").telemetry.clear()
    async with make_client(emulator, clock="correct") as client:
        assert (await client.send_timeseries(history)).is_successful()
        [delivery] = await client.send_timeseries([reading, history], wait_for_publish=False)
        machine.is_set = True
        await client.send_timeseries({"c": 3})
        assert (await delivery).is_successful()
    arrived = {key: ts for key, _, ts in stored(emulator)}
    assert arrived["b"] == history["ts"]
    assert arrived["a"] == reading["ts"] + machine.booted


async def test_the_clock_is_checked_when_a_session_opens(emulator, machine):
    client = make_client(emulator, clock="wait")
    await client.connect()
    [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    machine.is_set = True
    await emulator.disconnect_device("TOKEN")
    assert (await delivery).is_successful()
    await client.stop()


async def test_the_clock_is_checked_from_time_to_time(emulator, machine, monkeypatch):
    monkeypatch.setattr(device_clock, "FIRST_CHECK", 0.001)
    async with make_client(emulator, clock="wait") as client:
        [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
        machine.is_set = True
        assert (await delivery).is_successful()


async def test_attributes_wait_behind_held_telemetry(emulator, machine):
    async with make_client(emulator, clock="wait") as client:
        assert (await client.send_attributes({"before": 1})).is_successful()
        await client.send_timeseries({"a": 1}, wait_for_publish=False)
        [behind] = await client.send_attributes({"behind": 2}, wait_for_publish=False)
        await asyncio.sleep(0.05)
        assert emulator.device("device").attributes == {"before": 1}
        machine.is_set = True
        await client.send_timeseries({"b": 1})
        assert (await behind).is_successful()


async def test_held_telemetry_of_a_stopped_client_is_undelivered(emulator, machine):
    client = make_client(emulator, clock="wait")
    await client.connect()
    [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    await client.stop(timeout=0.05)
    assert (await delivery).reason_code == LocalReasonCode.NOT_DELIVERED
    assert client.statistics.undelivered == 1
    assert stored(emulator) == []


async def test_data_of_sub_devices_waits_for_the_clock(start_gateway, emulator, machine):
    gateway = await start_gateway(clock="wait")
    session, _ = await gateway.connect_device("meter", wait_for_publish=True)
    before = now_ms()
    delivery = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    after = now_ms()
    await asyncio.sleep(0.05)
    assert stored(emulator, "meter") == []
    machine.is_set = True
    assert (await gateway.send_timeseries({"b": 2})).is_successful()
    assert (await delivery).is_successful()
    [(key, value, ts)] = stored(emulator, "meter")
    assert (key, value) == ("a", 1)
    assert before <= ts <= after


async def test_held_data_survives_a_disconnect(emulator, machine):
    client = make_client(emulator, clock="wait")
    await client.connect()
    [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    await client.disconnect()
    machine.is_set = True
    await client.connect()
    assert (await delivery).is_successful()
    await client.stop()


async def test_a_client_that_trusts_the_clock_has_none_of_this(emulator, machine):
    async with make_client(emulator) as client:
        assert client.health()["clock"] is None
        assert (await client.send_timeseries({"a": 1})).is_successful()


@pytest.fixture
def store(tmp_path):
    return {"path": str(tmp_path / "queue"), "min_free": 0}


async def offline(emulator, **options):
    client = make_client(emulator, **options)
    await emulator.stop()
    await client.start()
    return client


async def arrived_with_the_next_client(emulator, store, count):
    await emulator.start()
    async with make_client(emulator, store=store) as client:
        assert client.statistics.recovered == count
        await all_delivered(client)
    return stored(emulator)


async def test_a_held_send_is_written_to_the_store_with_its_time_when_the_clock_is_set(emulator, machine, store):
    client = await offline(emulator, clock="wait", store=store)
    before = now_ms()
    [held] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    after = now_ms()
    on_disk = held.stored
    [attributes] = await client.send_attributes({"b": 1}, wait_for_publish=False)
    await attributes.stored
    flushing = asyncio.ensure_future(client.flush())
    await asyncio.sleep(0.05)
    assert not on_disk.done()
    assert not flushing.done()
    assert client.health()["store"]["unwritten_sends"] == 1
    machine.is_set = True
    await client.send_timeseries({"c": 1}, wait_for_publish=False)
    await flushing
    assert on_disk.done()
    assert client.health()["store"]["unwritten_sends"] == 0
    await client.stop()
    assert held.result().certainty is Certainty.KEPT
    [a, _] = sorted(await arrived_with_the_next_client(emulator, store, 3))
    assert a[:2] == ("a", 1)
    assert before <= a[2] <= after


async def test_stop_before_the_clock_is_set_keeps_everything_but_held_sends(emulator, machine, store):
    client = await offline(emulator, clock="wait", store=store)
    [held] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    [timed] = await client.send_timeseries({"ts": 1_700_000_000_000, "values": {"b": 1}}, wait_for_publish=False)
    on_disk, flushing = held.stored, asyncio.ensure_future(client.flush())
    await timed.stored
    await client.stop()
    assert on_disk.done()
    with pytest.raises(NotConnectedError, match="before the clock of the device was set"):
        await flushing
    assert (held.result().reason_code, held.result().certainty) == (LocalReasonCode.NOT_DELIVERED, Certainty.NEVER_SENT)
    assert timed.result().certainty is Certainty.KEPT
    assert (client.statistics.kept, client.statistics.undelivered, client.statistics.queued) == (1, 1, 0)
    assert await arrived_with_the_next_client(emulator, store, 1) == [("b", 1, 1_700_000_000_000)]


async def test_always_returns_when_the_clock_is_set(emulator, machine, store):
    client = await offline(emulator, clock="wait", store=store | {"durability": "always"})
    sending = asyncio.ensure_future(client.send_timeseries({"a": 1}, wait_for_publish=False))
    await asyncio.sleep(0.05)
    assert not sending.done()
    machine.is_set = True
    await client.send_timeseries({"b": 1}, wait_for_publish=False)
    await sending
    await client.stop()
    assert client.statistics.kept == 2


async def test_sends_that_were_held_leave_memory_and_get_their_results(emulator, machine, store):
    client = await offline(emulator, clock="wait", store=store, max_queued_messages=5)
    deliveries = [*await client.send_timeseries({"k0": 0}, wait_for_publish=False)]
    deliveries += await client.send_timeseries({"ts": 1_700_000_000_000, "values": {"k1": 1}}, wait_for_publish=False)
    deliveries += await client.send_timeseries({"k2": 2}, wait_for_publish=False)
    machine.is_set = True
    for number in range(3, 50):
        deliveries += await client.send_timeseries({f"k{number}": number}, wait_for_publish=False)
    assert client.health()["store"]["backlog_sends"] > 40
    await emulator.start()
    assert all([(await delivery).is_successful() for delivery in deliveries])
    assert sorted(point[1] for point in stored(emulator)) == list(range(50))
    assert client.health()["clock"]["held_sends"] == 0
    await client.stop()
    async with make_client(emulator, store=store) as later:
        assert later.statistics.recovered == 0


@pytest.mark.parametrize("with_store", [False, True])
async def test_sends_that_another_thread_encodes_are_held(emulator, machine, store, with_store):
    options = {"store": store} if with_store else {}
    async with make_client(emulator, clock="wait", **options) as client:
        encoded = await asyncio.to_thread(client.encode_timeseries, {"a": 1})
        assert client.health()["clock"]["held_sends"] == 1
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        client.submit(encoded, first)
        await asyncio.sleep(0.05)
        assert stored(emulator) == []
        machine.is_set = True
        later = await asyncio.to_thread(client.encode_timeseries, {"b": 1})
        client.submit(later, second)
        results = await asyncio.gather(first, second)
        assert all(result.is_successful() for result in results)
        assert [point[:2] for point in sorted(stored(emulator))] == [("a", 1), ("b", 1)]
