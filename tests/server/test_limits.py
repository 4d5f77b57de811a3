"""All data arrives under announced limits and under unannounced limits of the tenant.

Each test has its own tenant and tenant profile.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tb_mqtt_client import DeviceClient, GatewayClient
from thingsboard.limits import Limits
from thingsboard.tenant import until

pytestmark = pytest.mark.sysadmin

TS = 1_700_000_000_000
# Seconds until a hanging test fails; each limit allows much shorter times.
GUARD = 120


async def send_all(send, records):
    """Send each record separately and return the results."""
    futures = []
    for record in records:
        made = await send(record, wait_for_publish=False)
        futures += made if isinstance(made, list) else [made]
    async with asyncio.timeout(GUARD):
        return await asyncio.gather(*futures)


def records(count, keys=1, first=0, size=0):
    """Return records with numbers, or with strings of `size` characters, of which fewer fit in a message."""
    values = ["x" * size or number for number in range(count)]
    return [{"ts": TS + first + number, "values": {f"k{key}": value for key in range(keys)}} for number, value in enumerate(values)]


async def counted(tenant, device_id, keys, count):
    """Wait until this many datapoints are stored."""

    async def is_stored():
        return await tenant.count(device_id, [f"k{key}" for key in range(keys)], start=TS, end=TS + 10**9) == count

    await until(is_stored, f"{count} datapoints")


# Announced limits.


async def test_a_device_keeps_within_its_announced_limits(limited_tenants, address):
    """No message is refused, so the first connection stays open."""
    limits = Limits(device_messages="50:1", device_telemetry_messages="10:1,300:60", device_telemetry_datapoints="200:1,6000:60")
    tenant = await limited_tenants.make(limits)
    device = await tenant.device()
    async with DeviceClient(address | {"access_token": device.token}) as client:
        announced = client.health()["limits"]
        assert announced["announced"]
        assert announced["device"]["telemetryDataPoints"] == "200:1,6000:60"
        results = await send_all(client.send_timeseries, records(300, keys=5))
        assert all(result.is_successful() for result in results)
        assert client.statistics.connections == 1
    await counted(tenant, device.id, 5, 1500)


async def test_a_gateway_keeps_within_its_announced_limits(limited_tenants, address):
    limits = Limits(
        gateway_device_messages="50:1",
        gateway_messages="50:1",
        gateway_telemetry_messages="20:1,1000:60",
        gateway_telemetry_datapoints="300:1,6000:60",
    )
    tenant = await limited_tenants.make(limits)
    gateway_device = await tenant.device(gateway=True)
    async with GatewayClient(address | {"access_token": gateway_device.token}) as gateway:
        assert gateway.health()["limits"]["gateway"]["telemetryDataPoints"] == "300:1,6000:60"
        sessions = [(await gateway.connect_device(tenant.name("meter")))[0] for _ in range(10)]
        futures = [
            await gateway.send_device_timeseries(session, record, wait_for_publish=False)
            for record in records(50, keys=3)
            for session in sessions
        ]
        async with asyncio.timeout(GUARD):
            assert all(result.is_successful() for result in await asyncio.gather(*futures))
        assert gateway.statistics.connections == 1
        names = [session.device_info.device_name for session in sessions]
    for name in names:
        await counted(tenant, (await tenant.until_device(name)).id, 3, 150)


# Unannounced limits.


@pytest.mark.parametrize(
    "limits",
    [
        Limits(tenant_telemetry_datapoints="500:1"),
        Limits(tenant_telemetry_messages="3:1"),
        Limits(tenant_telemetry_messages="20:1", tenant_telemetry_datapoints="300:1,6000:60"),
    ],
    ids=["datapoints", "messages", "both"],
)
async def test_a_device_delivers_all_data_under_a_limit_of_the_tenant(limited_tenants, address, limits):
    tenant = await limited_tenants.make(limits)
    device = await tenant.device()
    async with DeviceClient(address | {"access_token": device.token}) as client:
        results = await send_all(client.send_timeseries, records(1000, keys=3, size=200))
        assert all(result.is_successful() for result in results)
        assert client.health()["limits"]["learned"]
    await counted(tenant, device.id, 3, 3000)


async def test_a_message_larger_than_the_tenants_window_is_split(limited_tenants, address):
    tenant = await limited_tenants.make(Limits(tenant_telemetry_datapoints="400:1,10000:60"))
    device = await tenant.device()
    async with DeviceClient(address | {"access_token": device.token}) as client:
        async with asyncio.timeout(GUARD):
            result = await client.send_timeseries(records(2500))
        assert (result.is_successful(), result.datapoints_count) == (True, 2500)
    await counted(tenant, device.id, 1, 2500)


@pytest.mark.parametrize(
    "limits",
    [Limits(tenant_telemetry_datapoints="500:1"), Limits(tenant_telemetry_messages="3:1")],
    ids=["datapoints", "messages"],
)
async def test_a_gateway_delivers_all_data_under_a_limit_of_the_tenant(limited_tenants, address, limits):
    tenant = await limited_tenants.make(limits)
    gateway_device = await tenant.device(gateway=True)
    async with GatewayClient(address | {"access_token": gateway_device.token}) as gateway:
        sessions = [(await gateway.connect_device(tenant.name("meter")))[0] for _ in range(8)]
        futures = [
            await gateway.send_device_timeseries(session, record, wait_for_publish=False)
            for record in records(100, keys=3)
            for session in sessions
        ]
        async with asyncio.timeout(GUARD):
            assert all(result.is_successful() for result in await asyncio.gather(*futures))
        assert gateway.health()["limits"]["learned"]
        names = [session.device_info.device_name for session in sessions]
    for name in names:
        await counted(tenant, (await tenant.until_device(name)).id, 3, 300)


async def test_devices_are_announced_under_a_message_limit_of_the_tenant(limited_tenants, address):
    """A new session costs messages; the server disconnects a gateway that exceeds the limit."""
    tenant = await limited_tenants.make(Limits(tenant_messages="10:1"))
    gateway_device = await tenant.device(gateway=True)
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(GUARD):
            gateway = await stack.enter_async_context(GatewayClient(address | {"access_token": gateway_device.token}))
            sessions = [(await gateway.connect_device(tenant.name("meter")))[0] for _ in range(30)]
            futures = [await gateway.send_device_timeseries(one, records(1)[0], wait_for_publish=False) for one in sessions]
            assert all(result.is_successful() for result in await asyncio.gather(*futures))
    for session in sessions:
        await counted(tenant, (await tenant.until_device(session.device_info.device_name)).id, 1, 1)


async def test_two_gateways_share_the_limit_of_the_tenant(limited_tenants, address):
    tenant = await limited_tenants.make(Limits(tenant_telemetry_datapoints="500:1"))
    tokens = [(await tenant.device(gateway=True)).token for _ in range(2)]

    async def run(token):
        async with GatewayClient(address | {"access_token": token}) as gateway:
            session, _ = await gateway.connect_device(tenant.name("meter"))

            async def send(record, wait_for_publish):
                return await gateway.send_device_timeseries(session, record, wait_for_publish=wait_for_publish)

            assert all(result.is_successful() for result in await send_all(send, records(800, keys=3)))
            return session.device_info.device_name

    for name in await asyncio.gather(*map(run, tokens)):
        await counted(tenant, (await tenant.until_device(name)).id, 3, 2400)


async def test_limits_change_while_a_client_sends(limited_tenants, address):
    wide = Limits(device_telemetry_datapoints="5000:1")
    tenant = await limited_tenants.make(wide)
    device = await tenant.device()
    async with DeviceClient(address | {"access_token": device.token}) as client:
        results = await send_all(client.send_timeseries, records(500))
        await limited_tenants.change(tenant, Limits(device_telemetry_datapoints="200:1", tenant_telemetry_messages="5:1"))
        results += await send_all(client.send_timeseries, records(2000, first=1000))
        await limited_tenants.change(tenant, wide)
        results += await send_all(client.send_timeseries, records(500, first=5000))
        assert all(result.is_successful() for result in results)
    await counted(tenant, device.id, 1, 3000)
