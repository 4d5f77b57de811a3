"""Attribute updates arrive in order, and no callback stops the client."""

import asyncio

import pytest
from device_peer import ATTRIBUTES, NoException, RPCResponses, cancelled, make_client

from engine_parts import engine_of


@pytest.mark.parametrize("plain", [True, False])
async def test_attribute_updates(emulator, device, plain):
    updates = asyncio.Queue()

    async def coroutine_function(update):
        await updates.put(update)

    device.set_attribute_update_callback(updates.put_nowait if plain else coroutine_function)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1, "b": {"c": None}})
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"deleted": ["a", "b"]})
    changed, deleted = await updates.get(), await updates.get()
    assert (changed.as_dict(), changed.deleted_keys) == ({"a": 1, "b": {"c": None}}, [])
    assert (deleted.as_dict(), deleted.deleted_keys) == ({}, ["a", "b"])


async def test_updates_are_processed_in_order_whatever_the_callback_does(emulator, device):
    seen, last = [], asyncio.Event()

    async def callback(update):
        number = update.get("n")
        # Earlier updates take longer.
        for _ in range(20 - number):
            await asyncio.sleep(0)
        seen.append(number)
        if number == 19:
            last.set()
        if number % 3 == 0:
            raise (ValueError, NoException)[number % 2](f"number {number}")

    device.set_attribute_update_callback(callback)
    for number in range(20):
        await emulator.publish_to("TOKEN", ATTRIBUTES, {"n": number})
    await last.wait()
    assert seen == list(range(20))
    assert device.statistics.callback_errors == 7
    assert device.statistics.inbound_messages == 21


async def test_a_callback_that_awaits_a_cancelled_task(emulator, device):
    """The cancellation is a failure of the callback, and does not end the task that calls it."""
    seen = asyncio.Queue()

    async def callback(update):
        seen.put_nowait(update.get("a"))
        if update.get("a") == 1:
            await cancelled(update)

    device.set_attribute_update_callback(callback)
    for number in (1, 2):
        await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": number})
        assert await seen.get() == number
    assert device.statistics.callback_errors == 1


async def test_updates_without_a_callback_are_ignored(emulator, device):
    updates = asyncio.Queue()
    device.set_attribute_update_callback(updates.put_nowait)
    device.set_attribute_update_callback(None)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    await emulator.publish_to("TOKEN", ATTRIBUTES, b"no json")
    await device.send_attributes({"a": 1})
    device.set_attribute_update_callback(updates.put_nowait)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 2})
    assert (await updates.get()).get("a") == 2
    assert updates.empty()


async def test_a_hanging_callback_does_not_delay_other_messages(emulator, device, caplog):
    started = asyncio.Event()

    async def hang(_update):
        started.set()
        await asyncio.Event().wait()

    device.set_attribute_update_callback(hang)
    device.set_rpc_request_callback(lambda request: request.params)
    responses = RPCResponses(emulator)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    await started.wait()
    assert await responses.to(5, {"method": "m", "params": 7}) == (5, {"result": 7})
    assert (await device.send_timeseries({"a": 1})).is_successful()
    await device.stop()
    assert "did not end" not in caplog.text


async def test_stop_does_not_wait_for_a_callback_that_cannot_be_cancelled(emulator, caplog):
    client = make_client(emulator)
    engine_of(client).tasks.end_seconds = 0.01
    started, end = asyncio.Event(), asyncio.Event()

    async def hang(_update):
        started.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    client.set_attribute_update_callback(hang)
    await client.connect()
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    await started.wait()
    await client.stop()
    assert f"tb-mqtt-client handler of {ATTRIBUTES} did not end within 0.01 s of being cancelled" in caplog.text
    [left] = [task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()]
    end.set()
    await asyncio.wait([left])


async def test_the_number_of_waiting_updates_is_limited(emulator, caplog):
    client = make_client(emulator, max_inbound_messages=5)
    seen, go_on, done = [], asyncio.Event(), asyncio.Event()

    async def callback(update):
        await go_on.wait()
        seen.append(update.get("n"))
        if len(seen) == 6:
            done.set()

    client.set_attribute_update_callback(callback)
    await client.connect()
    for number in range(20):
        await emulator.publish_to("TOKEN", ATTRIBUTES, {"n": number})
        # The callback has started before the next update arrives.
        await client.send_attributes({"a": 1})
    go_on.set()
    await done.wait()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert client.statistics.inbound_refused == 14
    assert caplog.text.count(": 5 others are waiting for their callbacks") == 1
    await client.stop()
