"""The official IoT Gateway, unmodified, runs on this package. `make gateway-test` builds the wheel and sets GATEWAY_WHEEL.

The application is installed from the package index into an environment of its own, with our wheel in place of SDK 1.x. It sends the
data of a connector of ours to an emulator.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "compat" / "one_x"))
from one_x_platform import PlatformThread

from tb_mqtt_client.emulator import Verdict

WHEEL = os.environ.get("GATEWAY_WHEEL")
FOLDER = Path(os.environ.get("GATEWAY_FOLDER", "target/gateway")).absolute()
DEVICES, KEYS, ROUNDS = 100, 10, 20
SECONDS = 120
"""A limit for waiting, so that a defect cannot block the test."""
HOLES = (1, 15)
"""Seconds without acknowledgements. In the longer one, the application gives up several times, and sends its pack again."""
INTERRUPTIBLE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""A shell that starts the tests in the background lets them ignore Ctrl-C, and their programs inherit that."""

pytestmark = pytest.mark.skipif(WHEEL is None, reason="needs the wheel and the package index: make gateway-test")


@pytest.fixture(scope="session")
def environment():
    """Install the application, and return the folder of its environment."""
    folder = FOLDER / "venv"
    if not (folder / "bin/thingsboard-gateway").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
    pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    # The wheel of an earlier run has the same version.
    subprocess.run([*pip, "--force-reinstall", "--no-deps", WHEEL], check=True, timeout=600)
    subprocess.run([*pip, "--upgrade", WHEEL, "thingsboard-gateway"], check=True, timeout=600)
    installed = subprocess.run([folder / "bin/pip", "list"], check=True, capture_output=True, text=True).stdout
    assert "+core." in next(line for line in installed.splitlines() if line.startswith("tb-mqtt-client"))
    return folder


@pytest.fixture
def platform_thread():
    platform = PlatformThread()
    yield platform
    platform.stop()


class Application:
    """The running application."""

    def __init__(self, environment, platform, storage, folder):
        [package] = environment.glob("lib/python*/site-packages/thingsboard_gateway")
        extension = package / "extensions" / "load"
        extension.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("load_connector.py"), extension)
        config = folder / "config"
        config.mkdir()
        (folder / "logs").mkdir()
        shutil.copy(package / "config" / "logs.json", config)
        gateway = {
            "thingsboard": {
                "host": platform.host,
                "port": platform.port,
                "security": {"type": "accessToken", "accessToken": "GATEWAY"},
                "qos": 1,
                "remoteShell": False,
                "remoteConfiguration": False,
                "statistics": {"enable": False},
                "handleDeviceRenaming": True,
            },
            "storage": storage,
            "grpc": {"enabled": False},
            "connectors": [{"type": "load", "name": "Load", "class": "LoadConnector", "configuration": "load.json"}],
        }
        load = {"name": "Load", "id": "load", "devices": DEVICES, "keys": KEYS, "rounds": ROUNDS, "pause": 0.05}
        (config / "tb_gateway.json").write_text(json.dumps(gateway))
        (config / "load.json").write_text(json.dumps(load))
        self._output = folder / "output.txt"
        self._file = self._output.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, environment / "bin/thingsboard-gateway"],
            cwd=folder,
            env={**os.environ, "TB_GW_CONFIG_DIR": str(config), "PYTHONPATH": ""},
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, condition):
        """Wait until something is true on the platform."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.1)

    def interrupt(self):
        """Press Ctrl-C, and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(SECONDS)

    @property
    def output(self):
        return self._output.read_text()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._file.close()


@pytest.fixture
def start(environment, platform_thread, tmp_path):
    """Return a function that starts the application with a storage."""
    started = []

    def start(storage):
        started.append(Application(environment, platform_thread, storage, tmp_path))
        return started[-1]

    yield start
    for application in started:
        application.close()


def datapoints(platform):
    names = [f"load {number}" for number in range(DEVICES)]
    return {name: platform.stored(name) for name in names if name in platform.emulator.devices}


EXPECTED = {(1_700_000_000_000 + number, f"key{key}", number * 100 + key) for number in range(1, ROUNDS + 1) for key in range(KEYS)}
STORAGES = {
    "memory": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
    "file": {"type": "file", "data_folder_path": "data/", "max_file_count": 10, "max_records_per_file": 10_000},
    "sqlite": {"type": "sqlite", "data_file_path": "data/", "messages_ttl_in_days": 7},
}


def has_everything(platform):
    found = datapoints(platform)
    return len(found) == DEVICES and all(set(points) >= EXPECTED for points in found.values())


def doubled(platform):
    """Return how many datapoints arrived more than once."""
    return sum(len(points) - len(set(points)) for points in datapoints(platform).values())


@pytest.mark.parametrize("storage", STORAGES)
def test_the_application_loses_and_doubles_nothing_and_serves_its_devices(platform_thread, start, storage):
    application = start(STORAGES[storage])
    application.wait_until(lambda: has_everything(platform_thread))
    device = platform_thread.emulator.device("load 3")
    assert (device.profile, device.attributes["serial"]) == ("load", "serial 3")

    assert platform_thread.run(platform_thread.emulator.call_rpc("load 3", "echo", {"x": 1})) == {"echo": {"x": 1}}
    platform_thread.run(platform_thread.emulator.set_shared_attributes("load 3", {"limit": 5}))
    application.wait_until(lambda: (1, "updated", "{'limit': 5}") in platform_thread.stored("load 3"))

    assert application.interrupt() == 0
    assert "Traceback" not in application.output
    assert doubled(platform_thread) == 0


@pytest.mark.parametrize("hole", HOLES)
def test_nothing_is_lost_or_doubled_when_nothing_passes_and_the_connection_is_cut(platform_thread, start, hole):
    ignored = []

    def swallow(publish):
        if publish.topic != "v1/gateway/telemetry":
            return None
        ignored.append(publish)
        return Verdict.ignore()

    application = start(STORAGES["memory"])
    application.wait_until(lambda: sum(map(len, datapoints(platform_thread).values())) >= 0.3 * DEVICES * len(EXPECTED))
    platform_thread.emulator.on_publish = swallow
    application.wait_until(lambda: ignored)
    time.sleep(hole)

    async def cut():
        # No message may be stored whose acknowledgement is lost.
        platform_thread.emulator.on_publish = None
        await platform_thread.emulator.disconnect_device("GATEWAY")

    platform_thread.run(cut())
    application.wait_until(lambda: has_everything(platform_thread))
    assert application.interrupt() == 0
    assert doubled(platform_thread) == 0


def test_refused_data_leaves_the_storage(platform_thread, start):
    platform_thread.emulator.on_publish = lambda publish: (
        Verdict.refuse(0x99) if b'"load 7"' in publish.payload and b'"key' in publish.payload else None
    )
    application = start(STORAGES["memory"])
    everything = {f"load {number}" for number in range(DEVICES)} - {"load 7"}
    application.wait_until(
        lambda: everything == {name for name, points in datapoints(platform_thread).items() if set(points) >= EXPECTED}
    )
    assert application.interrupt() == 0
    assert doubled(platform_thread) == 0
