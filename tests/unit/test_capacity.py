"""The capacity of the queues is never exceeded and never lost."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.service.delivery.capacity import QueueCapacity


async def test_capacity_is_given_in_order():
    capacity = QueueCapacity(max_sends=2, max_bytes=100)
    assert capacity.try_take(10)
    assert capacity.try_take(10)
    order = []

    async def take(name):
        await capacity.take(10)
        order.append(name)

    tasks = [asyncio.ensure_future(take(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert order == []
    # A caller waits: no other overtakes it.
    capacity.give_back(1, 10)
    assert not capacity.try_take(10)
    for _ in range(3):
        await asyncio.sleep(0)
    capacity.give_back(1, 10)
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["a", "b"]
    capacity.give_back(1, 10)
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]


async def test_a_send_larger_than_the_capacity_passes_alone():
    capacity = QueueCapacity(max_sends=10, max_bytes=100)
    assert capacity.try_take(1000)
    assert not capacity.try_take(1)
    capacity.give_back(1, 1000)
    assert capacity.try_take(60)
    assert not capacity.try_take(60)


async def test_a_cancelled_caller_loses_no_capacity():
    capacity = QueueCapacity(max_sends=1, max_bytes=100)
    assert capacity.try_take(1)
    first, second = asyncio.ensure_future(capacity.take(1)), asyncio.ensure_future(capacity.take(1))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    capacity.give_back(1, 1)
    await second
    assert (capacity.sends, capacity.nbytes) == (1, 1)


class Fill:
    """A capacity, and its changes between high (True) and low."""

    def __init__(self, **bounds):
        self.capacity = QueueCapacity(**bounds)
        self.changes = []
        self.capacity.on_fill_changed = lambda: self.changes.append(self.capacity.is_high)

    def take(self, sends, nbytes=0):
        assert all(self.capacity.try_take(nbytes) for _ in range(sends))


@pytest.mark.parametrize("bounds", [{"max_sends": 100, "max_bytes": 10**6}, {"max_sends": 10**6, "max_bytes": 1000}], ids=str)
def test_the_queues_are_high_at_80_percent_and_low_at_50(bounds):
    fill = Fill(**bounds)
    fill.take(80, 10)
    assert fill.changes == []
    fill.take(1, 10)
    assert fill.changes == [True]
    fill.take(19, 10)
    assert not fill.capacity.try_take(10)
    fill.capacity.give_back(49, 490)
    assert fill.changes == [True]
    fill.capacity.give_back(1, 10)
    assert fill.changes == [True, False]
    # Between the two marks, nothing changes.
    fill.take(30, 10)
    fill.capacity.give_back(30, 300)
    assert fill.changes == [True, False]
    fill.take(31, 10)
    assert fill.changes == [True, False, True]


async def test_a_capacity_of_one_send_becomes_high_when_another_one_waits():
    fill = Fill(max_sends=1, max_bytes=100)
    fill.take(1, 10)
    assert fill.changes == []
    assert not fill.capacity.try_take(10)
    assert fill.changes == [True]
    waiting = asyncio.ensure_future(fill.capacity.take(10))
    await asyncio.sleep(0)
    fill.capacity.give_back(1, 10)
    await waiting
    assert fill.changes[:2] == [True, False]
    fill.capacity.give_back(1, 10)
    assert fill.changes[-1] is False


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=200))
def test_high_and_low_alternate_and_the_bounds_hold(operations):
    fill, queued = Fill(max_sends=10, max_bytes=100), []
    for takes, nbytes in operations:
        if takes and fill.capacity.try_take(nbytes):
            queued.append(nbytes)
        elif not takes and queued:
            fill.capacity.give_back(1, queued.pop())
        assert (fill.capacity.sends, fill.capacity.nbytes) == (len(queued), sum(queued))
        assert len(queued) <= 10
        assert sum(queued) <= 100
        # Both marks are inclusive for sends; a send of 40 bytes may be the one that passes the mark of bytes.
        if fill.capacity.is_high:
            assert len(queued) > 5 or sum(queued) > 40
        else:
            assert len(queued) <= 8
            assert sum(queued) <= 80 or len(queued) == 1
    assert fill.changes == [index % 2 == 0 for index in range(len(fill.changes))]
