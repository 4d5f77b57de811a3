"""A client belongs to the event loop of its first ``connect()`` or ``start()``: in another loop it raises and is not harmed."""

import asyncio

import pytest
from device_peer import make_client

from tb_mqtt_client.emulator import Emulator

ELSEWHERE = r"belongs to the event loop in which connect\(\) or start\(\) was called first"


def in_another_loop(work):
    """Run a coroutine in a new event loop in another thread."""
    return asyncio.to_thread(asyncio.run, work)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.send_timeseries({"a": 1}),
        lambda client: client.send_attributes({"a": 1}),
        lambda client: client.call_rpc("m"),
        lambda client: client.request_attributes(["a"]),
        lambda client: client.update_firmware(),
        lambda client: client.connect(),
        lambda client: client.disconnect(),
        lambda client: client.stop(),
    ],
)
async def test_a_call_from_another_loop_raises_and_changes_nothing(device, call):
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        await in_another_loop(call(device))
    assert (await device.send_timeseries({"a": 2})).is_successful()


async def test_a_call_for_a_sub_device_from_another_loop_raises(gateway):
    session, _ = await gateway.connect_device("meter", wait_for_publish=True)
    for call in (gateway.connect_device("pump"), gateway.send_device_timeseries(session, {"a": 1})):
        with pytest.raises(RuntimeError, match=ELSEWHERE):
            await in_another_loop(call)
    assert (await gateway.send_device_timeseries(session, {"a": 2})).is_successful()
    assert "pump" not in [session.device_info.device_name for session in gateway.device_manager.all()]


async def test_a_stopped_client_does_not_connect_in_another_loop(device):
    await device.stop()
    with pytest.raises(RuntimeError, match=ELSEWHERE):
        await in_another_loop(device.connect())
    # A stopped client can be stopped again from any loop.
    await in_another_loop(device.stop())
    await device.connect()
    assert (await device.send_timeseries({"a": 1})).is_successful()


def test_a_call_from_another_loop_of_the_same_thread_raises():
    emulator = Emulator()
    emulator.add_device("TOKEN", "device")
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(emulator.start())
        client = make_client(emulator)
        first.run(client.connect())
        for wait in (True, False):
            with pytest.raises(RuntimeError, match=ELSEWHERE):
                second.run(client.send_timeseries({"a": 1}, wait_for_publish=wait))
        assert first.run(client.send_timeseries({"a": 2})).is_successful()
        first.run(client.stop())
        first.run(emulator.stop())
