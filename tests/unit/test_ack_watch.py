"""Since when the oldest publish could have been acknowledged, and when its connection is given up."""

import asyncio

import pytest
from played_connection import PlayedConnection, puback

from tb_mqtt_client.common.mqtt.acknowledgements import AckWatch

INTERVAL = 0.5
"""Seconds for a PUBACK: long enough for a busy machine, as what happens in time here happens at a tenth of it."""


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


def test_the_oldest_has_its_time_from_when_it_is_the_oldest(watch):
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


def test_acknowledgements_in_any_order(watch):
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


async def given_up(played):
    """Wait until the connection is given up."""
    while not played.transport.aborted:  # noqa: ASYNC110
        await asyncio.sleep(INTERVAL / 20)
    await played.patches.stop_retry_task()


async def test_a_publish_that_stays_unacknowledged_ends_the_connection():
    played = await watched()
    packet_id = played.publish()
    await given_up(played)
    played.protocol.connection_lost(None)
    assert str(played.lost[0].error) == f"no PUBACK within 0.5 s for packet id {packet_id}"


async def test_acknowledgements_that_come_slowly_in_their_order_keep_the_connection():
    played = await watched()
    packet_ids = [played.publish() for _ in range(5)]
    # Twice the interval in all, and each well within its own.
    for packet_id in packet_ids:
        await asyncio.sleep(INTERVAL * 0.4)
        played.say(puback(packet_id))
    assert not played.transport.aborted
    await played.patches.stop_retry_task()


async def test_a_swallowed_publish_is_noticed_although_others_are_acknowledged():
    played = await watched()
    played.publish()

    async def go_on():
        while True:
            played.say(puback(played.publish()))
            await asyncio.sleep(INTERVAL / 10)

    others = asyncio.ensure_future(go_on())
    async with asyncio.timeout(10):
        await given_up(played)
    others.cancel()


async def test_bytes_that_leave_slowly_keep_the_connection():
    """The time for a PUBACK does not run while the publish is on its way."""
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
async def test_bytes_that_do_not_leave_end_the_connection(unsent):
    played = await watched()
    played.transport.unsent = unsent
    played.publish()
    async with asyncio.timeout(10):
        await given_up(played)


async def test_a_publish_that_left_is_not_saved_by_the_bytes_behind_it():
    """A later one was acknowledged: the oldest had left before."""
    played = await watched()
    played.transport.unsent = 10**6
    played.publish()
    played.say(puback(played.publish()))

    async def leave():
        while True:
            await asyncio.sleep(INTERVAL / 10)
            played.transport.unsent -= 1000

    leaving = asyncio.ensure_future(leave())
    async with asyncio.timeout(10):
        await given_up(played)
    leaving.cancel()


async def test_a_watch_that_fails_ends_its_connection_with_the_cause():
    """Otherwise a publish could wait for ever."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))
    played = await watched()
    played.patches.expected_seconds = lambda: 1 / 0
    played.publish()
    async with asyncio.timeout(10):
        await given_up(played)
    played.protocol.connection_lost(None)
    assert errors == ["division by zero"]
    assert isinstance(played.lost[0].error, ZeroDivisionError)


@pytest.mark.parametrize(("expected", "used"), [(0.0, 30.0), (12.0, 42.0), (500.0, 60.0)])
async def test_a_slow_link_gives_more_time_within_bounds(expected, used):
    played = await PlayedConnection(retry_interval=30).open()
    played.patches.expected_seconds = lambda: expected
    packet_id = played.publish()
    since = played.patches._unacknowledged.since
    assert played.patches.overdue(since + used - 0.1) is None
    assert played.patches.overdue(since + used + 0.1) == packet_id
