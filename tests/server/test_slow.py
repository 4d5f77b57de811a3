"""Tests that take minutes: a million datapoints, and a sub-device that is inactive for longer than the server's timeout."""

import asyncio

import pytest

from tb_mqtt_client import DeviceClient, GatewayClient
from thingsboard.rest import RestError
from thingsboard.tenant import until

pytestmark = pytest.mark.slow

TS = 1_700_000_000_000
KEYS = [f"k{number}" for number in range(10)]


async def test_a_million_datapoints_of_a_device_are_all_stored(tenant, address, device):
    """Each datapoint has its own timestamp or key, so that the server's count is the number of arrived datapoints."""
    records = 100_000
    async with DeviceClient(address | {"access_token": device.token}) as client:
        futures = []
        for first in range(0, records, 100):
            call = [{"ts": TS + first + number, "values": dict.fromkeys(KEYS, first + number)} for number in range(100)]
            futures += await client.send_timeseries(call, wait_for_publish=False)
        results = await asyncio.gather(*futures)
        assert all(result.is_successful() for result in results)
        assert sum(result.datapoints_count for result in results) == client.statistics.acknowledged == 1_000_000
    await counted(tenant, device.id, KEYS, records, 1_000_000)


async def test_a_million_datapoints_of_sub_devices_are_all_stored(tenant, address, gateway_device):
    devices, records = 50, 2000
    async with GatewayClient(address | {"access_token": gateway_device.token}) as gateway:
        sessions = [(await gateway.connect_device(tenant.name("meter")))[0] for _ in range(devices)]
        futures = []
        for first in range(0, records, 20):
            for session in sessions:
                call = [{"ts": TS + first + number, "values": dict.fromkeys(KEYS, first + number)} for number in range(20)]
                futures.append(await gateway.send_device_timeseries(session, call, wait_for_publish=False))
        results = await asyncio.gather(*futures)
        assert all(result.is_successful() for result in results)
        assert sum(result.datapoints_count for result in results) == 1_000_000
        names = [session.device_info.device_name for session in sessions]
    for name in names:
        await counted(tenant, (await tenant.until_device(name)).id, KEYS, records, 20_000)


async def counted(tenant, device_id, keys, records, count):
    found = 0

    async def complete():
        nonlocal found
        found = await tenant.count(device_id, keys, start=TS, end=TS + records)
        return found == count

    await until(complete, f"{count} datapoints, the last count was {found}", within=900)


async def test_an_inactive_sub_device_stays_reachable(tenant, address, gateway_device, thingsboard, received):
    """The server ends the session after TB_INACTIVITY without a notice unless the client keeps it alive."""
    # The client's defaults match the server's default. The server closes a connection without packets after the same time.
    seconds = thingsboard.inactivity
    options = {} if seconds >= 600 else {"keepalive": max(1, int(seconds / 4)), "sub_device_keepalive": seconds / 4}
    async with GatewayClient(address | {"access_token": gateway_device.token} | options) as gateway:
        session, _ = await gateway.connect_device(tenant.name("relay"), wait_for_publish=True)
        session.set_rpc_request_callback(lambda _session, request: request.params)
        session.set_attribute_update_callback(received)
        relay = await tenant.until_device(session.device_info.device_name)
        await until(lambda: replies(tenant, relay, 0), "a reply at the beginning")
        # Another device sends, so that the gateway itself is active.
        busy, _ = await gateway.connect_device(tenant.name("busy"), wait_for_publish=True)
        for number in range(20):
            await asyncio.sleep(seconds * 1.25 / 20)
            await gateway.send_device_timeseries(busy, {"a": number})
        assert await replies(tenant, relay, 1)
        await tenant.set_shared(relay.id, {"period": 10})
        _, update = await received.next()
        assert update.as_dict() == {"period": 10}
        # A new connection would have opened new sessions.
        assert gateway.statistics.connections == 1


async def replies(tenant, device, params):
    try:
        return (await tenant.rpc(device.id, "echo", params, timeout=10)) == {"result": params}
    except RestError:
        return False
