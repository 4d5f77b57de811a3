"""Fixtures of this folder: the command line, and an emulator with a device and a gateway."""

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
    """The environment of a device."""
    return {"TB_HOST": emulator.host, "TB_PORT": str(emulator.port), "TB_ACCESS_TOKEN": "DEVICE-TOKEN"}


@pytest.fixture
def gateway(device):
    return device | {"TB_ACCESS_TOKEN": "GATEWAY-TOKEN"}


@pytest.fixture
async def silent_server():
    """The port of a server that takes connections and says nothing."""
    async with _other_service(None) as port:
        yield port


@pytest.fixture
def other_service():
    """A context manager that gives the port of a server with one answer to everybody; ``None``: none."""
    return _other_service


@asynccontextmanager
async def _other_service(answer):
    async def serve(_reader, writer):
        writers.append(writer)
        if answer is not None:
            writer.write(answer)
            writer.close()

    writers = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield str(server.sockets[0].getsockname()[1])
    server.close()
    for writer in writers:
        writer.close()
    await server.wait_closed()
