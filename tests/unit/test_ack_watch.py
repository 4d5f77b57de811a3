"""The time that a server has for a PUBACK, and the end of a connection on which one is missing."""

import asyncio
import time

import pytest
from played_connection import PlayedConnection, puback

from tb_mqtt_client.common.mqtt.acknowledgements import AckWatch

INTERVAL = 0.5
"""Seconds for a PUBACK: long enough for a busy machine, because timely PUBACKs in these tests come after a tenth of it."""


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def watch():
    clock = Clock()
    watch = AckWatch(clock)
    watch.clock = clock
    return watch


def test_the_time_of_a_publish_starts_when_it_becomes_the_oldest(watch):
    for packet_id in (1, 2, 3):
        watch.push_message(packet_id, b"")
        watch.clock.now += 1
    assert (watch.oldest, watch.since) == (1, 100.0)
    watch.acknowledge(1)
    assert (watch.oldest, watch.since, watch.overtaken) == (2, 103.0, False)
    watch.clock.now += 1
    watch.acknowledge(3)
    assert (watch.oldest, watch.since, watch.overtaken) == (2, 103.0, True)
    watch.acknowledge(2)
    assert (watch.oldest, len(watch)) == (None, 0)
    watch.push_message(4, b"")
    assert (watch.oldest, watch.since, watch.overtaken, len(watch)) == (4, 104.0, False, 1)


def test_the_oldest_publish_is_known_after_acknowledgements_in_any_order(watch):
    for packet_id in range(1, 101):
        watch.push_message(packet_id, b"")
    for packet_id in [*range(100, 50, -1), *range(1, 51)]:
        assert watch.oldest == min(set(range(1, 51)) if packet_id > 50 else set(range(packet_id, 51)))
        watch.acknowledge(packet_id)
    assert (watch.oldest, len(watch)) == (None, 0)


async def watched(**options):
    played = await PlayedConnection(retry_interval=INTERVAL, **options).open()
    played.patches.start_retry_task()
    return played


async def connection_ended(played):
    """Wait until the client ends the connection."""
    while not played.transport.aborted:  # noqa: ASYNC110
        await asyncio.sleep(INTERVAL / 20)
    await played.patches.stop_retry_task()


async def test_a_publish_that_stays_unacknowledged_ends_the_connection():
    played = await watched()
    packet_id = played.publish()
    await connection_ended(played)
    played.protocol.connection_lost(None)
    assert str(played.lost[0].error) == f"no PUBACK within 0.5 s for packet id {packet_id}"


async def test_slow_acknowledgements_in_order_do_not_end_the_connection():
    played = await watched()
    packet_ids = [played.publish() for _ in range(5)]
    # Together they take twice the interval, and each takes less than its own.
    for packet_id in packet_ids:
        await asyncio.sleep(INTERVAL * 0.4)
        played.say(puback(packet_id))
    assert not played.transport.aborted
    await played.patches.stop_retry_task()


async def test_a_missing_puback_ends_the_connection_although_later_publishes_are_acknowledged():
    played = await watched()
    played.publish()

    async def publish_more():
        while True:
            played.say(puback(played.publish()))
            await asyncio.sleep(INTERVAL / 10)

    others = asyncio.ensure_future(publish_more())
    async with asyncio.timeout(10):
        await connection_ended(played)
    others.cancel()


async def test_bytes_that_are_sent_slowly_do_not_end_the_connection():
    """The time for a PUBACK does not run while the bytes of the publish are being sent."""
    played = await watched()
    played.transport.unsent = 100_000
    packet_id = played.publish()
    for _ in range(30):
        await asyncio.sleep(INTERVAL / 10)
        played.transport.unsent -= 3000
    assert not played.transport.aborted
    played.transport.unsent = 0
    played.say(puback(packet_id))
    await played.patches.stop_retry_task()


@pytest.mark.parametrize("unsent", [1, 10**6])
async def test_bytes_that_stay_unsent_end_the_connection(unsent):
    played = await watched()
    played.transport.unsent = unsent
    played.publish()
    async with asyncio.timeout(10):
        await connection_ended(played)


async def test_sending_later_bytes_does_not_give_an_older_publish_more_time():
    """A later publish was acknowledged, so the bytes of the oldest one have reached the server."""
    played = await watched()
    played.transport.unsent = 10**6
    played.publish()
    played.say(puback(played.publish()))

    async def send_slowly():
        while True:
            await asyncio.sleep(INTERVAL / 10)
            played.transport.unsent -= 1000

    sending = asyncio.ensure_future(send_slowly())
    async with asyncio.timeout(10):
        await connection_ended(played)
    sending.cancel()


async def test_an_error_in_the_watch_ends_the_connection_with_that_error():
    """Without its watch, a publish could wait forever."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))
    played = await watched(expected_seconds=lambda: 1 / 0)
    played.publish()
    async with asyncio.timeout(10):
        await connection_ended(played)
    played.protocol.connection_lost(None)
    assert errors == ["division by zero"]
    assert isinstance(played.lost[0].error, ZeroDivisionError)


@pytest.mark.parametrize(("expected", "used"), [(0.0, 30.0), (12.0, 42.0), (500.0, 60.0)])
async def test_a_slow_link_gets_more_time_within_bounds(expected, used):
    played = await PlayedConnection(retry_interval=30, expected_seconds=lambda: expected).open()
    before = time.monotonic()
    packet_id = played.publish()
    after = time.monotonic()
    assert played.patches.overdue(before + used - 0.1) is None
    assert played.patches.overdue(after + used + 0.1) == packet_id
