"""The capacity of the queues is never exceeded and never lost."""

import asyncio

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
    assert (capacity.sends, capacity.bytes) == (1, 1)
