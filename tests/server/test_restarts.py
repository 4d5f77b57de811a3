"""A server that restarts under clients that send: they come back by themselves, and nothing is lost."""

import asyncio
import time

import pytest

from tb_mqtt_client import DeviceClient, GatewayClient
from thingsboard.rest import RestError
from thingsboard.tenant import until

pytestmark = pytest.mark.restarts

TS = 1_700_000_000_000


@pytest.fixture
def restart(thingsboard):
    """Runs TB_RESTART_COMMAND."""

    async def run():
        process = await asyncio.create_subprocess_shell(
            thingsboard.restart_command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(thingsboard.start_timeout):
            _, errors = await process.communicate()
        assert process.returncode == 0, f"TB_RESTART_COMMAND failed: {errors.decode(errors='replace')}"

    return run


async def test_nothing_is_lost_and_everything_works_again(tenant, address, device, gateway_device, thingsboard, restart, received):
    """Of a device and a gateway that send all the time, before, while and after."""
    futures, stopped = [], asyncio.Event()
    async with (
        DeviceClient(address | {"access_token": device.token}) as client,
        GatewayClient(address | {"access_token": gateway_device.token}) as gateway,
    ):
        client.set_rpc_request_callback(lambda request: request.params)
        client.set_attribute_update_callback(received)
        session, _ = await gateway.connect_device(tenant.name("meter"), wait_for_publish=True)
        session.set_rpc_request_callback(lambda _session, request: request.params)

        async def keep_sending():
            number = 0
            while not stopped.is_set():
                record = {"ts": TS + number, "values": {"a": number}}
                futures.extend(await client.send_timeseries(record, wait_for_publish=False))
                futures.append(await gateway.send_device_timeseries(session, record, wait_for_publish=False))
                number += 1
                await asyncio.sleep(0.05)
            return number

        sending = asyncio.create_task(keep_sending())
        await asyncio.sleep(2)
        await restart()
        meter = await until(
            lambda: reachable(tenant, session.device_info.device_name), "the server", within=thingsboard.start_timeout
        )
        await until(lambda: answered(tenant, device.id), "an answer of the device", within=thingsboard.start_timeout)
        await until(lambda: answered(tenant, meter.id), "an answer of the meter", within=thingsboard.start_timeout)
        await tenant.set_shared(device.id, {"period": 10})
        assert (await received.until(lambda update: "period" in update.as_dict())).as_dict() == {"period": 10}
        stopped.set()
        count = await sending
        async with asyncio.timeout(120):
            results = await asyncio.gather(*futures)
    assert all(result.is_successful() for result in results)
    for device_id in (device.id, meter.id):
        assert await until(lambda device_id=device_id: complete(tenant, device_id, count), f"{count} datapoints")


async def complete(tenant, device_id, count):
    return await tenant.count(device_id, ["a"], start=TS, end=TS + count) == count


async def reachable(tenant, name):
    try:
        return await tenant.until_device(name)
    except RestError:
        return None


async def answered(tenant, device_id):
    params = time.time()
    try:
        return (await tenant.rpc(device_id, "echo", params, timeout=3))["result"] == params
    except RestError:
        return False
