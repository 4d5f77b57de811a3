"""The response to an RPC request has the form that the user chose: ``{"result": value}``, or the value alone."""

import asyncio

import pytest
from device_peer import make_client

from tb_mqtt_client import GatewayClient, GatewayRPCResponse, RPCResponse
from tb_mqtt_client.emulator import Emulator

VALUES = (
    True,
    False,
    None,
    0,
    5,
    1.5,
    "on",
    "",
    [],
    [1],
    {},
    {"CPU percent": 3},
    {"result": 1},
    {"error": "one of the device's own"},
)


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
async def make_clients(emulator):
    """Return a function that connects a device and a gateway with a sub-device, and sets their callback for RPC requests."""
    clients = []

    async def make(rpc_reply, callback):
        options = {} if rpc_reply is None else {"rpc_reply": rpc_reply}
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        where = {"host": emulator.host, "port": emulator.port}
        device = make_client(emulator, **options)
        gateway = GatewayClient(where | {"access_token": "GATEWAY"} | options)
        clients.extend((device, gateway))
        await device.connect()
        await gateway.connect()
        session, _ = await gateway.connect_device("sub-device", wait_for_publish=True)
        device.set_rpc_request_callback(callback)
        session.set_rpc_request_callback(lambda _session, request: callback(request))
        return device, gateway

    yield make
    for client in clients:
        await client.stop()


async def responses(emulator, method="m"):
    return [await emulator.call_rpc(name, method) for name in ("device", "sub-device")]


def wrapped(value):
    return {} if value is None else {"result": value}


@pytest.mark.parametrize("rpc_reply", [None, "wrapped"])
async def test_results_are_wrapped_by_default(emulator, make_clients, rpc_reply):
    values = iter(value for value in VALUES for _ in range(2))
    await make_clients(rpc_reply, lambda _: next(values))
    for value in VALUES:
        assert await responses(emulator) == [wrapped(value)] * 2


async def test_results_of_a_client_may_be_plain(emulator, make_clients):
    values = iter(value for value in VALUES for _ in range(2))
    await make_clients("plain", lambda _: next(values))
    for value in VALUES:
        assert await responses(emulator) == [value] * 2


@pytest.mark.parametrize("rpc_reply", ["wrapped", "plain"])
async def test_a_single_result_may_be_plain(emulator, make_clients, rpc_reply):
    values = iter(value for value in VALUES for _ in range(2))
    await make_clients(rpc_reply, lambda _: RPCResponse.plain(next(values)))
    for value in VALUES:
        assert await responses(emulator) == [value] * 2


async def test_a_sub_devices_response_may_be_plain(emulator, make_clients):
    await make_clients("wrapped", lambda _: GatewayRPCResponse.plain(False))
    assert await emulator.call_rpc("sub-device", "m") is False


async def test_a_built_response_has_the_form_of_the_client(emulator, make_clients):
    await make_clients("plain", lambda request: RPCResponse.build(request.request_id, result=False))
    assert await responses(emulator) == [False, False]


@pytest.mark.parametrize("rpc_reply", ["wrapped", "plain"])
async def test_errors_are_the_same_in_both_forms(emulator, make_clients, rpc_reply):
    def fail(request):
        if request.method == "raise":
            raise LookupError("no such relay")
        return RPCResponse.build(request.request_id, error="no such relay")

    await make_clients(rpc_reply, fail)
    assert await responses(emulator) == [{"error": "no such relay"}] * 2
    for response in await responses(emulator, "raise"):
        assert (response["error"]["type"], response["error"]["message"]) == ("LookupError", "no such relay")


async def test_a_response_that_the_program_sends_itself(emulator, make_clients):
    device, _ = await make_clients("plain", lambda _: asyncio.Event().wait())
    response = asyncio.ensure_future(emulator.call_rpc("device", "m"))
    assert (await device.send_rpc_response(RPCResponse.build(0, result=False))).is_successful()
    assert await response is False
    await device.stop(timeout=0)


async def test_a_plain_response_that_the_program_sends_itself_needs_an_id(make_clients):
    device, _ = await make_clients("wrapped", lambda _: None)
    with pytest.raises(ValueError, match="must have a valid request ID"):
        await device.send_rpc_response(RPCResponse.plain(False))
    assert (await device.send_rpc_response(RPCResponse.plain(False, request_id=7))).is_successful()


@pytest.mark.parametrize("value", [object(), {1: 2}, "\ud800"])
async def test_a_plain_result_is_validated(value):
    with pytest.raises(ValueError):  # noqa: PT011  # each kind of value has its own text
        RPCResponse.plain(value)
