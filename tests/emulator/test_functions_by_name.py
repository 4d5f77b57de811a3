"""Handlers by name on the wire: of a device, of sub-devices, and of the synchronous clients."""

import asyncio
import threading
from dataclasses import dataclass

import pytest
from device_peer import FAST

from tb_mqtt_client import AttributeUpdate, DeviceSession, GatewayRPCRequest, RPCRefusal, RPCRequest, sync


@dataclass
class Pump:
    speed: int
    name: str = "main"


async def test_rpc_requests_go_to_the_handlers_of_their_methods(emulator, device):
    @device.rpc("setValue", "set_value")
    async def set_value(value: int, unit: str = "C"):
        await asyncio.sleep(0)
        if value > 100:
            raise RPCRefusal("out of range")
        if value < 0:
            raise RPCRefusal({"code": 3})
        return [value, unit]

    @device.rpc()
    def pump(pump: Pump, request: RPCRequest):
        return [request.method, pump.speed, pump.name]

    assert await emulator.call_rpc("device", "setValue", {"value": 5}) == {"result": [5, "C"]}
    assert await emulator.call_rpc("device", "set_value", [5, "K"]) == {"result": [5, "K"]}
    assert await emulator.call_rpc("device", "pump", {"speed": 5}) == {"result": ["pump", 5, "main"]}
    assert await emulator.call_rpc("device", "setValue", 101) == {"error": "out of range"}
    assert await emulator.call_rpc("device", "setValue", -1) == {"error": {"code": 3}}
    assert await emulator.call_rpc("device", "setValue", "a") == {"error": "setValue: value must be an integer, not 'a'"}
    assert await emulator.call_rpc("device", "fly") == {
        "error": "There is no method 'fly'; the methods are pump, setValue, set_value"
    }
    assert device.statistics.callback_errors == 0


async def test_a_callback_gets_the_requests_without_a_handler(emulator, device):
    @device.rpc()
    def known():
        return "handler"

    device.set_rpc_request_callback(lambda request: f"callback for {request.method}")
    assert await emulator.call_rpc("device", "known") == {"result": "handler"}
    assert await emulator.call_rpc("device", "unknown") == {"result": "callback for unknown"}
    device.remove_handler(known)
    assert await emulator.call_rpc("device", "known") == {"result": "callback for known"}
    with pytest.raises(ValueError, match="is not a handler of this client"):
        device.remove_handler(known)


async def test_a_callback_may_refuse_a_request(emulator, device, caplog):
    def refuse(_request):
        raise RPCRefusal("not now")

    device.set_rpc_request_callback(refuse)
    assert await emulator.call_rpc("device", "m") == {"error": "not now"}
    assert device.statistics.callback_errors == 0
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_an_error_of_a_handler_is_the_response(emulator, device):
    @device.rpc("fail")
    def fail():
        raise LookupError("nothing there")

    error = (await emulator.call_rpc("device", "fail"))["error"]
    assert (error["type"], error["message"]) == ("LookupError", "nothing there")
    assert device.statistics.callback_errors == 1


async def test_attributes_go_to_their_handlers_and_all_updates_to_the_callback(emulator, device):
    arrived = asyncio.Queue()
    device.set_attribute_update_callback(lambda update: arrived.put_nowait(("callback", update.as_dict())))

    @device.on_attribute("interval", "mode")
    async def changed(interval: int = 10, mode: str | None = None):
        arrived.put_nowait(("changed", interval, mode))

    @device.on_attribute("mode")
    def mode_changed(update: AttributeUpdate):
        arrived.put_nowait(("mode", update.deleted_keys))

    await emulator.set_shared_attributes("device", {"interval": 5})
    await emulator.set_shared_attributes("device", {"interval": "a"})
    await emulator.set_shared_attributes("device", {"other": 1})
    await emulator.delete_shared_attributes("device", ["mode"])
    assert [await arrived.get() for _ in range(7)] == [
        ("callback", {"interval": 5}),
        ("changed", 5, None),
        ("callback", {"interval": "a"}),
        ("callback", {"other": 1}),
        ("callback", {}),
        ("changed", 10, None),
        ("mode", ["mode"]),
    ]
    assert device.statistics.inbound_malformed == 1


async def test_handlers_of_attributes_need_no_callback(emulator, device):
    arrived = asyncio.Queue()
    device.on_attribute("a")(arrived.put_nowait)
    await emulator.set_shared_attributes("device", {"a": 1})
    assert await arrived.get() == 1


# A gateway.


async def test_handlers_of_a_session_come_before_those_of_the_gateway(emulator, gateway):
    @gateway.rpc("state", devices="*")
    def of_all(session: DeviceSession, request: GatewayRPCRequest):
        return ["all", session.device_info.device_name, request.device_name]

    @gateway.rpc("state", devices="boiler 1")
    async def of_one():
        await asyncio.sleep(0)
        return "boiler 1"

    @gateway.rpc("heat", devices="boiler*")
    def heat(degrees: float):
        if degrees > 90:
            raise RPCRefusal("too hot")
        return degrees

    @gateway.rpc("state")
    def of_the_gateway():
        return "gateway"

    first, _ = await gateway.connect_device("boiler 1", wait_for_publish=True)
    pump, _ = await gateway.connect_device("pump", wait_for_publish=True)
    assert await emulator.call_rpc("gateway", "state") == {"result": "gateway"}
    assert await emulator.call_rpc("boiler 1", "state") == {"result": "boiler 1"}
    assert await emulator.call_rpc("pump", "state") == {"result": ["all", "pump", "pump"]}
    assert await emulator.call_rpc("boiler 1", "heat", {"degrees": 60}) == {"result": 60.0}
    assert await emulator.call_rpc("boiler 1", "heat", 91) == {"error": "too hot"}
    assert await emulator.call_rpc("pump", "heat", 60) == {"error": "There is no method 'heat'; the methods are state"}

    @first.rpc("state")
    def of_the_session(session: DeviceSession):
        return session is first

    assert await emulator.call_rpc("boiler 1", "state") == {"result": True}
    first.remove_handler(of_the_session)
    assert await emulator.call_rpc("boiler 1", "state") == {"result": "boiler 1"}
    gateway.remove_handler(of_one)
    assert await emulator.call_rpc("boiler 1", "state") == {"result": ["all", "boiler 1", "boiler 1"]}
    pump.set_rpc_request_callback(lambda _session, request: f"callback for {request.method}")
    assert await emulator.call_rpc("pump", "heat", 60) == {"result": "callback for heat"}
    assert await emulator.call_rpc("pump", "state") == {"result": ["all", "pump", "pump"]}
    with pytest.raises(ValueError, match="is not a handler of this session"):
        first.remove_handler(of_one)
    assert gateway.statistics.callback_errors == 0


