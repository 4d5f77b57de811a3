"""Fixtures of this folder: the command line, and an emulator with a device and a gateway."""

import pytest
from command_line import CommandLine

from tb_mqtt_client.emulator import Emulator


@pytest.fixture
def tb_mqtt():
    return CommandLine()


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        emulator.add_device("DEVICE-TOKEN", "device")
        emulator.add_gateway("GATEWAY-TOKEN", "gateway")
        yield emulator


@pytest.fixture
def device(emulator):
    """The environment of a device."""
    return {"TB_HOST": emulator.host, "TB_PORT": str(emulator.port), "TB_ACCESS_TOKEN": "DEVICE-TOKEN"}


@pytest.fixture
def gateway(device):
    return device | {"TB_ACCESS_TOKEN": "GATEWAY-TOKEN"}
