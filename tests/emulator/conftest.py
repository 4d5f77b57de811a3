"""Fixtures of this folder: an emulator with a device and a gateway."""

import asyncio

import pytest
from device_peer import make_client

from tb_mqtt_client.emulator import Emulator


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        yield emulator


@pytest.fixture
async def device(emulator):
    """A connected client of the device, which leaves no task and no request behind."""
    client = make_client(emulator)
    await client.connect()
    yield client
    await client.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()
    assert len(client._downlink.rpc_responses.pending) == len(client._downlink.attribute_responses.pending) == 0
