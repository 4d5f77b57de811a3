"""A real broker for tests and benchmarks: Debian's Mosquitto on loopback, in clear and over TLS.

Mosquitto is no stand-in for the platform (it routes, the platform does not); it is the judge of what we say in MQTT.
"""

import os
import random
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

HOST = "127.0.0.1"
START_SECONDS = 10.0
STOP_SECONDS = 5.0
PORTS = 10_000, 32_768
"""Linux assigns ports from 32,768 on, other systems from 49,152 on, to every socket that asks for none."""
CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05start"
"""MQTT 3.1.1, a clean session, the client id "start"."""
INSTALL_COMMAND = "apt-get install -y mosquitto"


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, a server and a client that it signed, and a stranger that it did not."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    stranger_cert: Path
    stranger_key: Path

    def client_context(self, *, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """What a client uses that trusts this authority, and shows `cert` when one is given."""
        context = ssl.create_default_context(cafile=self.ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
        return context


@dataclass
class Mosquitto:
    """One broker process with three listeners; `stop` and `start` keep the ports, so that a client can reconnect."""

    folder: Path
    certificates: Certificates
    host: str = HOST
    port: int = 0
    tls_port: int = 0
    """Shows a server certificate and asks the client for none."""
    mtls_port: int = 0
    """Refuses clients without a certificate of the authority."""
    options: str = ""
    """More lines of its configuration, from its next start on."""
    log_type: str = "all"
    """What it logs, from its next start on."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        path = self.folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, "this broker is running"
        config = self.folder / "mosquitto.conf"
        config.write_text(self._config())
        command = [_executable(), "-c", str(config)]
        if shutil.which("setpriv"):
            # A test run that is killed takes its broker along.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            for port in (self.port, self.tls_port, self.mtls_port):
                self._await_port(port)
            self._await_connack()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; clients see their connection closed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the process without giving it time for anything."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _await_port(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise BrokerDidNotStart(f"mosquitto ended at once; its log:\n{self.log}")
            with suppress(OSError), socket.create_connection((self.host, port), timeout=1):
                return
            time.sleep(0.01)
        raise BrokerDidNotStart(f"mosquitto did not open port {port} in {START_SECONDS:g} s; its log:\n{self.log}")

    def _await_connack(self) -> None:
        """Wait until the broker serves: the kernel accepts connections before that, and a SIGTERM before that may be lost."""
        with socket.create_connection((self.host, self.port), timeout=START_SECONDS) as connection:
            connection.sendall(CONNECT)
            if connection.recv(4)[:1] != b"\x20":
                raise BrokerDidNotStart(f"mosquitto closed a connection without a CONNACK; its log:\n{self.log}")

    def _config(self) -> str:
        certificates = self.certificates
        tls = f"cafile {certificates.ca}\ncertfile {certificates.server_cert}\nkeyfile {certificates.server_key}\n"
        # Started by root it would become the user "mosquitto", who may not read pytest's folders.
        user = "user root\n" if os.geteuid() == 0 else ""
        return (
            f"{user}{self.options}"
            "per_listener_settings true\n"
            f"log_dest stderr\nlog_type {self.log_type}\nlog_timestamp_format %H:%M:%S\n"
            f"listener {self.port} {self.host}\nallow_anonymous true\n"
            f"listener {self.tls_port} {self.host}\nallow_anonymous true\n{tls}"
            f"listener {self.mtls_port} {self.host}\nallow_anonymous true\n{tls}require_certificate true\n"
        )


class BrokerDidNotStart(Exception):
    """The text carries the broker's log."""


def _executable() -> str:
    # Debian keeps it in /usr/sbin, which is not on every user's PATH.
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.fail(f"these tests need the mosquitto broker: {INSTALL_COMMAND}", pytrace=False)
    return path


def _free_ports(count: int) -> list[int]:
    """Return ports below those that the kernel assigns: none is taken while a test has stopped its broker."""
    # Not the module's own generator: Hypothesis seeds it, alike in all processes.
    dice = random.SystemRandom()
    free: set[int] = set()
    while len(free) < count:
        port = dice.randrange(*PORTS)
        with suppress(OSError), socket.create_server((HOST, port)):
            free.add(port)
    return list(free)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def write(name: str, cert: trustme.LeafCert) -> tuple[Path, Path]:
        cert_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
        cert_path.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        key_path.write_bytes(cert.private_key_pem.bytes())
        return cert_path, key_path

    authority = trustme.CA()
    ca_path = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_path)
    return Certificates(
        ca_path,
        *write("server", authority.issue_cert(HOST, "localhost")),
        *write("client", authority.issue_cert("device@example.org", common_name="device")),
        *write("stranger", trustme.CA().issue_cert("stranger@example.org")),
    )


@pytest.fixture
def mosquitto(tmp_path: Path, certificates: Certificates) -> Iterator[Mosquitto]:
    """A broker of this test's own, on free ports."""
    _executable()
    attempts = 3
    for attempt in range(1, attempts + 1):
        broker = Mosquitto(tmp_path, certificates, HOST, *_free_ports(3))
        try:
            broker.start()
            break
        except BrokerDidNotStart:
            # Another process may have taken a port after it was found free.
            if attempt == attempts or "Address already in use" not in broker.log:
                raise
    try:
        yield broker
    finally:
        broker.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the broker saw."""
    report = yield
    broker = getattr(item, "funcargs", {}).get("mosquitto")
    if report.failed and broker is not None:
        report.sections.append(("mosquitto log", broker.log))
    return report
