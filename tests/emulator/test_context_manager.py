"""``async with`` connects a client on entry and stops it on exit, and a failed connect leaves no task."""

import asyncio

import pytest

from tb_mqtt_client import ConnectionRefusedByServer, DeviceClient, GatewayClient, NotConnectedError


def config(emulator, token):
    return {"host": emulator.host, "port": emulator.port, "access_token": token}


@pytest.mark.parametrize(("client_class", "token"), [(DeviceClient, "TOKEN"), (GatewayClient, "GATEWAY")])
async def test_a_client_is_connected_in_the_block_and_stopped_after_it(emulator, client_class, token):
    async with client_class(config(emulator, token)) as client:
        [future] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    assert future.result().is_successful()
    with pytest.raises(NotConnectedError):
        await client.send_timeseries({"a": 2})
    assert not tasks_of_clients()


async def test_an_error_in_the_block_is_raised_after_the_client_has_stopped(emulator):
    futures = []

    async def body():
        async with DeviceClient(config(emulator, "TOKEN")) as client:
            futures.extend(await client.send_timeseries({"a": 1}, wait_for_publish=False))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert futures[0].result().is_successful()
    assert not tasks_of_clients()


async def test_a_refused_connect_leaves_no_task(emulator):
    with pytest.raises(ConnectionRefusedByServer):
        async with DeviceClient(config(emulator, "WRONG")):
            pytest.fail("must not be reached")
    assert not tasks_of_clients()


def tasks_of_clients():
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("tb-mqtt-client")]
