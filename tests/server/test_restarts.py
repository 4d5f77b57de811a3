"""Clients that send during a server restart reconnect and lose no data."""

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
    """Return a function that runs TB_RESTART_COMMAND."""

    async def run():
        process = await asyncio.create_subprocess_shell(
            thingsboard.restart_command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(thingsboard.start_timeout):
            _, errors = await process.communicate()
        assert process.returncode == 0, f"TB_RESTART_COMMAND failed: {errors.decode(errors='replace')}"

    return run


async def test_no_data_is_lost_in_a_restart(tenant, address, device, gateway_device, thingsboard, restart, received):
    """A device and a gateway send before, during and after the restart.

    A server acknowledges queued data. With a queue in memory, the default, it loses the data that it acknowledged shortly before
    it stops. So data that was acknowledged on the first connection and not stored yet may be missing.
    """
    futures, stopped = [], asyncio.Event()
    # The number of the connection on which each datapoint was acknowledged, for each client.
    connections = {DeviceClient: {}, GatewayClient: {}}
    async with (
        DeviceClient(address | {"access_token": device.token}) as client,
        GatewayClient(address | {"access_token": gateway_device.token}) as gateway,
    ):
        client.set_rpc_request_callback(lambda request: request.params)
        client.set_attribute_update_callback(received)
        session, _ = await gateway.connect_device(tenant.name("meter"), wait_for_publish=True)
        session.set_rpc_request_callback(lambda _session, request: request.params)
        meter = await tenant.until_device(session.device_info.device_name)

        def watch(future, sender, number):
            futures.append(future)
            numbers = connections[type(sender)]
            future.add_done_callback(lambda _: numbers.setdefault(number, sender.statistics.connections))

        async def keep_sending():
            number = 0
            while not stopped.is_set():
                record = {"ts": TS + number, "values": {"a": number}}
                [future] = await client.send_timeseries(record, wait_for_publish=False)
                watch(future, client, number)
                watch(await gateway.send_device_timeseries(session, record, wait_for_publish=False), gateway, number)
                number += 1
                await asyncio.sleep(0.05)

        sending = asyncio.create_task(keep_sending())
        first = range(20)
        for device_id in (device.id, meter.id):
            await until(lambda device_id=device_id: has(tenant, device_id, first), "the datapoints before the restart")
        await restart()
        within = thingsboard.start_timeout
        await until(lambda: reachable(tenant, device.name), "the server", within=within)
        for device_id in (device.id, meter.id):
            await until(lambda device_id=device_id: replies(tenant, device_id), "a reply to an RPC request", within=within)
        await tenant.set_shared(device.id, {"period": 10})
        assert (await received.until(lambda update: "period" in update.as_dict())).as_dict() == {"period": 10}
        stopped.set()
        await sending
        async with asyncio.timeout(120):
            results = await asyncio.gather(*futures)
    assert all(result.is_successful() for result in results)
    for device_id, kind in ((device.id, DeviceClient), (meter.id, GatewayClient)):
        afterwards = {number for number, connection in connections[kind].items() if connection > 1}
        assert len(afterwards) > len(first)
        expected = {*first, *afterwards}
        await until(lambda device_id=device_id, expected=expected: has(tenant, device_id, expected), "all datapoints")


async def has(tenant, device_id, numbers):
    found = await tenant.telemetry(device_id, ["a"], start=TS)
    return {point.value for point in found.get("a", [])} >= set(numbers)


async def reachable(tenant, name):
    try:
        return await tenant.until_device(name)
    except RestError:
        return None


async def replies(tenant, device_id):
    params = time.time()
    try:
        return (await tenant.rpc(device_id, "echo", params, timeout=3))["result"] == params
    except RestError:
        return False
