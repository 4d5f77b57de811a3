"""Fixtures of this folder: an emulator with a device and a gateway."""

import pytest

from tb_mqtt_client.emulator import Emulator


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        yield emulator
