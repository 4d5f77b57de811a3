"""A queue keeps its order, and wakes the task that waits for it."""

import asyncio

from tb_mqtt_client.common.queue import AsyncDeque


def test_items_keep_their_order():
    queue = AsyncDeque()
    queue.append_all(["b", "c"])
    queue.prepend_all(["1", "2"])
    queue.append("d")
    assert (queue.first_now(), queue.items_now()) == ("1", ["1", "2", "b", "c", "d"])
    assert queue.pop_now(2) == ["1", "2"]
    assert [queue.take_now() for _ in range(3)] == ["b", "c", "d"]
    assert queue.is_empty()
    assert queue.first_now() is None


def test_an_item_can_be_removed_from_the_middle():
    queue = AsyncDeque()
    queue.append_all("abc")
    assert queue.remove_first(lambda item: item > "a") == "b"
    assert queue.remove_first(lambda item: item == "b") is None
    assert queue.pop_now(5) == ["a", "c"]


async def test_an_item_wakes_the_task_that_waits():
    queue = AsyncDeque()
    waiting = asyncio.ensure_future(queue.filled.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.append("a")
    await waiting


def test_the_event_is_set_while_an_item_is_queued():
    queue = AsyncDeque()
    for change, filled in (
        (lambda: queue.append("a"), True),
        (lambda: queue.append("b"), True),
        (lambda: queue.pop_now(1), True),
        (lambda: queue.pop_now(1), False),
        (lambda: queue.prepend_all(["c"]), True),
        (lambda: queue.remove_first("c".__eq__), False),
        (lambda: queue.append_all([]), False),
        (lambda: queue.append_all(["d"]), True),
    ):
        change()
        assert queue.filled.is_set() is filled is not queue.is_empty()
