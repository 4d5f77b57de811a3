"""``python -m tb_mqtt_client.emulator``: what it serves, what it says, how it ends."""

import asyncio
import re
import signal
import socket
import ssl
import sys
from contextlib import asynccontextmanager

import pytest
import trustme
from raw_mqtt import RawClient, raw_client

from tb_mqtt_client.emulator.__main__ import main


class Address:
    def __init__(self, host, port):
        self.host, self.port = host, int(port)


@asynccontextmanager
async def command(*arguments):
    """Run it; give its process, what it said at its start, and where it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "tb_mqtt_client.emulator", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            first = (await process.stdout.readline()).decode()
            yield process, first, Address(*re.search(r"://(.*):(\d+)", first).groups())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_it_is_stopped(number):
    async with command("--device", "TOKEN=thermometer", "--gateway", "GATEWAY", "--server-version", "4.2") as (process, first, at):
        assert first.rstrip().endswith("as version 4.2")
        assert await process.stdout.readline() == b"  device 'thermometer', access token 'TOKEN'\n"
        assert await process.stdout.readline() == b"  gateway 'GATEWAY', access token 'GATEWAY'\n"
        async with raw_client(at) as client:
            assert (await client.connect("GATEWAY"))[1][1] == 0
            client.publish("v1/gateway/telemetry", '{"A":[{"a":1}]}')
            assert await client.read() == (0x40, b"\0\x01")
            process.send_signal(number)
            assert await client.read() is None
        assert await process.stdout.readline() == b"Stopped after 1 sessions and 1 datapoints\n"
        assert await process.wait() == 0


async def test_limits_and_provisioning():
    options = ["--messages", "2:1000000", "--gateway-telemetry-datapoints", "5:1,60:60", "--provision", "key:secret", "--any-token"]
    async with command(*options) as (process, _, at):
        lines = [(await process.stdout.readline()).decode().strip() for _ in range(4)]
        assert lines == [
            "a device for every other access token",
            "devices that register themselves with the provision key 'key'",
            "limit of devices and gateways: messages 2:1000000, enforced",
            "limit of devices behind a gateway: telemetryDataPoints 5:1,60:60, enforced",
        ]
        async with raw_client(at) as client:
            await client.connect("provision")
            keys = {"provisionDeviceKey": "key", "provisionDeviceSecret": "secret"}
            assert (await client.request("/provision/request", keys))[1]["status"] == "SUCCESS"
        async with raw_client(at) as client:
            await client.connect("anything")
            for answer in [(0x40, b"\0\x01"), (0xE0, b"\x83\0")]:
                client.publish("v1/devices/me/claim", "")
                assert await client.read() == answer


async def test_tls(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = ["--tls-certificate", str(tmp_path / "server.pem"), "--tls-client-ca", str(tmp_path / "ca.pem"), "--device", "TOKEN"]
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    async with command(*options) as (_, first, at):
        assert first.startswith("Listening on mqtts://")
        async with raw_client(at, ssl=context) as client:
            assert isinstance(client, RawClient)
            assert (await client.connect())[1][1] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--messages", "many"], "'many' is not a rate limit"),
        (["--device", "A", "--device", "A"], "already in use"),
        (["--tls-certificate", "/nonexistent.pem"], "--tls-certificate: /nonexistent.pem"),
        (["--tls-certificate", __file__], f"--tls-certificate: {__file__}"),
    ],
)
def test_what_cannot_be_served(capsys, arguments, message):
    assert main(["--port", "0", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--provision", "key"],
        ["--provision", "k:s:WRONG"],
        ["--server-version", "5"],
        ["--port", "x"],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--max-payload-size", "0"],
        ["--max-devices", "-1"],
        ["--history", "-1"],
        ["--tls-key", "key.pem"],
        ["--tls-client-ca", "ca.pem"],
    ],
)
def test_arguments_that_are_none(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    assert str(port) in capsys.readouterr().err


def test_help_tells_all(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    for option in ("--device", "--provision", "--gateway-telemetry-datapoints", "--tls-client-ca", "--server-version", "Ctrl-C"):
        assert option in told
