"""The example of a service: the program, its health check, and the commands of its unit and its container image."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib

import pytest

from network_peers import free_ports
from programs import EXAMPLES, running

FOLDER = EXAMPLES / "service"
UNIT = (FOLDER / "tb-device.service").read_text()
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
TOKEN = "EXAMPLES_TOKEN"


@pytest.fixture
def environment(emulator, tmp_path):
    emulator.add_device(TOKEN, "device")
    [port] = free_ports(1)
    return {
        "TB_HOST": emulator.host,
        "TB_PORT": emulator.port,
        "TB_ACCESS_TOKEN": TOKEN,
        "TB_STORE": str(tmp_path / "data" / "store"),
        "HEALTH_PORT": port,
        "INTERVAL": "0.02",
    }


async def until_logged(program, text):
    async with asyncio.timeout(60):
        while text not in program.errors:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def arrived(emulator, count):
    async with asyncio.timeout(60):
        while len(emulator.device("device").telemetry) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_service_sends_and_is_healthy(emulator, environment, tmp_path):
    async with running(FOLDER / "service.py", folder=tmp_path, **environment) as program:
        await until_logged(program, "started")
        await arrived(emulator, 3)
        async with running(FOLDER / "health_check.py", folder=tmp_path, HEALTH_PORT=environment["HEALTH_PORT"]) as check:
            output = await check.end()
        status, _, body = output.partition(" ")
        assert (status, json.loads(body)["state"]) == ("200", "open")
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0


async def test_the_service_boots_without_a_platform_and_keeps_its_data(emulator, environment, tmp_path):
    async with running(FOLDER / "service.py", folder=tmp_path, **environment | {"TB_ACCESS_TOKEN": "UNKNOWN"}) as program:
        await until_logged(program, "started")
        async with running(FOLDER / "health_check.py", folder=tmp_path, HEALTH_PORT=environment["HEALTH_PORT"]) as check:
            assert (await check.end()).startswith("200 ")
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0


async def test_the_health_check_fails_without_a_service(environment, tmp_path):
    async with running(FOLDER / "health_check.py", folder=tmp_path, HEALTH_PORT=environment["HEALTH_PORT"]) as check:
        assert "The service does not respond" in await check.fail()


async def test_logs_are_written_to_a_file(environment, tmp_path):
    log = tmp_path / "service.log"
    async with running(FOLDER / "service.py", folder=tmp_path, **environment, LOG_FILE=str(log)) as program:
        async with asyncio.timeout(60):
            while not log.exists() or "started" not in log.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        program.signal(signal.SIGTERM)
        assert (await program.ended(), program.errors) == (0, "")


# The unit. Real systemd checks it with systemd-analyze, which most containers do not have.


def of_unit(key):
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def test_the_times_of_the_unit_fit_the_program():
    stop_timeout = int(re.search(r"stop_timeout=(\d+)", (FOLDER / "service.py").read_text())[1])
    [of_systemd] = of_unit("TimeoutStopSec")
    assert int(of_systemd) > stop_timeout
    assert of_unit("Type") == ["notify"]
    assert int(of_unit("WatchdogSec")[0]) > 20


async def test_the_command_of_the_unit(emulator, environment, tmp_path):
    """As systemd runs it: with the watchdog's variables, no others, and a read-only root."""
    program, script = shlex.split(of_unit("ExecStart")[0])
    assert program.endswith("/bin/python")
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        watchdog = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}
        async with running(FOLDER / os.path.basename(script), folder=tmp_path, **environment | watchdog) as process:
            received = ""
            async with asyncio.timeout(60):
                while not all(name in received for name in ("READY=1", "WATCHDOG=1", "STATUS=open: acknowledged ")):
                    received += (await asyncio.get_running_loop().sock_recv(manager, 10_000)).decode() + "\n"
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0


# The container image: its steps without Docker, in a clean environment.


def of_image(instruction):
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{instruction} (.*)$", joined, re.MULTILINE)


async def test_the_steps_of_the_container_image(emulator, environment, tmp_path):
    """The files that are copied exist, and CMD and HEALTHCHECK work in a folder that nothing else is in and that is read-only."""
    root = tmp_path / "root"
    for line in of_image("COPY"):
        *sources, target = line.split()
        (root / target.strip("/")).mkdir(parents=True, exist_ok=True)
        for source in sources:
            if "*" not in source:
                (root / target.strip("/") / source).write_bytes((FOLDER / source).read_bytes())
    (root / "data").mkdir()
    [variables] = of_image("ENV")
    image = dict(one.split("=", 1) for one in variables.split())
    image["TB_STORE"] = str(root / image["TB_STORE"].strip("/"))
    (root / "app").chmod(0o555)
    command = json.loads(of_image("CMD")[0])
    check = json.loads(re.search(r"CMD (\[.*\])", of_image("HEALTHCHECK")[0])[1])
    assert command[0] == check[0] == "python"
    async with running(root / command[1].strip("/"), folder=root, **environment | image) as program:
        await until_logged(program, "started")
        await arrived(emulator, 2)
        async with running(root / check[1].strip("/"), folder=root, HEALTH_PORT=environment["HEALTH_PORT"]) as checked:
            assert (await checked.end()).startswith("200 ")
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
    written = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
    assert written == {"app", "data"}
    assert sorted(os.listdir(root / "app")) == ["health_check.py", "service.py"]
    assert of_image("USER") == ["tb"]


def test_the_python_of_the_image_is_supported():
    [version] = re.findall(r"^ARG PYTHON=([0-9.]+)\nFROM python:\$\{PYTHON\}-slim$", DOCKERFILE, re.MULTILINE)
    metadata = (EXAMPLES.parent / "pyproject.toml").read_text()
    assert f'"Programming Language :: Python :: {version}"' in metadata


@pytest.mark.skipif(sys.platform != "linux", reason="systemd runs on Linux")
def test_systemd_accepts_the_unit(tmp_path):
    """Where there is systemd; the program of the unit is replaced by one that exists."""
    unit = tmp_path / "tb-device.service"
    unit.write_text(UNIT.replace(of_unit("ExecStart")[0], sys.executable))
    try:
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("there is no systemd here")
    assert "tb-device.service:" not in done.stderr


# The agent.


def test_the_configuration_of_the_agent_fits_its_unit(tmp_path):
    unit = (FOLDER / "tb-agent.service").read_text()
    settings = (FOLDER / "agent.toml").read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert shlex.split(command)[1:] == ["agent", "--config", "/etc/tb-agent.toml"]
    [directory] = re.findall(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE)
    [state] = re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)
    document = tomllib.loads(settings)
    assert document["agent"]["directory"] == directory
    assert document["store"].startswith(f"/var/lib/{state}/")
    # The same configuration with folders that exist here.
    (tmp_path / "spool").mkdir()
    (tmp_path / "tb-agent.token").write_text("TOKEN")
    here = (
        settings.replace(directory, str(tmp_path / "spool")).replace("/etc/", f"{tmp_path}/").replace("/var/lib/", f"{tmp_path}/")
    )
    (tmp_path / "tb-agent.toml").write_text(here)
    check = [sys.executable, "-m", "tb_mqtt_client", "config", "check", "--config", tmp_path / "tb-agent.toml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TB_")}
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, f"the directory {tmp_path / 'spool'}" in done.stdout) == (0, True), done.stderr
