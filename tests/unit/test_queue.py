"""Queues keep their order, and the room at the door is never exceeded and never lost."""

import asyncio

import pytest

from tb_mqtt_client.common.queue import AsyncDeque, QueueRoom


async def test_order():
    queue = AsyncDeque()
    await queue.extend(["b", "c"])
    await queue.extend_left(["1", "2"])
    await queue.put("d")
    await queue.put_left("0")
    assert await queue.peek() == "0"
    assert await queue.peek_batch(3) == ["0", "1", "2"]
    assert await queue.pop_n(2) == ["0", "1"]
    assert [await queue.get() for _ in range(4)] == ["2", "b", "c", "d"]
    assert queue.is_empty()
    assert queue.size() == 0


def test_an_item_is_taken_from_the_middle():
    queue = AsyncDeque()
    queue.append_all("abc")
    assert queue.remove_now("b")
    assert not queue.remove_now("b")
    assert queue.pop_now(5) == ["a", "c"]


async def test_get_waits_for_an_item():
    queue = AsyncDeque()
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.append("a")
    assert await waiting == "a"


async def test_an_item_that_is_queued_is_ignored():
    queue, item = AsyncDeque(), object()
    await queue.put(item)
    await queue.put(item)
    assert queue.size() == 1


async def test_put_waits_while_full():
    """Defect 6 of SDK 2.0: the oldest item was dropped."""
    queue = AsyncDeque(1)
    await queue.put("a")
    waiting = asyncio.ensure_future(queue.put("b"))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await queue.get() == "a"
    await waiting
    assert await queue.get() == "b"


def test_maxlen_is_checked():
    with pytest.raises(ValueError, match="maxlen must be at least 1"):
        AsyncDeque(0)


async def test_room_is_given_in_order():
    room = QueueRoom(max_messages=2, max_bytes=100)
    assert room.try_take(10)
    assert room.try_take(10)
    order = []

    async def take(name):
        await room.take(10)
        order.append(name)

    tasks = [asyncio.ensure_future(take(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert order == []
    # Somebody waits: nobody overtakes.
    room.give_back(1, 10)
    assert not room.try_take(10)
    for _ in range(3):
        await asyncio.sleep(0)
    room.give_back(1, 10)
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["a", "b"]
    room.give_back(1, 10)
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]


async def test_room_counts_bytes_and_lets_one_large_message_pass_alone():
    room = QueueRoom(max_messages=10, max_bytes=100)
    assert room.try_take(1000)
    assert not room.try_take(1)
    room.give_back(1, 1000)
    assert room.try_take(60)
    assert not room.try_take(60)


async def test_a_cancelled_waiter_loses_no_room():
    room = QueueRoom(max_messages=1, max_bytes=100)
    assert room.try_take(1)
    first, second = asyncio.ensure_future(room.take(1)), asyncio.ensure_future(room.take(1))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    room.give_back(1, 1)
    await second
    assert (room.messages, room.bytes) == (1, 1)
