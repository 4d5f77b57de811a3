"""``async with`` a client: connected inside, stopped behind, and nothing left of a connect that failed."""

import asyncio

import pytest

from tb_mqtt_client import ConnectionRefusedByServer, DeviceClient, GatewayClient, NotConnectedError


def config(emulator, token):
    return {"host": emulator.host, "port": emulator.port, "access_token": token}


@pytest.mark.parametrize(("client_class", "token"), [(DeviceClient, "TOKEN"), (GatewayClient, "GATEWAY")])
async def test_connected_inside_and_stopped_behind(emulator, client_class, token):
    async with client_class(config(emulator, token)) as client:
        [future] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    assert future.result().is_successful()
    with pytest.raises(NotConnectedError):
        await client.send_timeseries({"a": 2})
    assert not tasks_of_clients()


async def test_what_the_body_raises_goes_through(emulator):
    futures = []

    async def body():
        async with DeviceClient(config(emulator, "TOKEN")) as client:
            futures.extend(await client.send_timeseries({"a": 1}, wait_for_publish=False))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert futures[0].result().is_successful()
    assert not tasks_of_clients()


async def test_a_refused_connect_leaves_nothing(emulator):
    with pytest.raises(ConnectionRefusedByServer):
        async with DeviceClient(config(emulator, "WRONG")):
            pytest.fail("must not be reached")
    assert not tasks_of_clients()


def tasks_of_clients():
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("tb-mqtt-client")]
