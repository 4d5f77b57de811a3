"""The official IoT Gateway in an environment of its own, and what its connector sends."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

WHEEL = os.environ.get("GATEWAY_WHEEL")
FOLDER = Path(os.environ.get("GATEWAY_FOLDER", "target/gateway")).absolute()
CONNECTOR = Path(__file__).with_name("load_connector.py")
SECONDS = 180
"""A limit for waiting, so that a defect cannot block the tests."""
STOP_SECONDS = 5 * min(3, max(1, os.getloadavg()[0] / (os.cpu_count() or 1)))
"""A limit for the end of the application after Ctrl-C: 5 s in every case, and more on a machine that has other work, too."""
INTERRUPTIBLE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""A shell that starts the tests in the background lets them ignore Ctrl-C, and their programs inherit that."""

DEVICES, KEYS, ROUNDS = 100, 10, 20
FIRST_TS = 1_700_000_000_000
STORAGES = {
    "memory": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
    "file": {"type": "file", "data_folder_path": "data/", "max_file_count": 10, "max_records_per_file": 10_000},
    "sqlite": {"type": "sqlite", "data_file_path": "data/", "messages_ttl_in_days": 7},
}


def install():
    """Install the application from the package index with our wheel for SDK 1.x. Return the folder of its environment.

    The processes of one run share the environment: the first one installs it.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _install(FOLDER / "venv")


def _install(folder):
    if not (folder / "bin/thingsboard-gateway").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
    installed = folder / "installed"
    content = hashlib.sha256(Path(WHEEL).read_bytes() + CONNECTOR.read_bytes()).hexdigest()
    if not installed.exists() or installed.read_text() != content:
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        # The wheel of an earlier run has the same version.
        subprocess.run([*pip, "--force-reinstall", "--no-deps", WHEEL], check=True, timeout=600)
        if not installed.exists():
            subprocess.run([*pip, WHEEL, "thingsboard-gateway"], check=True, timeout=600)
        listed = subprocess.run([folder / "bin/pip", "list"], check=True, capture_output=True, text=True).stdout
        assert "+core." in next(line for line in listed.splitlines() if line.startswith("tb-mqtt-client"))
        _install_connector(folder)
        installed.write_text(content)
    return folder


def install_sdk():
    """Install the application with SDK 1.x, as its users have it. Return the folder of its environment."""
    folder = FOLDER / "sdk-venv"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "thingsboard-gateway"], check=True, timeout=600)
        (folder / "installed").touch()
    _install_connector(folder)
    return folder


def _install_connector(environment):
    extension = package_in(environment) / "extensions" / "load"
    extension.mkdir(exist_ok=True)
    shutil.copy(CONNECTOR, extension)


def package_in(environment):
    """Return the folder of the application in its environment."""
    [package] = environment.glob("lib/python*/site-packages/thingsboard_gateway")
    return package


class Application:
    """A folder with a configuration, and the processes of the application in it."""

    def __init__(self, environment, platform, folder, link=None, storage="memory", thingsboard=None, **load):
        """Write the configuration.

        Args:
            environment: The folder of the environment.
            platform: The platform that the tests look at.
            folder: An empty folder.
            link: Has ``host`` and ``port`` to connect to; ``None`` for those of the platform.
            storage: A key of ``STORAGES``.
            thingsboard: Options of the section ``thingsboard`` of the configuration; ``None`` as a value removes one.
            **load: Options of the connector.
        """
        server = link or platform
        self._platform = platform
        self.folder = folder
        self.config = folder / "config"
        self.config.mkdir()
        (folder / "logs").mkdir()
        shutil.copy(package_in(environment) / "config" / "logs.json", self.config)
        options = {
            "host": server.host,
            "port": server.port,
            "security": {"type": "accessToken", "accessToken": "GATEWAY"},
            "qos": 1,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False},
            "handleDeviceRenaming": True,
        } | (thingsboard or {})
        self._gateway = {
            "thingsboard": {name: value for name, value in options.items() if value is not None},
            "storage": STORAGES[storage],
            "grpc": {"enabled": False},
            "connectors": [{"type": "load", "name": "Load", "class": "LoadConnector", "configuration": "load.json"}],
        }
        self.load = {"name": "Load", "id": "load", "devices": DEVICES, "keys": KEYS, "rounds": ROUNDS, "pause": 0.05} | load
        self._environment = environment
        self._output = folder / "output.txt"
        self._process = None

    def start(self, **environment):
        """Start the application, with additional variables of the environment."""
        (self.config / "tb_gateway.json").write_text(json.dumps(self._gateway))
        (self.config / "load.json").write_text(json.dumps(self.load))
        with self._output.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", INTERRUPTIBLE, self._environment / "bin/thingsboard-gateway"],
                cwd=self.folder,
                env={**os.environ, "TB_GW_CONFIG_DIR": str(self.config), "PYTHONPATH": "", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def wait_until(self, condition):
        """Wait until something is true on the platform."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            # Not everything that tests wait for is an event of the platform.
            self._platform.wait_for_event(0.5)

    def interrupt(self):
        """Press Ctrl-C, and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(STOP_SECONDS)

    def kill(self):
        self._process.kill()
        self._process.wait()

    @property
    def pid(self):
        return self._process.pid

    @property
    def exit_code(self):
        """The exit code, or None while the application runs."""
        return self._process.poll()

    @property
    def output(self):
        return self._output.read_text()

    # What the connector sends.

    @property
    def names(self):
        return [f"load {number}" for number in range(self.load["devices"])]

    @property
    def expected(self):
        """The telemetry of each device: time, key and value."""
        rounds, keys = range(1, self.load["rounds"] + 1), range(self.load["keys"])
        return {(FIRST_TS + number, f"key{key}", number * 100 + key) for number in rounds for key in keys}


def datapoints(platform, application):
    """Return the telemetry that the platform has of each device."""
    return {name: platform.stored(name) for name in application.names if name in platform.emulator.devices}


def count(platform, application):
    counts = platform.counts()
    return sum(counts.get(name, 0) for name in application.names)


def has_everything(platform, application, names=None):
    names, counts, needed = names or application.names, platform.counts(), len(application.expected)
    # Most looks end here: reading all datapoints takes much longer.
    if any(counts.get(name, 0) < needed for name in names):
        return False
    found = datapoints(platform, application)
    return set(names) <= found.keys() and all(set(found[name]) >= application.expected for name in names)


def doubled(platform, application):
    """Return how many datapoints arrived more than once."""
    return sum(len(points) - len(set(points)) for points in datapoints(platform, application).values())
