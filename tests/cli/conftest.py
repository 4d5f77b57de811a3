"""Fixtures for the tests of the command line: a runner, and an emulator with a device and a gateway."""

import asyncio
from contextlib import asynccontextmanager

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
    """Return the environment variables of a device."""
    return {"TB_HOST": emulator.host, "TB_PORT": str(emulator.port), "TB_ACCESS_TOKEN": "DEVICE-TOKEN"}


@pytest.fixture
def gateway(device):
    """Return the environment variables of a gateway."""
    return device | {"TB_ACCESS_TOKEN": "GATEWAY-TOKEN"}


@pytest.fixture
async def silent_server():
    """Yield the port of a server that accepts connections and sends nothing."""
    async with _other_service(None) as port:
        yield port


@pytest.fixture
def other_service():
    """Return a context manager with the port of a server that sends a greeting to each client, or nothing if it is ``None``."""
    return _other_service


@asynccontextmanager
async def _other_service(greeting):
    async def serve(_reader, writer):
        writers.append(writer)
        if greeting is not None:
            writer.write(greeting)
            writer.close()

    writers = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield str(server.sockets[0].getsockname()[1])
    server.close()
    for writer in writers:
        writer.close()
    await server.wait_closed()
