"""``connect()`` during a disconnect or a stop waits for its end, and then connects."""

import asyncio
import logging
from contextlib import suppress

import pytest
from device_peer import RPC_REQUEST, make_client

from engine_parts import engine_of
from tb_mqtt_client import ClientState
from tb_mqtt_client.common.exceptions import NotConnectedError


@pytest.mark.parametrize("end", ["disconnect", "stop"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_a_device_connects_after_the_end(emulator, device, end, turns):
    ending = asyncio.ensure_future(getattr(device, end)())
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.gather(ending, device.connect(), device.connect())
    assert (await device.send_timeseries({"a": 1})).is_successful()
    await device.stop()
    assert device.statistics.accepted == device.statistics.acknowledged == 1


@pytest.mark.parametrize("end", ["disconnect", "stop"])
async def test_a_gateway_connects_after_the_end(gateway, end):
    session, _ = await gateway.connect_device("meter", wait_for_publish=True)
    await asyncio.gather(getattr(gateway, end)(), gateway.connect())
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    assert session.state.is_connected()


async def test_a_waiting_connect_can_be_cancelled(emulator):
    client = make_client(emulator)
    await client.connect()
    ending = asyncio.ensure_future(client.stop())
    await asyncio.sleep(0)
    connecting = asyncio.ensure_future(client.connect())
    await asyncio.sleep(0)
    connecting.cancel()
    await ending
    assert connecting.cancelled()
    assert not client.health()["connected"]


@pytest.mark.parametrize("first", ["the caller that connects", "the other caller"])
async def test_one_of_two_callers_that_stop_connects_again(device, first):
    async def stop_and_connect():
        await device.stop()
        await device.connect()

    callers = [stop_and_connect(), device.stop()]
    await asyncio.gather(*(callers if first == "the caller that connects" else callers[::-1]))
    assert (await device.send_timeseries({"a": 1})).is_successful()


@pytest.mark.parametrize("last", ["disconnect", "stop"])
async def test_a_waiting_connect_gives_way_to_a_later_end(device, last):
    _, connected, _ = await asyncio.gather(device.disconnect(), device.connect(), getattr(device, last)(), return_exceptions=True)
    assert isinstance(connected, NotConnectedError)
    assert device.state is (ClientState.DISCONNECTED if last == "disconnect" else ClientState.STOPPED)


@pytest.mark.parametrize("end", ["disconnect", "stop"])
@pytest.mark.parametrize("last_act", ["connect", "disconnect", "stop"])
@pytest.mark.parametrize("callback", ["attribute update", "RPC request"])
async def test_a_cancelled_callback_may_do_the_same_as_its_last_act(emulator, device, end, last_act, callback, caplog):
    """The end waits for the callback, so that the callback does not wait for the end."""
    running, ended = asyncio.Event(), asyncio.Event()

    async def clean_up(_message):
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            with suppress(NotConnectedError):
                await getattr(device, last_act)()
            ended.set()

    if callback == "attribute update":
        device.set_attribute_update_callback(clean_up)
        await emulator.set_shared_attributes("device", {"a": 1})
    else:
        device.set_rpc_request_callback(clean_up)
        assert await emulator.publish_to("TOKEN", f"{RPC_REQUEST}1", {"method": "m", "params": None})
    await running.wait()
    async with asyncio.timeout(10):
        await (device.disconnect() if end == "disconnect" else device.stop(timeout=0))
        await ended.wait()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert not device.health()["connected"]


async def test_a_callback_can_stop_and_connect(emulator, device):
    connected = asyncio.Event()

    async def again(_update):
        await device.stop()
        await device.connect()
        connected.set()

    device.set_attribute_update_callback(again)
    await emulator.set_shared_attributes("device", {"a": 1})
    await connected.wait()
    assert (await device.send_timeseries({"a": 1})).is_successful()


@pytest.mark.parametrize("turns", range(1, 8))
async def test_a_cancelled_connect_ends_before_the_next_begins(emulator, turns):
    received = asyncio.Event()

    async def stay_silent(reader, writer):
        await reader.read(100)
        received.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stay_silent, "127.0.0.1") as silent:
        client = make_client(emulator, port=silent.sockets[0].getsockname()[1])
        first = asyncio.ensure_future(client.connect())
        await received.wait()
        first.cancel()
        engine_of(client).config.port = emulator.port
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.connect()
        assert first.cancelled()
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()


async def test_callbacks_that_stop_do_not_wait_for_each_other(emulator, device):
    handlers, both = [], asyncio.Barrier(3)

    async def stop(_call):
        handlers.append(engine_of(device).tasks.current())
        await both.wait()
        await device.stop(timeout=None)

    device.set_rpc_request_callback(stop)
    for number in range(2):
        assert await emulator.publish_to("TOKEN", f"{RPC_REQUEST}{number}", {"method": "stop", "params": None})
    await both.wait()
    await asyncio.wait(handlers)
    assert not device.health()["started"]


@pytest.mark.parametrize("qos", [0, 1])
async def test_data_sent_while_the_connection_closes_is_published_on_the_next(emulator, qos):
    client = make_client(emulator, qos=qos)
    await client.connect()
    ending = asyncio.ensure_future(client.disconnect())
    deliveries = []
    while not ending.done():
        deliveries += await client.send_timeseries({f"key {len(deliveries)}": 1}, wait_for_publish=False)
        await asyncio.sleep(0)
    await client.connect()
    await asyncio.gather(*deliveries)
    await client.request_attributes(shared_keys=["a"])  # its response comes after all of them
    stored = {key for _, values in emulator.device("device").records for key in values}
    assert stored == {f"key {number}" for number in range(len(deliveries))}
    await client.stop()
