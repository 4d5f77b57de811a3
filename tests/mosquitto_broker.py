"""A real broker for tests and benchmarks: Debian's Mosquitto on loopback, without and with TLS.

Mosquitto does not replace the emulator, since it routes messages and the platform does not. It checks that the client speaks
correct MQTT.
"""

import os
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

from network_peers import free_ports

HOST = "127.0.0.1"
START_SECONDS = 10.0
STOP_SECONDS = 5.0
CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05start"
"""MQTT 3.1.1, a clean session, the client id "start"."""
INSTALL_COMMAND = "apt-get install -y mosquitto"


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, server and client certificates of it, and a certificate of another authority."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    stranger_cert: Path
    stranger_key: Path

    def client_context(self, *, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """Return a context that trusts this authority and presents `cert`, if given."""
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
    """Lines that the next start adds at the beginning of the configuration."""
    plain_options: str = ""
    """Lines that the next start adds to the configuration of the listener without TLS."""
    log_type: str = "all"
    """The kinds of log lines from the next start on."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """Return the log of all starts."""
        path = self.folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        """Return True while the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, "this broker is running"
        config = self.folder / "mosquitto.conf"
        config.write_text(self._config())
        command = [_executable(), "-c", str(config)]
        if shutil.which("setpriv"):
            # The broker ends with a test run that is killed.
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

    @property
    def pid(self) -> int:
        """Return the process id of the running broker."""
        assert self._process is not None, "this broker is not running"
        return self._process.pid

    def stop(self) -> None:
        """Terminate the process; the broker closes the connections of clients."""
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
        """Kill the process, without a chance to close connections."""
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
        """Wait for a CONNACK: the kernel accepts connections before the broker is ready, and a SIGTERM before that may be lost."""
        with socket.create_connection((self.host, self.port), timeout=START_SECONDS) as connection:
            connection.sendall(CONNECT)
            if connection.recv(4)[:1] != b"\x20":
                raise BrokerDidNotStart(f"mosquitto closed a connection without a CONNACK; its log:\n{self.log}")

    def _config(self) -> str:
        certificates = self.certificates
        tls = f"cafile {certificates.ca}\ncertfile {certificates.server_cert}\nkeyfile {certificates.server_key}\n"
        # If root starts it, it would become the user "mosquitto", which cannot read the folders of pytest.
        user = "user root\n" if os.geteuid() == 0 else ""
        return (
            f"{user}{self.options}"
            "per_listener_settings true\n"
            f"log_dest stderr\nlog_type {self.log_type}\nlog_timestamp_format %H:%M:%S\n"
            f"listener {self.port} {self.host}\nallow_anonymous true\n{self.plain_options}"
            f"listener {self.tls_port} {self.host}\nallow_anonymous true\n{tls}"
            f"listener {self.mtls_port} {self.host}\nallow_anonymous true\n{tls}require_certificate true\n"
        )


class BrokerDidNotStart(Exception):
    """The broker did not start; the message contains its log."""


def _executable() -> str:
    # Debian installs it in /usr/sbin, which is not on the PATH of every user.
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.fail(f"these tests need the mosquitto broker: {INSTALL_COMMAND}", pytrace=False)
    return path


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
    """Start a broker for one test, on free ports."""
    _executable()
    attempts = 3
    for attempt in range(1, attempts + 1):
        broker = Mosquitto(tmp_path, certificates, HOST, *free_ports(3))
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
    """Add the log of the broker to the report of a failed test."""
    report = yield
    broker = getattr(item, "funcargs", {}).get("mosquitto")
    if report.failed and broker is not None:
        report.sections.append(("mosquitto log", broker.log))
    return report