async def test_a_renamed_device_keeps_its_handlers(emulator, gateway):
    @gateway.rpc("state", devices="old")
    def state():
        return "found"

    await gateway.connect_device("old", wait_for_publish=True)
    await emulator.rename_device("old", "new")
    assert await emulator.call_rpc("new", "state") == {"result": "found"}


async def test_attributes_of_sub_devices_go_to_all_handlers(emulator, gateway):
    arrived = asyncio.Queue()

    @gateway.on_attribute("interval", devices=["boiler*", "pump"])
    async def interval_changed(session: DeviceSession, seconds: int):
        arrived.put_nowait(("gateway", session.device_info.device_name, seconds))

    @gateway.on_attribute("interval")
    def own_interval(interval: int):
        arrived.put_nowait(("own", interval))

    first, _ = await gateway.connect_device("boiler 1", wait_for_publish=True)
    await gateway.connect_device("fan", wait_for_publish=True)
    first.set_attribute_update_callback(lambda _session, update: arrived.put_nowait(("callback", update.as_dict())))
    first.on_attribute("interval")(lambda value: arrived.put_nowait(("session", value)))
    await emulator.set_shared_attributes("fan", {"interval": 1})
    await emulator.set_shared_attributes("boiler 1", {"interval": 2})
    assert [await arrived.get() for _ in range(3)] == [
        ("callback", {"interval": 2}),
        ("session", 2),
        ("gateway", "boiler 1", 2),
    ]
    await emulator.set_shared_attributes("gateway", {"interval": 3})
    assert await arrived.get() == ("own", 3)
    await emulator.set_shared_attributes("boiler 1", {"interval": "a"})
    await emulator.set_shared_attributes("boiler 1", {"interval": 4})
    assert [(await arrived.get())[0] for _ in range(5)] == ["callback", "session", "callback", "session", "gateway"]
    assert gateway.statistics.inbound_malformed == 1


# Synchronous clients.


def test_a_coroutine_function_is_not_for_a_synchronous_client():
    async def handler(): ...

    with sync.GatewayClient({"host": "127.0.0.1", "connect_in_background": True}) as client:
        for decorate in (client.rpc("m"), client.on_attribute("a"), client.rpc("m", devices="*")):
            with pytest.raises(TypeError, match="must be a plain function"):
                decorate(handler)


async def test_handlers_of_synchronous_clients_run_in_the_thread_for_callbacks(emulator):
    arrived = asyncio.Queue()
    loop = asyncio.get_running_loop()
    options = FAST | {"host": emulator.host, "port": emulator.port}

    def put(*values):
        loop.call_soon_threadsafe(arrived.put_nowait, (threading.current_thread().name, *values))

    def program():
        return sync.DeviceClient(options | {"access_token": "TOKEN"}), sync.GatewayClient(options | {"access_token": "GATEWAY"})

    device, gateway = await asyncio.to_thread(program)

    @device.rpc("setValue")
    def set_value(value: int, request: RPCRequest):
        if value > 9:
            raise RPCRefusal("too much")
        return [threading.current_thread().name, value, request.method]

    @device.on_attribute("interval")
    def changed(interval: int):
        put(interval)

    @gateway.rpc("state", devices="*")
    def state(session: sync.DeviceSession):
        return [threading.current_thread().name, session.device_info.device_name]

    @gateway.on_attribute("interval", devices="*")
    def changed_of_sub_device(session: sync.DeviceSession, interval: int):
        put(session.device_info.device_name, interval)

    try:
        await asyncio.to_thread(device.connect)
        await asyncio.to_thread(gateway.connect)
        await asyncio.to_thread(gateway.connect_device, "D1", wait=True)
        assert await emulator.call_rpc("device", "setValue", {"value": 5}) == {"result": ["tb-mqtt callbacks", 5, "setValue"]}
        assert await emulator.call_rpc("device", "setValue", 10) == {"error": "too much"}
        assert await emulator.call_rpc("device", "no") == {"error": "There is no method 'no'; the methods are setValue"}
        assert await emulator.call_rpc("D1", "state") == {"result": ["tb-mqtt callbacks", "D1"]}
        await emulator.set_shared_attributes("device", {"interval": 7})
        assert await arrived.get() == ("tb-mqtt callbacks", 7)
        await emulator.set_shared_attributes("D1", {"interval": 8})
        assert await arrived.get() == ("tb-mqtt callbacks", "D1", 8)
        device.remove_handler(set_value)
        assert (await emulator.call_rpc("device", "setValue", 5))["error"] == "The device has no callback for RPC requests"
    finally:
        await asyncio.to_thread(device.stop)
        await asyncio.to_thread(gateway.stop)
