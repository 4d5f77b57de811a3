"""The command ``python -m tb_mqtt_client.emulator``: options, output, console commands and exit codes."""

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
from tb_mqtt_client.emulator.console import EventPrinter, printable


class Address:
    def __init__(self, host, port):
        self.host, self.port = host, int(port)


@asynccontextmanager
async def command(*arguments, stdin=asyncio.subprocess.DEVNULL):
    """Run the command and yield its process, its first line of output and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "tb_mqtt_client.emulator", "--port", "0", *arguments,
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
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
async def test_serves_until_a_signal_stops_it(number):
    async with command("--device", "TOKEN=thermometer", "--gateway", "GATEWAY", "--server-version", "4.2", "--quiet") as (
        process,
        first,
        at,
    ):
        assert first.rstrip().endswith("as version 4.2")
        assert await process.stdout.readline() == b"  device 'thermometer', access token 'TOKEN'\n"
        assert await process.stdout.readline() == b"  gateway 'GATEWAY', access token 'GATEWAY'\n"
        async with raw_client(at) as client:
            assert (await client.connect("GATEWAY"))[1][1] == 0
            client.publish("v1/gateway/telemetry", '{"A":[{"a":1}]}')
            assert await client.read() == (0x40, b"\0\x01")
            process.send_signal(number)
            assert await client.read() is None
        assert await process.stdout.readline() == b"Stopped after 1 session and 1 datapoint\n"
        assert await process.wait() == 0


async def test_limits_and_provisioning():
    options = ["--messages", "2:1000000", "--gateway-telemetry-datapoints", "5:1,60:60", "--provision", "key:secret", "--any-token"]
    async with command(*options) as (process, _, at):
        lines = [(await process.stdout.readline()).decode().strip() for _ in range(4)]
        assert lines == [
            "every other access token creates a device",
            "devices may provision themselves with the provision key 'key'",
            "limit for devices and gateways: messages 2:1000000, enforced",
            "limit for the sub-devices of a gateway: telemetryDataPoints 5:1,60:60, enforced",
        ]
        async with raw_client(at) as client:
            await client.connect("provision")
            keys = {"provisionDeviceKey": "key", "provisionDeviceSecret": "secret"}
            assert (await client.request("/provision/request", keys))[1]["status"] == "SUCCESS"
        async with raw_client(at) as client:
            await client.connect("anything")
            for reply in [(0x40, b"\0\x01"), (0xE0, b"\x83\0")]:
                client.publish("v1/devices/me/claim", "")
                assert await client.read() == reply


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
def test_exits_with_2_if_it_cannot_start(capsys, arguments, message):
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
def test_invalid_options_are_rejected(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_the_error_names_a_port_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    assert str(port) in capsys.readouterr().err


def test_help_lists_the_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    output = capsys.readouterr().out
    for option in ("--device", "--provision", "--gateway-telemetry-datapoints", "--tls-client-ca", "--server-version", "Ctrl-C"):
        assert option in output


# Printed events and console commands.


async def read(process, count=1):
    return [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(count)]


async def test_prints_connections_and_publishes():
    async with command("--device", "TOKEN=thermometer", "--gateway", "GATEWAY") as (process, _, at):
        await read(process, 2)
        async with raw_client(at, 4) as client:
            assert (await client.connect("wrong", client_id="me"))[1][1] == 5
        async with raw_client(at) as client:
            await client.connect()
            client.publish("v1/devices/me/telemetry", b'{"text":"\x1b[31m\xc3\xa4\xff"}')
            client.publish("v1/gateway/telemetry", "{}")
            await client.read()
        async with raw_client(at, 4) as client:
            await client.connect("GATEWAY")
            client.publish("v1/gateway/connect", '{"device":"A"}')
            await client.read()
        assert await read(process, 10) == [
            "refused a connection with 0x86: client id 'me', user name 'wrong'",
            "thermometer connected with MQTT 5",
            'thermometer -> v1/devices/me/telemetry {"text":"\\x1b[31m\u00e4\\xff"}',
            "thermometer -> v1/gateway/telemetry {}",
            "thermometer is not a gateway: its message on v1/gateway/telemetry is dropped, not acknowledged",
            "thermometer disconnected",
            "GATEWAY connected with MQTT 3.1.1",
            'GATEWAY -> v1/gateway/connect {"device":"A"}',
            "A connected through GATEWAY",
            "GATEWAY disconnected",
        ]


async def test_commands():
    options = ["--device", "TOKEN=my thermometer", "--quiet"]
    async with command(*options, stdin=asyncio.subprocess.PIPE) as (process, _, at), raw_client(at) as client:
        await read(process)

        async def typed(line):
            process.stdin.write(line.encode() + b"\n")
            await process.stdin.drain()

        await typed('set TOKEN {"early": true}')
        not_sent = "TOKEN: 1 shared attribute set, update not sent: the device is not connected or not subscribed"
        assert await read(process) == [not_sent]
        await client.connect()
        await client.subscribe("v1/devices/me/attributes", "v1/devices/me/rpc/request/+")
        await typed("set 'my thermometer' target=21.5 mode=eco name='two words'")
        assert await client.message() == ("v1/devices/me/attributes", {"target": 21.5, "mode": "eco", "name": "two words"})
        await typed('delete "my thermometer" mode name')
        assert await client.message() == ("v1/devices/me/attributes", {"deleted": ["mode", "name"]})
        assert await read(process, 2) == [
            "my thermometer: 3 shared attributes set, update sent",
            "my thermometer: 2 shared attributes deleted, update sent",
        ]
        await typed('rpc TOKEN heat {"on": true}')
        assert await client.message() == ("v1/devices/me/rpc/request/0", {"method": "heat", "params": {"on": True}})
        client.publish("v1/devices/me/rpc/response/0", '{"done":"\u00e4"}')
        assert await read(process) == ['TOKEN replied to heat: {"done": "\u00e4"}']
        await typed("devices")
        assert await read(process) == ["my thermometer: connected, 0 datapoints"]
        await typed("help")
        assert (await read(process))[0] == "commands:"
        # The emulator keeps serving at the end of the input.
        process.stdin.close()
        await client.read()
        assert await client.silent()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("reboot TOKEN", "error: unknown command 'reboot'; type help for a list"),
        ("rpc TOKEN", "error: usage: rpc DEVICE METHOD [PARAMS]"),
        ("rpc TOKEN m {", "error: PARAMS '{' is not valid JSON:"),
        ("rpc other m", "error: there is no device 'other'; devices: 'TOKEN'"),
        ("set TOKEN", "error: usage: set DEVICE KEY=VALUE ..."),
        ("set TOKEN key", "error: 'key' is not KEY=VALUE"),
        ("set TOKEN a='", 'error: "a=\'" cannot be parsed: No closing quotation'),
        ("set TOKEN {1}", "error: '{1}' is not valid JSON:"),
        ("delete TOKEN", "error: usage: delete DEVICE KEY ..."),
    ],
)
async def test_commands_that_fail(tmp_path, line, error):
    """Report the error and execute the next command; standard input may also be a file."""
    commands = tmp_path / "commands"
    commands.write_text(f"{line}\n\ndevices")
    with commands.open("rb") as stdin:
        async with command("--device", "TOKEN", stdin=stdin) as (process, _, at):
            _, failed, devices = await read(process, 3)
            assert failed.startswith(error)
            assert devices == "TOKEN: not connected, 0 datapoints"
            async with raw_client(at) as client:
                assert (await client.connect())[1][1] == 0


async def test_at_most_50_events_per_second_are_printed():
    lines = []
    printer = EventPrinter(lines.append)
    for number in range(1234):
        printer(str(number))
    assert lines == [str(number) for number in range(50)]
    printer.close()
    assert lines[50:] == ["... and 1,184 more lines"]


def test_long_text_is_cut():
    assert printable("a\tb\u202ec") == "a\\tb\\u202ec"
    assert printable("x" * 1000) == "x" * 500 + "... (1,000 characters)"
