"""Run the examples as users do: in a separate folder, with the variables that the docstring of each file names."""

import ssl
from contextlib import asynccontextmanager

import pytest
import trustme

from programs import EXAMPLES, running
from tb_mqtt_client.emulator import Emulator

TOKEN = "EXAMPLES_TOKEN"


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
async def tls_emulator(authority):
    """Yield an emulator with a certificate of the authority in ``ca_file``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Emulator(ssl_context=context) as emulator:
        yield emulator


@pytest.fixture
def sync_example(emulator, tmp_path):
    """Return a context manager that runs an example as a kind of client: ``sync_example("sync/gateway.py", "gateway")``."""

    @asynccontextmanager
    async def run(name, kind):
        (emulator.add_device if kind == "device" else emulator.add_gateway)(TOKEN, kind)
        address = {"TB_HOST": emulator.host, "TB_PORT": emulator.port, "TB_ACCESS_TOKEN": TOKEN}
        async with running(EXAMPLES / name, folder=tmp_path, **address) as program:
            yield program

    return run


@pytest.fixture
def example(emulator, tmp_path):
    """Return a context manager that runs an example as ``device`` or ``gateway``: ``example("device/load.py", 1000)``."""

    @asynccontextmanager
    async def run(name, *arguments, **environment):
        # A program may run several times in a test.
        if not registered:
            registered.append(name)
            if name.startswith("device/"):
                emulator.add_device(TOKEN, "device")
            else:
                emulator.add_gateway(TOKEN, "gateway")
        address = {"TB_HOST": emulator.host, "TB_PORT": emulator.port, "TB_ACCESS_TOKEN": TOKEN}
        async with running(EXAMPLES / name, *arguments, folder=tmp_path, **(address | environment)) as program:
            yield program

    registered = []
    return run
