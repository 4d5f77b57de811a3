"""Data with priorities and times of expiry is queued, held back, dropped and sent in the order of its priority."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import Certainty, DeviceClient
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.service.delivery.terms import BACKLOG_TERMS

PRIORITIES = ("low", "normal", "high")


def assert_sum(client):
    statistics = client.statistics
    ended = statistics.acknowledged + statistics.rejected + statistics.dropped + statistics.undelivered
    assert statistics.accepted == ended + statistics.queued + statistics.in_flight


class Arrived:
    """Records the keys of telemetry, or the values of attributes, in the order of their arrival."""

    def __init__(self, emulator):
        self.items = []
        emulator.on_publish = self._note

    def _note(self, publish):
        if publish.topic.endswith("/telemetry") and publish.topic.startswith("v1/devices"):
            records = publish.json()
            for record in records if isinstance(records, list) else [records]:
                self.items += record.get("values", record)
        elif publish.topic == "v1/gateway/telemetry":
            for name, records in publish.json().items():
                self.items += [(name, key) for record in records for key in record["values"]]
        elif publish.topic == "v1/devices/me/attributes":
            self.items += publish.json().items()


@pytest.fixture
async def client(emulator):
    """Return a client that is disconnected, and queues sends."""
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    await client.connect()
    await client.disconnect()
    yield client
    await client.stop()
    assert_sum(client)


async def test_a_queue_is_sent_by_priority(emulator, client):
    arrived = Arrived(emulator)
    for number in range(3):
        for priority in PRIORITIES:
            data = {"ts": number * 10 + len(priority), "values": {f"{priority} {number}": 1}}
            await client.send_timeseries(data, wait_for_publish=False, priority=priority)
    await client.connect()
    await client.stop()
    assert arrived.items == [f"{priority} {number}" for priority in reversed(PRIORITIES) for number in range(3)]


async def test_sends_of_other_threads_have_a_priority_and_expire(emulator, client):
    arrived = Arrived(emulator)
    loop = asyncio.get_running_loop()

    def send(priority, expires_after=None):
        # Datapoints with the same timestamp are packed together.
        data = [{"ts": number * 10 + len(priority), "values": {f"{priority} {number}": 1}} for number in range(2)]
        sends = [(client.encode_timeseries(one), loop.create_future()) for one in data]
        client.submit_many(sends, priority=priority, expires_after=expires_after)
        return [receiver for _, receiver in sends]

    expired = await asyncio.to_thread(send, "high", 0.01)
    assert [result.reason_code for result in await asyncio.gather(*expired)] == [-3, -3]
    for priority in PRIORITIES:
        await asyncio.to_thread(send, priority)
    with pytest.raises(ValueError, match="priority"):
        client.submit_many([(client.encode_timeseries({"a": 1}), loop.create_future())], priority="urgent")
    await client.connect()
    await client.stop()
    assert arrived.items == [f"{priority} {number}" for priority in reversed(PRIORITIES) for number in range(2)]


async def test_attributes_of_one_priority_keep_their_order(emulator, client):
    arrived = Arrived(emulator)
    service = engine_of(client).message_service
    for number in range(3):
        await client.send_attributes({f"a{number}": number}, wait_for_publish=False)
    # As if they had been read from a store.
    taken = service.device_uplink.queue.pop_now(3)
    service.device_uplink.queue.append_all([(encoded, future, number, BACKLOG_TERMS) for encoded, future, number, _ in taken])
    for number in range(3, 6):
        await client.send_attributes({f"a{number}": number}, wait_for_publish=False, priority="high")
    await client.connect()
    await client.stop()
    assert [value for _, value in arrived.items] == list(range(6))


async def test_held_data_keeps_its_priority(emulator, start_gateway):
    gateway = await start_gateway()
    arrived = Arrived(emulator)
    release = asyncio.Event()
    verdict = emulator.on_publish

    def hold(publish):
        verdict(publish)
        return Verdict.ignore() if publish.topic == "v1/gateway/connect" and not release.is_set() else None

    emulator.on_publish = hold
    session, _ = await gateway.connect_device("D", wait_for_publish=False)
    futures = [
        await gateway.send_device_timeseries(
            session,
            {"ts": 10 * number + len(priority), "values": {f"{priority} {number}": 1}},
            wait_for_publish=False,
            priority=priority,
        )
        for number in range(2)
        for priority in PRIORITIES
    ]
    await asyncio.sleep(0.02)
    assert arrived.items == []
    release.set()
    await emulator.disconnect_device("GATEWAY")
    await asyncio.gather(*futures)
    names = [f"{priority} {number}" for priority in reversed(PRIORITIES) for number in range(2)]
    # One message has the records of a device in the order of their packing.
    assert arrived.items == [("D", name) for name in names]
    assert_sum(gateway)


async def test_the_policy_drop_oldest_drops_the_lowest_priority_first(emulator):
    options = {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}
    client = DeviceClient(options | {"max_queued_messages": 6, "queue_policy": "drop_oldest"})
    await client.connect()
    await client.disconnect()

    async def send(number, priority):
        [future] = await client.send_timeseries({f"{number}": 1}, wait_for_publish=False, priority=priority)
        return future

    futures = [await send(number, priority) for number, priority in enumerate(("high", "normal", "low") * 2)]
    later = [await send(number, "normal") for number in range(6, 11)]
    dropped = [number for number, future in enumerate([*futures, *later]) if future.done()]
    # Both of low priority, then those of normal priority.
    assert dropped == [1, 2, 4, 5, 6]
    assert {future.result().reason_code for future in futures if future.done()} == {-2}
    await client.stop(timeout=0)
    assert_sum(client)


async def test_data_expires_before_it_is_sent(emulator, client):
    arrived = Arrived(emulator)
    waiting = asyncio.ensure_future(client.send_timeseries({"late": 1}, expires_after=0.01))
    [stays] = await client.send_timeseries({"in time": 1}, wait_for_publish=False, expires_after=60)
    result = await waiting
    assert (result.reason_code, result.reason, result.certainty) == (-3, "expired", Certainty.NEVER_SENT)
    await client.connect()
    assert (await stays).is_successful()
    assert arrived.items == ["in time"]
    assert client.statistics.dropped == 1


async def test_data_of_a_sub_device_that_is_not_announced_expires(emulator, start_gateway):
    gateway = await start_gateway()
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == "v1/gateway/connect" else None
    session, _ = await gateway.connect_device("D", wait_for_publish=False)
    result = await gateway.send_device_timeseries(session, {"a": 1}, expires_after=0.01)
    assert (result.reason_code, result.certainty) == (-3, Certainty.NEVER_SENT)
    assert (await gateway.send_device_attributes(session, {"a": 1}, expires_after=0.01, priority="low")).reason_code == -3
    assert (gateway.statistics.queued, gateway.statistics.queued_sends) == (0, 0)
    # Nothing is left to be sent.
    assert engine_of(gateway).message_service.is_empty() or gateway.statistics.in_flight_messages
    assert_sum(gateway)


async def test_a_client_without_a_connection_stops_at_once_when_everything_has_expired(emulator):
    client = DeviceClient({"host": emulator.host, "port": 1, "access_token": "TOKEN"})
    await client.start()
    assert (await client.send_timeseries({"a": 1}, expires_after=0.01)).reason_code == -3
    await client.stop(timeout=None)
    assert_sum(client)


@pytest.mark.parametrize(("options", "error"), [({"priority": "urgent"}, ValueError), ({"expires_after": 0}, ValueError),
                                                ({"expires_after": "1"}, TypeError)])  # fmt: skip
async def test_bad_options_raise_and_nothing_is_accepted(client, start_gateway, options, error):
    gateway = await start_gateway()
    session, _ = await gateway.connect_device("D")
    [name] = options
    for call in (
        client.send_timeseries({"a": 1}, **options),
        client.send_attributes({"a": 1}, **options),
        gateway.send_device_timeseries(session, {"a": 1}, **options),
        gateway.send_device_attributes(session, {"a": 1}, **options),
    ):
        with pytest.raises(error, match=name):
            await call
    assert client.statistics.accepted == gateway.statistics.accepted == 0
