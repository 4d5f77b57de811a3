"""What the platform does while a program of the documentation runs, and what must have arrived there.

Every program finds an emulator at TB_HOST and TB_PORT with one device and one gateway, by the tokens that the documents show.
Whatever else happens is a scenario, named after the document and the heading under which the program stands.
"""

from contextlib import asynccontextmanager

from tb_mqtt_client.emulator import ClientRpcError, Emulator, OtaPackage

DEVICE_TOKEN = "DEVICE_TOKEN"
GATEWAY_TOKEN = "GATEWAY_TOKEN"
ENVIRONMENT = {"TB_ACCESS_TOKEN": DEVICE_TOKEN, "TB_GW_ACCESS_TOKEN": GATEWAY_TOKEN}


@asynccontextmanager
async def platform_for(block, folder):
    """An emulator for one program that runs in ``folder``, and the program's environment."""
    async with Emulator() as emulator:
        emulator.add_device(DEVICE_TOKEN, name="device")
        await emulator.set_shared_attributes("device", {"period": 5})
        await emulator.assign_package("device", OtaPackage("thermometer", "1.1", bytes(40_000)))
        emulator.on_client_rpc = answer
        emulator.add_gateway(GATEWAY_TOKEN, name="gateway")
        emulator.add_device("METER_TOKEN", name="meter 7", profile="meter")
        await emulator.set_shared_attributes("meter 7", {"tariff": "day"})
        yield emulator, {"TB_HOST": emulator.host, "TB_PORT": emulator.port, **ENVIRONMENT}


def answer(_device, method, _params):
    """The rule chain of this platform."""
    if method == "getCurrentTime":
        return {"time": 1_700_000_000_000}
    raise ClientRpcError("unknown method")


def telemetry(emulator, name):
    return {(point.key, point.value) for point in emulator.device(name).telemetry}


async def first_device(emulator, program):
    await program.end()
    assert telemetry(emulator, "device") == {("temperature", 21.5), ("humidity", 48)}


async def first_gateway(emulator, program):
    await program.end()
    assert emulator.device("meter 7").profile == "meter"
    assert telemetry(emulator, "meter 7") == {("kwh", 1204.7)}


async def shared_attributes(emulator, program):
    await program.printed("period: 5")
    assert await emulator.set_shared_attributes("device", {"period": 10})


async def server_side_rpc(emulator, program):
    await program.printed("ready")
    assert await emulator.call_rpc("device", "set_light", 1) == {"result": {"light": True}}
    assert (await emulator.call_rpc("device", "fly"))["error"]["type"] == "ValueError"
    await program.interrupt()


async def firmware(emulator, program):
    await program.end()
    device = emulator.device("device")
    assert [point.value for point in device.telemetry if point.key == "fw_state"][-1] == "UPDATED"


async def shared_attributes_of_a_sub_device(emulator, program):
    await program.printed("tariff: day")
    assert await emulator.set_shared_attributes("meter 7", {"tariff": "night"})


async def server_side_rpc_of_a_sub_device(emulator, program):
    await program.printed("ready")
    assert await emulator.call_rpc("relay 1", "set_relay", 1) == {"result": True}
    assert (await emulator.call_rpc("relay 1", "fly"))["error"]["type"] == "ValueError"
    await program.interrupt()


async def handlers_by_name(emulator, program):
    await program.printed("ready")
    for params in ({"value": 60}, [60], 60):
        assert await emulator.call_rpc("device", "setValue", params) == {"result": {"set": 60.0, "unit": "C"}}
    assert await emulator.call_rpc("device", "setValue", 95) == {"error": "out of range"}
    error = "setValue: value must be a number, not 'hot'"
    assert await emulator.call_rpc("device", "setValue", {"value": "hot"}) == {"error": error}
    assert await emulator.call_rpc("device", "wash", {"name": "wool"}) == {"result": "wool for 30 min"}
    error = "There is no method 'rinse'; the methods are setValue, wash"
    assert await emulator.call_rpc("device", "rinse") == {"error": error}
    assert await emulator.set_shared_attributes("device", {"interval": 5})
    await program.printed("interval: 5 mode: None")
    await program.interrupt()


async def handlers_of_sub_devices(emulator, program):
    await program.printed("ready")
    assert await emulator.call_rpc("boiler 2", "heat", 60) == {"result": "boiler 2: 60.0 degrees"}
    assert await emulator.call_rpc("boiler 2", "heat", 91) == {"error": "too hot"}
    assert await emulator.set_shared_attributes("boiler 1", {"interval": 5})
    await program.printed("boiler 1 every 5 s")
    await program.interrupt()


async def metadata(emulator, program):
    await program.end()
    [reported] = emulator.device("meter 7").metadata
    assert reported["connector"] == "modbus"


SCENARIOS = {
    ("README.md", "A device"): first_device,
    ("README.md", "A gateway"): first_gateway,
    ("devices.md", "Shared attributes"): shared_attributes,
    ("devices.md", "Server-side RPC"): server_side_rpc,
    ("devices.md", "Handlers by name"): handlers_by_name,
    ("devices.md", "Firmware and software"): firmware,
    ("gateways.md", "Shared attributes"): shared_attributes_of_a_sub_device,
    ("gateways.md", "Server-side RPC"): server_side_rpc_of_a_sub_device,
    ("gateways.md", "Handlers by name"): handlers_of_sub_devices,
    ("gateways.md", "Connector latency"): metadata,
}
