"""Errors for invalid arguments and states, for each public method that requests, responds or claims."""

import asyncio
import math

import pytest

from engine_parts import engine_of, running_tasks
from tb_mqtt_client import DeviceClient, NotConnectedError, UnsupportedValueError
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse

BIG = "x" * 66_000
TOO_LARGE = r"^the payload for v1/devices/me/\S+ has \d+ bytes, and the platform accepts at most 65\d+$"
ATTRIBUTE_REQUEST = AttributeRequest.of(1, ["a"], None)
RPC_REQUEST = RPCRequest.from_dict(1, {"method": "m"})
RPC_RESPONSE = RPCResponse.build(1, "r")
CLAIM = ClaimRequest.build("s")


def nothing(*_):
    pass


GOOD_CALLS = {
    "send_rpc_response": (RPC_RESPONSE,),
    "claim_device": (CLAIM,),
    "send_rpc_request": (RPC_REQUEST,),
    "call_rpc": ("m",),
    "send_attribute_request": (ATTRIBUTE_REQUEST, nothing),
    "request_attributes": (),
}

BAD_CALLS = [
    # Wrong types.
    *((name, (wrong, *arguments[1:]), {}, TypeError, rf"^{what} must be made by {kind}\.build\(\), not ")
      for name, what, kind in (
          ("send_rpc_response", "response", "RPCResponse"),
          ("claim_device", "claim_request", "ClaimRequest"),
          ("send_rpc_request", "rpc_request", "RPCRequest"),
          ("send_attribute_request", "attribute_request", "AttributeRequest"),
      )
      for arguments in (GOOD_CALLS[name],)
      for wrong in (None, "text", {}, 5, CLAIM if kind != "ClaimRequest" else RPC_REQUEST)),
    ("send_rpc_request", (RPC_REQUEST, "callback"), {}, TypeError, "^callback must be a function or a coroutine function, not"),
    ("send_attribute_request", (ATTRIBUTE_REQUEST, None), {}, TypeError, "^callback must be a function"),
    ("send_attribute_request", (ATTRIBUTE_REQUEST, nothing), {"on_error": 5}, TypeError, "^on_error must be a function"),
    ("send_attribute_request", (ATTRIBUTE_REQUEST,), {}, TypeError, "callback"),
    ("call_rpc", (None,), {}, ValueError, "^Method must be a string$"),
    ("request_attributes", ("abc",), {}, UnsupportedValueError, "^shared_keys must be None or a list of .* without commas"),
    ("request_attributes", (None, [1]), {}, UnsupportedValueError, "^client_keys must be None or a list of .* without commas"),
    # Timeouts.
    *((name, GOOD_CALLS[name], {"timeout": wrong}, TypeError, "^timeout must be a number of seconds or None")
      for name in ("claim_device", "send_rpc_request", "call_rpc", "send_attribute_request", "request_attributes")
      for wrong in ("3", float("nan"))),
    # Empty.
    ("request_attributes", ([],), {}, ValueError, "request nothing"),
    ("request_attributes", ([""],), {}, ValueError, "non-empty"),
    ("send_rpc_response", (RPCResponse.build(None),), {}, ValueError, r"^RPCResponse must have a valid request ID\.$"),
    ("send_rpc_response", (RPCResponse.build(-(2**31) - 1),), {}, ValueError, r"^RPCResponse must have a valid request ID\.$"),
    ("send_rpc_response", (RPCResponse.build("x"),), {}, ValueError, r"^RPCResponse must have a valid request ID\.$"),
    # Not JSON.
    *((name, ({"a": wrong},), {}, UnsupportedValueError, r"^Invalid JSON \w+ at \$.* \(value of key 'a'\)$")
      for name in ("send_timeseries", "send_attributes") for wrong in (object(), b"x", {1}, {"b": {1: 2}})),
    *((name, ({5: 1},), {}, UnsupportedValueError, "^Invalid JSON key at") for name in ("send_timeseries", "send_attributes")),
    ("call_rpc", ("m", {1}), {}, UnsupportedValueError, r"^Invalid JSON value at \$"),
    ("call_rpc", ("\ud800",), {}, UnsupportedValueError, "surrogate"),
    ("send_rpc_response", (RPCResponse.build(1, object(), "error"),), {}, UnsupportedValueError, r"value at \$\.result"),
    ("request_attributes", (["\ud800"],), {}, UnsupportedValueError, "surrogate"),
    # Oversized.
    ("send_rpc_response", (RPCResponse.build(1, BIG),), {}, ValueError, TOO_LARGE),
    ("claim_device", (ClaimRequest.build(BIG),), {}, ValueError, TOO_LARGE),
    ("call_rpc", (BIG,), {}, ValueError, TOO_LARGE),
    ("request_attributes", ([BIG],), {}, ValueError, TOO_LARGE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "options", "error", "text"), BAD_CALLS)
