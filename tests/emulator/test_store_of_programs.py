"""Programs for the synchronous clients and for SDK 1.x that are killed: all that their store has arrives after a restart."""

import asyncio
import os
import signal
import sys

import pytest

from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.service.store.contents import StoreContents

SENDS = 30
SECONDS = 120
TELEMETRY = {"v1/devices/me/telemetry", "v1/gateway/telemetry"}

SYNCHRONOUS = """
import sys
from tb_mqtt_client.sync import DeviceClient, GatewayClient

kind, host, port, store, sends = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
token = "GATEWAY" if kind == "gateway" else "TOKEN"
options = {"host": host, "port": port, "access_token": token}
options["store"] = {"path": store, "durability": "always", "min_free": 0}
client = (GatewayClient if kind == "gateway" else DeviceClient)(options)
client.connect()
if sends and kind == "gateway":
    meter, _ = client.connect_device("meter")
number = 0
while sends:
    data = {f"k{number:03}": number}
    client.send_device_timeseries(meter, data, wait=False) if kind == "gateway" else client.send_timeseries(data, wait=False)
    # It is on disk.
    print(f"k{number:03}", flush=True)
    number += 1
client.stop()
"""
ONE_X = """
import sys
from tb_device_mqtt import TBDeviceMqttClient
from tb_gateway_mqtt import TBGatewayMqttClient

kind, host, port, store, sends = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
token = "GATEWAY" if kind == "gateway" else "TOKEN"
client = (TBGatewayMqttClient if kind == "gateway" else TBDeviceMqttClient)(host, port, token)
client.connect(min_reconnect_delay=0.01)
if sends and kind == "gateway":
    client.gw_connect_device("meter")
for number in range(sends):
    data = {f"k{number:03}": number}
    client.gw_send_telemetry("meter", data) if kind == "gateway" else client.send_telemetry(data)
print("sent", flush=True)
sys.stdin.readline()
client.disconnect()
"""


@pytest.fixture
async def run(emulator, tmp_path):
    """Return a function that starts a program with a store."""
    started = []

    async def run(program, kind, sends):
        queue = str(tmp_path / "queue")
        arguments = [sys.executable, "-c", program, kind, emulator.host, str(emulator.port), queue, str(sends)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TB_STORE": queue}
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        started.append(await asyncio.create_subprocess_exec(*arguments, **pipes, env=environment))
        return started[-1]

    async with asyncio.timeout(SECONDS):
        yield run
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def arrived(emulator, kind):
    """Return the keys that have arrived, each as often as it did."""
    device = emulator.devices.get("meter" if kind == "gateway" else "device")
    return [] if device is None else sorted(point.key for point in device.telemetry)


def stored_keys(path):
    with StoreContents(str(path)) as contents:
        sends = [send for batch in contents.batches(attributes=False) for send in batch]
    return sorted(key for send in sends for record in send.timeseries() for key in record.values)


async def killed(process):
    """Kill a program, and return the rest of its output."""
    process.send_signal(signal.SIGKILL)
    rest, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return rest.decode().split()


def lose_telemetry(publish):
    return Verdict.ignore(store=False) if publish.topic in TELEMETRY else None


async def test_synchronous_clients(emulator, run, tmp_path):
    """With "always", everything that a send has returned for, wherever the program was when it was killed."""
    kind = "gateway"
    emulator.on_publish = lose_telemetry
    first = await run(SYNCHRONOUS, kind, 1)
    returned = [(await first.stdout.readline()).decode().strip() for _ in range(SENDS)]
    returned += await killed(first)
    kept = stored_keys(tmp_path / "queue")
    assert set(returned) <= set(kept)
    # The last send may have been written without returning.
    assert len(kept) <= len(returned) + 1
    emulator.on_publish = None
    second = await run(SYNCHRONOUS, kind, 0)
    assert await second.wait() == 0
    assert arrived(emulator, kind) == kept
    assert stored_keys(tmp_path / "queue") == []


@pytest.mark.parametrize("kind", ["device", "gateway"])
async def test_sdk_1_x(emulator, run, tmp_path, kind):
    emulator.on_publish = lose_telemetry
    first = await run(ONE_X, kind, SENDS)
    assert await first.stdout.readline() == b"sent\n"
    expected = [f"k{number:03}" for number in range(SENDS)]
    while stored_keys(tmp_path / "queue") != expected:  # noqa: ASYNC110  # its commit follows within 20 ms
        await asyncio.sleep(0.01)
    assert await killed(first) == []
    emulator.on_publish = None
    second = await run(ONE_X, kind, 0)
    assert await second.stdout.readline() == b"sent\n"
    while arrived(emulator, kind) != expected:  # noqa: ASYNC110  # there is no event for that
        await asyncio.sleep(0.01)
    second.stdin.close()
    assert await second.wait() == 0
    assert arrived(emulator, kind) == expected
    assert stored_keys(tmp_path / "queue") == []
