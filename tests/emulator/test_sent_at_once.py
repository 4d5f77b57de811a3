"""A send that is awaited alone is published in its caller's turn of the event loop; sends made together share a message."""

import asyncio

import pytest
from device_peer import NoException, make_client

from engine_parts import engine_of
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits
from tb_mqtt_client.service.delivery.workers import SINGLE_SENDS


@pytest.fixture
async def client(emulator):
    async with make_client(emulator) as client:
        yield client


async def send_alone(client):
    """Make as many single sends as it takes until the next one is published at once."""
    for _ in range(SINGLE_SENDS):
        await client.send_timeseries({"before": 0})


async def begin(client, number):
    """Run an awaited send until it waits; return its coroutine and the future that it waits for."""
    send = client.send_timeseries({"ts": number + 1, "values": {"a": number}})
    # None: the first send of a client lets other tasks run.
    while (future := send.send(None)) is None:  # noqa: ASYNC110  # what is waited for is the coroutine itself
        await asyncio.sleep(0)
    return send, future


async def end(send, future):
    """Run an awaited send to its end, and return its result."""
    await asyncio.wait([future])
    with pytest.raises(StopIteration) as stopped:
        send.send(None)
    return stopped.value.value


def in_flight(client):
    return engine_of(client).mqtt_manager.in_flight


async def test_a_send_that_follows_single_ones_is_published_at_once(emulator, client):
    for number in range(5):
        send, future = await begin(client, number)
        # The loop has not run since the call.
        assert in_flight(client) == (number >= SINGLE_SENDS)
        result = await end(send, future)
        assert (result.is_successful(), result.datapoints_count) == (True, 1)
    assert [point.value for point in emulator.device("device").telemetry] == [0, 1, 2, 3, 4]
    assert client.statistics.queued == client.statistics.in_flight == 0


async def test_sends_that_are_awaited_together_share_a_message(emulator, client):
    for burst in range(4):
        sends = [client.send_timeseries({"ts": burst * 100 + number, "values": {"a": number}}) for number in range(100)]
        await asyncio.gather(*sends)
        assert client.statistics.messages_acknowledged == burst + 1


async def test_what_is_sent_while_a_message_is_in_flight_is_gathered(client):
    await send_alone(client)
    first = await begin(client, 1)
    others = [await begin(client, number) for number in (2, 3)]
    assert in_flight(client) == 1
    assert client.statistics.queued == 2
    for send in (first, *others):
        assert (await end(*send)).is_successful()
    assert client.statistics.messages_acknowledged == SINGLE_SENDS + 2


async def test_a_send_that_is_not_awaited_waits_for_others(client):
    for number in range(SINGLE_SENDS + 2):
        [future] = await client.send_timeseries({"a": number}, wait_for_publish=False)
        assert in_flight(client) == 0
        await future


async def test_a_client_with_qos_0_lets_other_tasks_run(emulator):
    async with make_client(emulator, qos=0) as client:
        for number in range(SINGLE_SENDS + 2):
            send, future = await begin(client, number)
            assert not future.done()
            await end(send, future)


async def test_an_error_leaves_the_send_to_the_queues_loop(client):
    await send_alone(client)
    engine = engine_of(client)
    for failures in engine.message_service.failed_rounds:
        failures.pause_seconds = 0.01
    publish_now, errors = engine.mqtt_manager.publish_now, [LookupError("a defect")]

    def failing(item):
        if errors:
            raise errors.pop()
        publish_now(item)

    engine.mqtt_manager.publish_now = failing
    send, future = await begin(client, 1)
    assert (in_flight(client), errors) == (0, [])
    assert (await end(send, future)).is_successful()
    assert client.statistics.accepted == client.statistics.acknowledged == SINGLE_SENDS + 1


async def test_an_interrupt_leaves_the_send_to_the_queues_loop(client):
    await send_alone(client)
    engine = engine_of(client)
    publish_now = engine.mqtt_manager.publish_now

    def interrupted(_item):
        engine.mqtt_manager.publish_now = publish_now
        raise NoException

    engine.mqtt_manager.publish_now = interrupted
    with pytest.raises(NoException):
        await begin(client, 1)
    while client.statistics.acknowledged < SINGLE_SENDS + 1:  # noqa: ASYNC110  # the send has no caller that could be waited for
        await asyncio.sleep(0.001)
    assert client.statistics.accepted == SINGLE_SENDS + 1


async def test_limits_apply():
    async with Emulator(limits=SessionLimits(rate_limits=RateLimits(None, "5:1", None))) as emulator:
        emulator.add_device("TOKEN", "device")
        async with make_client(emulator) as client:
            for number in range(6):
                assert (await client.send_timeseries({"ts": number + 1, "values": {"a": number}})).is_successful()
            assert client.statistics.seconds_limited > 0
        assert len(emulator.device("device").telemetry) == 6