async def test_invalid_arguments_are_refused(emulator, device, name, arguments, options, error, text):
    emulator.on_publish = lambda publish: pytest.fail(str(publish)) if "claim" in publish.topic or "rpc" in publish.topic else None
    with pytest.raises(error, match=text):
        await getattr(device, name)(*arguments, **options)
    # No trace of the call is left, and the client works.
    assert engine_of(device).message_service.is_empty()
    assert not running_tasks("request")
    assert (await device.send_attributes({"a": 1})).is_successful()


@pytest.mark.parametrize("name", GOOD_CALLS)
@pytest.mark.parametrize("when", ["before connect", "after stop"])
async def test_methods_raise_if_the_client_is_not_connected(emulator, name, when):
    """SDK 2.0 raised an AttributeError, which programs may catch."""
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    if when == "after stop":
        await client.connect()
        await client.stop()
    with pytest.raises(NotConnectedError, match="connect") as raised:
        await getattr(client, name)(*GOOD_CALLS[name])
    assert isinstance(raised.value, AttributeError)
    assert not running_tasks("request")
    # The same request can be sent later.
    await client.connect()
    emulator.on_publish = lambda _: Verdict.refuse(0x90)
    outcome = await asyncio.gather(getattr(client, name)(*GOOD_CALLS[name]), return_exceptions=True)
    assert not isinstance(outcome[0], NotConnectedError | RuntimeError)
    await client.stop()


@pytest.mark.parametrize("name", ["set_attribute_update_callback", "set_rpc_request_callback"])
async def test_an_argument_that_is_not_callable_is_refused(name):
    client = DeviceClient()
    for wrong in (5, "text", []):
        with pytest.raises(TypeError, match=r"^callback must be a function or a coroutine function, not"):
            getattr(client, name)(wrong)
    getattr(client, name)(None)


# Claims, and RPC responses that the program sends itself.


async def claims(emulator):
    received = asyncio.Queue()
    emulator.on_publish = lambda publish: received.put_nowait(publish) if publish.topic == "v1/devices/me/claim" else None
    return received


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (ClaimRequest.build("s", 10), {"secretKey": "s", "durationMs": 10_000}),
        (ClaimRequest.build("", None), {"secretKey": ""}),
    ],
)
async def test_contract_9_claims_have_milliseconds_and_leave_out_an_empty_secret(emulator, device, request_, payload):
    received = await claims(emulator)
    result = await device.claim_device(request_)
    publish = await received.get()
    assert publish.json() == payload
    assert (result.topic, result.qos, result.reason_code, result.datapoints_count) == ("v1/devices/me/claim", 1, 0, 1)
    assert (result.message_id, result.payload_size) == (publish.packet_id, len(publish.payload))


async def test_a_claim_without_waiting_returns_a_future(device):
    delivery = await device.claim_device(CLAIM, wait_for_publish=False)
    assert (await delivery).is_successful()


async def test_a_claim_without_a_timely_acknowledgement_has_a_result(emulator, device):
    emulator.on_publish = lambda publish: Verdict.delay(0.05) if "claim" in publish.topic else None
    result = await device.claim_device(CLAIM, timeout=0.001)
    assert (result.reason_code, result.message_id) == (-1, -1)
    # The claim itself is not taken back.
    assert (await device.claim_device(CLAIM, timeout=-1)).is_successful()


async def test_a_refused_claim_has_the_reason_code_of_the_server(emulator, device):
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if "claim" in publish.topic else None
    assert (await device.claim_device(CLAIM)).reason_code == 0x99


@pytest.mark.parametrize("request_id", [0, 7, "7"])
async def test_a_program_can_send_an_rpc_response_itself(emulator, device, request_id):
    received = asyncio.Queue()
    emulator.on_publish = lambda publish: received.put_nowait((publish.topic, publish.json()))
    result = await device.send_rpc_response(RPCResponse.build(request_id, {"a": 1}))
    topic = f"v1/devices/me/rpc/response/{request_id}"
    assert await received.get() == (topic, {"result": {"a": 1}})
    assert (result.topic, result.reason_code, result.datapoints_count) == (topic, 0, 1)
    assert result.message_id > 0


async def test_service_messages_do_not_count_as_datapoints(device):
    await device.claim_device(CLAIM)
    await device.send_rpc_response(RPC_RESPONSE)
    await device.send_timeseries({"a": 1})
    statistics = device.statistics
    assert (statistics.accepted, statistics.acknowledged, statistics.queued, statistics.in_flight) == (1, 1, 0, 0)


@pytest.mark.parametrize("timeout", ["3", math.nan, [3]])
async def test_stop_with_an_invalid_timeout_raises_and_does_not_stop(device, timeout):
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None"):
        await device.stop(timeout)
    assert (await device.send_timeseries({"a": 1})).is_successful()


async def test_stop_with_a_timeout_of_0_or_less_stops_at_once(device, emulator):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    [future] = await device.send_timeseries({"a": 1}, wait_for_publish=False)
    await device.stop(-1)
    assert future.result().reason_code == -1
