"""The recipes of docs/recipes.md run with the libraries that they are about."""

import ast
import asyncio
import importlib
import inspect
import json
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from programs import EXAMPLES, running

RECIPES = EXAMPLES / "recipes"
PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
TOKEN = "EXAMPLES_TOKEN"


def address(emulator):
    return {"TB_HOST": emulator.host, "TB_PORT": str(emulator.port), "TB_ACCESS_TOKEN": TOKEN}


async def arrived(emulator, device, count):
    async with asyncio.timeout(15):
        while device not in emulator.devices or len(emulator.device(device).telemetry) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return [(point.key, point.value) for point in emulator.device(device).telemetry]


def test_every_recipe_is_on_the_page():
    assert {path.name for path in RECIPES.glob("*.py")} <= set(re.findall(r"/recipes/(\w+\.py)\)", PAGE))


@pytest.fixture
def application(monkeypatch, emulator):
    """Return the module of the FastAPI recipe, with a device of its own."""
    emulator.add_device(TOKEN, "device")
    for name, value in address(emulator).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(RECIPES)
    yield importlib.import_module("fastapi_lifespan")
    del sys.modules["fastapi_lifespan"]


async def test_fastapi(application, emulator):
    app = application.app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as web,
    ):
        sent = await web.post("/telemetry", json={"temperature": 21.5})
        assert sent.status_code == 200
        assert (sent.json()["reason_code"], sent.json()["certainty"]) == (0, "delivered")
        queued = await web.post("/telemetry/later", json={"humidity": 48})
        assert queued.status_code == 202
        assert (await web.get("/ready")).json()["state"] == "open"
        assert (await web.post("/telemetry", json={"list": [1]})).status_code == 422
    assert await arrived(emulator, "device", 2) == [("temperature", 21.5), ("humidity", 48)]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as web:
        stopped = await web.get("/ready")
    assert stopped.status_code == 503
    assert json.loads(stopped.text)["detail"]["state"] == "stopped"


async def test_processes(emulator, tmp_path):
    emulator.add_device(TOKEN, "device")
    async with running(RECIPES / "multiprocessing_workers.py", folder=tmp_path, **address(emulator)) as program:
        output = await program.end()
    assert output == "accepted=300 acknowledged=300\n"
    points = await arrived(emulator, "device", 300)
    assert sorted(points) == sorted((f"worker {worker}", number) for worker in range(3) for number in range(100))


async def test_modbus(emulator, tmp_path):
    emulator.add_gateway(TOKEN, "gateway")
    registers = [SimDevice(1, SimData(0, values=[230.5, 1200.25], datatype=DataType.FLOAT32))]
    server = ModbusTcpServer(registers, address=("127.0.0.1", 0), ignore_missing_devices=True)
    await server.serve_forever(background=True)
    port = server.transport.sockets[0].getsockname()[1]
    environment = address(emulator) | {"MODBUS_PORT": str(port), "INTERVAL": "0.05"}
    try:
        async with running(RECIPES / "modbus_to_gateway.py", folder=tmp_path, **environment) as program:
            points = await arrived(emulator, "meter 1", 4)
            program.signal(signal.SIGINT)
            await program.ended()
    finally:
        await server.shutdown()
    assert points[:2] == [("voltage", 230.5), ("power", 1200.25)]


async def test_opc_ua(emulator, tmp_path):
    asyncua = pytest.importorskip("asyncua")
    emulator.add_gateway(TOKEN, "gateway")
    server = asyncua.Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    index = await server.register_namespace("urn:test")
    variable = await server.nodes.objects.add_variable(asyncua.ua.NodeId("temperature", index), "temperature", 20.0)
    async with server:
        port = server.bserver.port
        arguments = f"opc.tcp://127.0.0.1:{port}", variable.nodeid.to_string()
        async with running(RECIPES / "opcua_to_gateway.py", *arguments, folder=tmp_path, **address(emulator)) as program:
            assert await arrived(emulator, "press 1", 1) == [("temperature", 20.0)]
            await variable.write_value(21.5)
            assert await arrived(emulator, "press 1", 2) == [("temperature", 20.0), ("temperature", 21.5)]
            program.signal(signal.SIGINT)
            await program.ended()


async def test_cells_of_a_notebook(emulator, monkeypatch):
    """A notebook compiles each cell with top-level await, and runs it in the loop of the kernel."""
    emulator.add_device(TOKEN, "device")
    for name, value in address(emulator).items():
        monkeypatch.setenv(name, value)
    section = PAGE.partition("## Jupyter")[2].partition("\n## ")[0]
    cells = re.findall(r"```python shape\n(.*?)```", section, re.DOTALL)
    assert len(cells) == 3
    names = {}
    for cell in cells:
        ran = eval(compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(ran):
            await ran
    assert await arrived(emulator, "device", 2) == [("temperature", 21.5), ("humidity", 48)]
