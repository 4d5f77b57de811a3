"""Programs of other kinds with a server: those with a store, synchronous ones, those for SDK 1.x, and tables."""

import asyncio
import os
import signal
import sys

import pyarrow as pa

from tb_mqtt_client import DeviceClient, GatewayClient, RPCRefusal
from tb_mqtt_client.sync import DeviceClient as SyncDeviceClient

TS = 1_700_000_000_000


async def run(*arguments, env=None):
    """Run a Python program, and return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=os.environ | (env or {}), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


# Stores.

STORES_AND_DIES = """
import asyncio, os, signal, sys
from tb_mqtt_client import DeviceClient

async def main():
    host, port, token, path = sys.argv[1:]
    store = {"path": path, "durability": "always"}
    client = DeviceClient({"host": host, "port": int(port), "access_token": token, "store": store})
    await client.start()
    for number in range(500):
        await client.send_timeseries({"ts": 1_700_000_000_000 + number, "values": {"a": number}}, wait_for_publish=False)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_data_of_a_program_that_was_killed_arrives(tenant, address, device, eventually, tmp_path):
    path = str(tmp_path / "store")
    code, output = await run("-c", STORES_AND_DIES, address["host"], str(address["port"]), device.token, path)
    assert (code, output) == (-signal.SIGKILL, "")
    async with DeviceClient(address | {"access_token": device.token, "store": path}):
        await eventually(lambda: tenant.count(device.id, ["a"], start=TS, end=TS + 500), 500)


async def test_a_backlog_of_sub_devices_is_delivered(tenant, address, gateway_device, eventually, tmp_path):
    options = address | {"access_token": gateway_device.token, "store": str(tmp_path / "store")}
    names = [tenant.name("meter") for _ in range(5)]
    offline = GatewayClient(options | {"connect_in_background": True})
    await offline.start()
    sessions = [(await offline.connect_device(name))[0] for name in names]
    for number in range(100):
        for session in sessions:
            await offline.send_device_timeseries(session, {"ts": TS + number, "values": {"a": number}}, wait_for_publish=False)
    await offline.stop(timeout=0)
    async with GatewayClient(options):
        for name in names:
            made = await tenant.until_device(name)
            await eventually(lambda made=made: tenant.count(made.id, ["a"], start=TS, end=TS + 100), 100)


# Threads.


async def test_a_synchronous_client(tenant, address, device, eventually):
    def program():
        with SyncDeviceClient(address | {"access_token": device.token}) as client:
            results = [client.send_timeseries({"ts": TS + number, "values": {"a": number}}, wait=False) for number in range(1000)]
            return all(result.result(60).is_successful() for result in results), client.send_attributes({"b": 1}).is_successful()

    assert await asyncio.to_thread(program) == (True, True)
    await eventually(lambda: tenant.count(device.id, ["a"], start=TS, end=TS + 1000), 1000)
    await eventually(lambda: tenant.attributes(device.id), {"b": 1})


ONE_X = """
import sys
from tb_gateway_mqtt import TBGatewayMqttClient

host, port, token, *names = sys.argv[1:]
gateway = TBGatewayMqttClient(host, int(port), token)
gateway.connect()
for name in names:
    gateway.gw_connect_device(name)
infos = []
for number in range(200):
    for name in names:
        infos.append(gateway.gw_send_telemetry(name, [{"ts": 1_700_000_000_000 + number, "values": {"a": number, "b": "x"}}]))
for name in names:
    infos.append(gateway.gw_send_attributes(name, {"model": "one"}))
assert all(info.get() == 0 for info in infos)
gateway.disconnect()
"""


async def test_a_program_for_sdk_1x(tenant, address, gateway_device, eventually):
    names = [tenant.name("meter") for _ in range(3)]
    code, output = await run("-c", ONE_X, address["host"], str(address["port"]), gateway_device.token, *names)
    assert code == 0, output
    for name in names:
        made = await tenant.until_device(name)
        await eventually(lambda made=made: tenant.count(made.id, ["a"], start=TS, end=TS + 200), 200)
        await eventually(lambda made=made: tenant.attributes(made.id), {"model": "one"})


# Tables.


async def test_a_table_of_sub_devices(tenant, gateway, eventually):
    names = [tenant.name("meter") for _ in range(4)]
    rows = 2000
    table = pa.table(
        {
            "time": pa.array([TS + row for row in range(rows)], pa.timestamp("ms", tz="UTC")),
            "meter": [names[row % len(names)] for row in range(rows)],
            "power": [row / 8 for row in range(rows)],
            "state": ["on" if row % 3 else None for row in range(rows)],
        }
    )
    result = await gateway.send_table(table, ts="time", device="meter")
    assert result.is_successful()
    made = await tenant.until_device(names[0])
    await eventually(lambda: tenant.count(made.id, ["power"], start=TS, end=TS + rows), rows // 4)
    expected = sum(1 for row in range(0, rows, 4) if row % 3)
    await eventually(lambda: tenant.count(made.id, ["state"], start=TS, end=TS + rows), expected)


# Handlers.


async def test_handlers_by_name(tenant, address, device, eventually):
    client = DeviceClient(address | {"access_token": device.token})
    found = asyncio.Event()

    @client.rpc("setInterval")
    def set_interval(seconds: float) -> dict[str, float]:
        if seconds <= 0:
            raise RPCRefusal("out of range")
        return {"interval": seconds}

    @client.on_attribute("interval")
    def interval_changed(value: int) -> None:
        assert value == 7
        found.set()

    async with client:
        assert await tenant.rpc(device.id, "setInterval", {"seconds": 5}) == {"result": {"interval": 5}}
        assert "out of range" in str(await tenant.rpc(device.id, "setInterval", {"seconds": -1}))
        assert "setInterval" in str(await tenant.rpc(device.id, "setIntervall", {"seconds": 1}))
        await tenant.set_shared(device.id, {"interval": 7})
        async with asyncio.timeout(60):
            await found.wait()


async def test_the_platform_stamps_the_arrival(tenant, address, device, eventually):
    async with DeviceClient(address | {"access_token": device.token, "timestamps": "server"}) as client:
        assert (await client.send_timeseries({"a": 1})).is_successful()

    async def value():
        # The platform acknowledges a value before it can be read.
        return (await tenant.latest(device.id)).get("a", (None, None))[1]

    await eventually(value, 1)
