"""Server-side and client-side RPC in the emulator (docs/platform_contract.md, sections 2 and 4)."""

import asyncio
import json

import pytest
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import ClientRpcError, Emulator

RPC = "v1/devices/me/rpc/request/+"


async def begin(call):
    """Start `call` in a task, and return when the request is sent."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize(
    ("subscription", "request_prefix", "response_prefix"),
    [
        (RPC, "v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"),
        ("v2/r/req/+", "v2/r/req/", "v2/r/res/"),
        ("v2/r/req/j/+", "v2/r/req/j/", "v2/r/res/j/"),
    ],
)
async def test_server_side_rpc_to_a_device(emulator, subscription, request_prefix, response_prefix):
    """Section 2: request ids start at 0, params may be null, and the reply may be any text."""
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(subscription)
        for number, (params, payload, reply) in enumerate([(None, '{"a":1}', {"a": 1}), ([2], "no JSON", "no JSON")]):
            call = await begin(emulator.call_rpc("device", "m", params))
            assert await client.message() == (f"{request_prefix}{number}", {"method": "m", "params": params})
            client.publish(f"{response_prefix}{number}", payload)
            await client.read()
            assert await call == reply
    assert emulator.rpc_responses("device") == [(0, b'{"a":1}'), (1, b"no JSON")]


async def test_server_side_rpc_to_sub_devices(emulator):
    """Section 4: each device has its own ids, the reply is in `data`, and a sub-device needs no subscription of its own."""
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        for name in "AB":
            client.publish("v1/gateway/connect", json.dumps({"device": name}))
            await client.read()
        for name in "AB":
            call = await begin(emulator.call_rpc(name, "m", {"p": 1}))
            request = {"device": name, "data": {"id": 0, "method": "m", "params": {"p": 1}}}
            assert await client.message() == ("v1/gateway/rpc", request)
            client.publish("v1/gateway/rpc", json.dumps({"device": name, "id": 0, "data": {"done": True}}))
            await client.read()
            assert await call == {"done": True}
    assert emulator.rpc_responses("A") == [(0, b'{"done":true}')]


@pytest.mark.parametrize(
    "payload", ['{"device":"A","id":0}', '{"device":"A","data":1}', '{"id":0,"data":1}', '{"device":"A","id":"0","data":1}']
)
async def test_an_incomplete_reply_of_a_gateway(emulator, payload):
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/rpc", payload)
        assert await client.read() == (0x40, b"\0\x01\x83\0")
        assert await client.read() == (0xE0, b"\x83\0")


async def test_a_one_way_request_ends_when_it_is_sent(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(RPC)
        assert await emulator.call_rpc("device", "m", oneway=True) is None
        assert (await client.message())[0] == "v1/devices/me/rpc/request/0"
        assert await emulator.call_rpc("device", "m", oneway=True) is None
        assert (await client.message())[0] == "v1/devices/me/rpc/request/1"


async def test_a_late_subscriber_gets_the_pending_requests(emulator):
    """Section 2: the next subscription gets the request again, with the same id."""
    call = await begin(emulator.call_rpc("device", "m"))
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(RPC)
        assert (await client.message())[0] == "v1/devices/me/rpc/request/0"
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(RPC)
        assert (await client.message())[0] == "v1/devices/me/rpc/request/0"
        client.publish("v1/devices/me/rpc/response/0", "1")
        assert await call == 1


async def test_a_sub_device_gets_pending_requests_when_its_session_opens(emulator):
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        await client.read()
        client.publish("v1/gateway/disconnect", '{"device":"A"}')
        await client.read()
        call = await begin(emulator.call_rpc("A", "m"))
        assert await client.silent()
        client.publish("v1/gateway/telemetry", '{"A":[{"a":1}]}')
        assert (await client.message())[1]["data"]["id"] == 0
        call.cancel()


async def test_requests_without_a_reply_time_out(emulator):
    with pytest.raises(TimeoutError, match="is not subscribed"):
        await emulator.call_rpc("device", "m", timeout=0.01)
    with pytest.raises(TimeoutError, match="is not subscribed"):
        await emulator.call_rpc("device", "m", oneway=True, timeout=0.01)
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(RPC)
        with pytest.raises(TimeoutError, match="did not reply to 'm'"):
            await emulator.call_rpc("device", "m", timeout=0.01)
        assert (await client.message())[0] == "v1/devices/me/rpc/request/2"
        client.publish("v1/devices/me/rpc/response/2", '"late"')
        await client.read()
    assert emulator.rpc_responses("device") == [(2, b'"late"')]


async def test_params_that_json_cannot_represent_raise_an_error(emulator):
    with pytest.raises(TypeError):
        await emulator.call_rpc("device", "m", {1, 2})


async def test_a_request_without_a_puback_times_out():
    """Section 2: the platform gives the request up if the PUBACK does not arrive."""
    async with Emulator(rpc_ack_timeout=0.01, accept_any_token=True) as emulator, raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(RPC)
        with pytest.raises(TimeoutError, match="did not acknowledge"):
            await emulator.call_rpc("TOKEN", "m")


async def test_restarted_ids(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe(RPC)
        for _ in range(2):
            await emulator.call_rpc("device", "m", oneway=True)
            assert (await client.message())[0] == "v1/devices/me/rpc/request/0"
            emulator.restart_rpc_ids("device")


@pytest.mark.parametrize(
    ("request_topic", "response_topic"),
    [
        ("v1/devices/me/rpc/request/3", "v1/devices/me/rpc/response/3"),
        ("v2/r/req/3", "v2/r/res/3"),
        ("v2/r/req/j/3", "v2/r/res/j/3"),
        # getSessionLimits has a special meaning only on the v1 topic.
        ("v2/r/req/-3", "v2/r/res/-3"),
    ],
)
async def test_client_side_rpc(emulator, request_topic, response_topic):
    seen = []

    def handler(device, method, params):
        seen.append((device.name, method, params))
        return {"result": params}

    emulator.on_client_rpc = handler
    async with raw_client(emulator) as client:
        await client.connect()
        request = {"method": "getSessionLimits" if "v2" in request_topic else "m", "params": [1], "more": "ignored"}
        assert await client.request(request_topic, request) == (response_topic, {"result": [1]})
        assert await client.request(request_topic, '{"method":"n"}') == (response_topic, {"result": None})
    assert seen == [("device", request["method"], [1]), ("device", "n", None)]


async def test_handlers_may_be_coroutine_functions_and_may_fail(emulator):
    async def handler(_device, method, _params):
        await asyncio.sleep(0)
        if method == "bad":
            raise ClientRpcError("no such method")

    emulator.on_client_rpc = handler
    async with raw_client(emulator) as client:
        await client.connect()
        assert (await client.request("v1/devices/me/rpc/request/1", '{"method":"bad"}'))[1] == {"error": "no such method"}
        assert (await client.request("v1/devices/me/rpc/request/2", '{"method":"good"}'))[1] is None


async def test_an_error_in_a_handler_is_raised_on_exit():
    def handler(*_):
        raise RuntimeError("in a handler")

    emulator = Emulator(accept_any_token=True)
    emulator.on_client_rpc = handler
    await emulator.start()
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/rpc/request/1", '{"method":"m"}')
        await client.read()
        assert await client.silent()
    with pytest.raises(ExceptionGroup, match="errors inside the emulator"):
        await emulator.__aexit__(None, None, None)


@pytest.mark.parametrize("version", ["4.3", "3.7"])
async def test_a_request_without_a_handler_times_out(version):
    """Section 2; before 3.8 this includes getSessionLimits (section 5)."""
    async with (
        Emulator(client_rpc_timeout=0.01, accept_any_token=True, version=version) as emulator,
        raw_client(emulator) as client,
    ):
        await client.connect()
        method = "getSessionLimits" if version == "3.7" else "m"
        assert (await client.request("v1/devices/me/rpc/request/1", {"method": method}))[1] == {"error": "timeout"}


async def test_a_reused_id_is_ended_by_the_first_timer():
    """Section 2: the timeout of the first request ends the second."""
    async with Emulator(client_rpc_timeout=0.05, accept_any_token=True) as emulator, raw_client(emulator) as client:
        replies = [asyncio.sleep(0, {"first": True}), asyncio.sleep(10)]
        emulator.on_client_rpc = lambda *_: replies.pop(0)
        await client.connect()
        assert (await client.request("v1/devices/me/rpc/request/1", '{"method":"m"}'))[1] == {"first": True}
        assert (await client.request("v1/devices/me/rpc/request/1", '{"method":"m"}'))[1] == {"error": "timeout"}


@pytest.mark.parametrize("payload", ["", "nonsense", "[]", "1"])
async def test_invalid_request_payloads(emulator, payload):
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/rpc/request/1", payload)
        assert await client.read() == (0x40, b"\0\x01\x99\0")


@pytest.mark.parametrize("request_id", ["", "x", "1.5", "2147483648", "1_0", " 1"])
async def test_ids_that_are_not_int32(emulator, request_id):
    """Section 8: a response is refused, a request closes the connection."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(f"v1/devices/me/rpc/response/{request_id}", '{"method":"m"}')
        assert await client.read() == (0x40, b"\0\x01\x99\0")
        client.publish(f"v1/devices/me/rpc/request/{request_id}", '{"method":"m"}')
        assert await client.read() == (0xE0, b"\x8b\0")
        assert await client.read() is None
