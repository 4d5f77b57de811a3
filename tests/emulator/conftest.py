"""Fixtures: an emulator with a device and a gateway, and connected clients of both."""

import asyncio

import pytest
from device_peer import make_client

from engine_parts import engine_of, sub_devices_of
from tb_mqtt_client import GatewayClient
from tb_mqtt_client.emulator import Emulator

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "backpressure_delay": 0.02}


@pytest.fixture
async def emulator(request):
    """Run an emulator; a test may choose the version of the platform."""
    async with Emulator(**{"version": request.param} if hasattr(request, "param") else {}) as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        yield emulator


@pytest.fixture
async def device(emulator):
    """Connect a client of the device; after the test, no task and no request of it may be left."""
    client = make_client(emulator)
    await client.connect()
    yield client
    await client.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()
    assert len(engine_of(client).downlink.rpc_responses.pending) == len(engine_of(client).downlink.attribute_responses.pending) == 0


@pytest.fixture
def make_gateway(emulator):
    """Return a function that makes gateway clients, which reconnect without delay."""

    def make(**options):
        return GatewayClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY"} | options)

    return make


@pytest.fixture
async def start_gateway(make_gateway):
    """Return a function that connects clients of the gateway; after the test they are stopped, and no task may be left."""
    clients = []

    async def start(**options):
        clients.append(make_gateway(**options))
        await clients[-1].connect()
        return clients[-1]

    yield start
    for client in clients:
        await client.stop(timeout=0.01)
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


@pytest.fixture
async def gateway(make_gateway):
    """Connect a gateway; after the test, no task and no request of it may be left."""
    client = make_gateway()
    await client.connect()
    yield client
    await client.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()
    assert len(sub_devices_of(client).downlink.attribute_responses.pending) == 0
