"""A ``Delivery`` is like a future of a ``PublishResult``, and belongs to no caller: cancelling who awaits it changes nothing."""

import asyncio

import pytest

from tb_mqtt_client import Delivery, PublishResult

RESULT = PublishResult("topic", 1, 7, 10, 0, 5)


async def test_the_result_is_there_once_it_is_set():
    delivery = Delivery()
    assert not delivery.done()
    assert repr(delivery) == "<Delivery pending>"
    for ask in (delivery.result, delivery.exception):
        with pytest.raises(asyncio.InvalidStateError, match="not known yet"):
            ask()
    delivery.set_result(RESULT)
    assert delivery.done()
    assert delivery.result() is RESULT
    assert delivery.exception() is None
    assert not delivery.cancelled()
    assert "reason_code=0" in repr(delivery)


async def test_a_result_is_set_once():
    delivery = Delivery()
    delivery.set_result(RESULT)
    with pytest.raises(asyncio.InvalidStateError, match="set already"):
        delivery.set_result(RESULT)


async def test_it_can_be_awaited_before_and_after_by_several_tasks():
    delivery = Delivery()

    async def wait():
        return await delivery

    tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    delivery.set_result(RESULT)
    assert await tasks[1] is await tasks[2] is await delivery is RESULT
    assert tasks[0].cancelled()


async def test_it_works_with_the_functions_of_asyncio():
    deliveries = [Delivery() for _ in range(4)]
    asyncio.get_running_loop().call_soon(lambda: [delivery.set_result(RESULT) for delivery in deliveries])
    assert await asyncio.gather(*deliveries[:2]) == [RESULT, RESULT]
    assert await asyncio.wait_for(deliveries[2], 10) is RESULT
    done, _ = await asyncio.wait([asyncio.ensure_future(deliveries[3])])
    assert [future.result() for future in done] == [RESULT]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Delivery(), 0.001)


async def test_callbacks_are_called_later_with_the_delivery():
    delivery, called = Delivery(), []
    delivery.add_done_callback(called.append)
    delivery.set_result(RESULT)
    assert called == []
    await asyncio.sleep(0)
    assert called == [delivery]
    delivery.add_done_callback(called.append)
    assert called == [delivery]
    await asyncio.sleep(0)
    assert called == [delivery, delivery]


async def test_a_callback_that_raises_is_reported_by_the_event_loop():
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    delivery, called = Delivery(), []
    delivery.add_done_callback(lambda _: 1 / 0)
    delivery.add_done_callback(called.append)
    delivery.set_result(RESULT)
    await asyncio.sleep(0)
    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert called == [delivery]


def test_nothing_of_it_needs_a_loop_before_it_is_awaited():
    delivery = Delivery()
    delivery.set_result(RESULT)
    assert delivery.result() is RESULT
    with pytest.raises(RuntimeError, match="no running event loop"):
        delivery.add_done_callback(print)
