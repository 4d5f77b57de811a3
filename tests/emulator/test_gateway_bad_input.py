"""Errors for invalid arguments and states, for each method of a gateway for its sub-devices."""

import asyncio

import pytest
from gateway_wire import Wire

from engine_parts import engine_of, running_tasks
from tb_mqtt_client import GatewayClient, NotConnectedError, UnsupportedValueError
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.exceptions import DeviceNotConnectedError, NoDeviceSessionError
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest, GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.service.gateway.device_session import DeviceSession

BIG = "x" * 66_000
TOO_LARGE = r"^the payload for v1/gateway/\S+ has \d+ bytes, and the platform accepts at most 65\d+$"
CLAIM = GatewayClaimRequestBuilder().add_device_request("D1", ClaimRequest.build("s")).build()
BIG_CLAIM = GatewayClaimRequestBuilder().add_device_request("D1", ClaimRequest.build(BIG)).build()
REQUEST = AttributeRequest.of(1, ["a"], None)

# The methods that get a session, with their other arguments.
GOOD_CALLS = {
    "disconnect_device": (),
    "send_device_timeseries": ({"a": 1},),
    "send_device_attributes": ({"a": 1},),
    "send_device_attributes_request": (REQUEST,),
    "request_device_attributes": (["a"],),
    "send_device_claim_request": (CLAIM,),
}

BAD_CALLS = [
    # Invalid forms and values.
    *(("send_device_timeseries", (wrong,), {}, ValueError, text) for wrong, text in (
        (None, "^Unsupported payload type for telemetry: NoneType"),
        (5, "^Unsupported payload type for telemetry: int"),
        ({1, 2}, "^Unsupported payload type for telemetry: set"),
        ([AttributeEntry("a", 1)], "^Unsupported item type in telemetry list: AttributeEntry"),
        ({}, "at least one is needed"),
        ([], "at least one is needed"),
        ({"ts": 1}, "must have 'values'"),
        ({"ts": 1, "values": [1]}, "^Expected values to be a dict, got list"),
        ({"ts": 1, "values": {}}, "at least one datapoint"),
        ({"a": float("nan")}, r"^Invalid JSON value at \$"),
        ({"": 1}, "^Invalid key"),
    )),
    *(("send_device_attributes", (wrong,), {}, ValueError, text) for wrong, text in (
        (None, "^Unsupported payload type for attributes: NoneType"),
        ([{"a": 1}], "^Unsupported item type in attributes list: dict"),
        ([TimeseriesEntry("a", 1)], "^Unsupported item type in attributes list: TimeseriesEntry"),
        ({}, "at least one is needed"),
    )),
    *((name, (wrong,), {}, UnsupportedValueError, r"^Invalid JSON \w+ at \$")
      for name in ("send_device_timeseries", "send_device_attributes")
      for wrong in ({"a": object()}, {"a": {1}}, {"a": {"b": {1: 2}}}, {5: 1})),
    *(("send_device_timeseries", ({"a": 1},), {"metadata": wrong}, TypeError, "^metadata must be a TelemetryMetadata")
      for wrong in ({"connector": "c"}, ("c", 1), 5)),
    *(("send_device_attributes_request", (wrong,), {}, TypeError, "^attribute_request must be an instance of AttributeRequest")
      for wrong in (None, ["a"], {"keys": ["a"]}, CLAIM)),
    *(("send_device_claim_request", (wrong,), {}, TypeError, "^gateway_claim_request must be a GatewayClaimRequest")
      for wrong in (None, ClaimRequest.build("s"), {"D1": {}})),
    ("send_device_claim_request", (GatewayClaimRequest.build(),), {}, ValueError, "^gateway_claim_request must have at least one"),
    ("request_device_attributes", ([""],), {}, ValueError, "^shared_keys must be None or a list"),
    *(("request_device_attributes", (wrong,), {}, UnsupportedValueError, "^shared_keys must be None or a list")
      for wrong in ("abc", [1])),
    ("request_device_attributes", (None, "abc"), {}, UnsupportedValueError, "^client_keys must be None or a list"),
    ("request_device_attributes", (), {}, ValueError, "must name at least one key"),
    ("request_device_attributes", (["\ud800"],), {}, UnsupportedValueError, "surrogate"),
    # Timeouts.
    *((name, GOOD_CALLS[name], {"timeout": wrong}, TypeError, "^timeout must be a number of seconds or None")
      for name in ("send_device_attributes_request", "request_device_attributes") for wrong in ("3", float("nan"))),
    # Oversized.
    ("request_device_attributes", ([BIG],), {}, ValueError, TOO_LARGE),
    ("request_device_attributes", ([BIG], ["a"]), {}, ValueError, TOO_LARGE),
    ("send_device_claim_request", (BIG_CLAIM,), {}, ValueError, TOO_LARGE),
]  # fmt: skip


@pytest.fixture
async def session(gateway):
    return (await gateway.connect_device("D1", wait_for_publish=True))[0]


@pytest.mark.parametrize(("name", "arguments", "options", "error", "text"), BAD_CALLS)
async def test_invalid_arguments_are_refused(emulator, gateway, session, name, arguments, options, error, text):
    wire = Wire(emulator)
    with pytest.raises(error, match=text):
        await getattr(gateway, name)(session, *arguments, **options)
    # No trace of the call is left, no message is published, and the gateway works.
    await asyncio.sleep(0)
    assert engine_of(gateway).message_service.is_empty()
    assert not running_tasks("request")
    assert (await gateway.send_device_attributes(session, {"a": 1})).is_successful()
    assert [publish.topic for publish in wire.publishes] == ["v1/gateway/attributes"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("",), ValueError, r"^Device name must not be empty\.$"),
        ((None,), ValueError, "^Device name must not be empty"),
        ((5,), ValueError, "^Device name must be a str, not 5"),
        (("D1", ""), ValueError, "^Device profile must not be empty"),
        (("D1", 5), ValueError, "^Device profile must be a str, not 5"),
        (("\ud800",), ValueError, "surrogate"),
        (("a\0",), ValueError, "^Device name must not have a NUL"),
        ((BIG,), ValueError, "^Device name must have at most 255 UTF-16 code units"),
        (("D1", BIG), ValueError, "^Device profile must have at most 255 UTF-16 code units"),
    ],
)
async def test_an_invalid_device_is_not_connected(emulator, gateway, arguments, error, text):
    wire = Wire(emulator)
    with pytest.raises(error, match=text):
        await gateway.connect_device(*arguments)
    # The gateway does not know the device.
    assert list(gateway.device_manager.all()) == []
    _, result = await gateway.connect_device("D1", wait_for_publish=True)
    assert result.is_successful()
    assert len(wire.publishes) == 1


@pytest.mark.parametrize("name", GOOD_CALLS)
@pytest.mark.parametrize("wrong", [None, "D1", 5, DeviceInfo("D1", "default"), DeviceConnectMessage.build("D1")])
async def test_defect_45_an_argument_that_is_not_a_session_raises_a_type_error(gateway, name, wrong):
    """SDK 2.0 raised an AttributeError, which programs may catch; the error is both."""
    with pytest.raises(
        NoDeviceSessionError, match=r"^device_session must be a DeviceSession, as connect_device returns, not"
    ) as raised:
        await getattr(gateway, name)(wrong, *GOOD_CALLS[name])
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, AttributeError)


@pytest.mark.parametrize("name", GOOD_CALLS)
@pytest.mark.parametrize("whose", ["disconnected", "deleted", "another gateway's", "unregistered"])
async def test_a_session_that_the_gateway_does_not_have_is_refused(emulator, gateway, make_gateway, session, name, whose):
    """The platform would create the device, with the profile "default"."""
    if whose == "disconnected":
        await gateway.disconnect_device(session, wait_for_publish=True)
    elif whose == "deleted":
        gone = asyncio.Event()
        session.set_state_change_callback(lambda _: gone.set())
        await emulator.delete_device("D1")
        await gone.wait()
    elif whose == "another gateway's":
        session = make_gateway().device_manager.register("D1")
    else:
        session = DeviceSession(DeviceInfo("D1", "default"))
    wire = Wire(emulator)
    with pytest.raises(
        DeviceNotConnectedError, match=r"'D1' is not \(or no longer\) a device of this gateway; connect_device"
    ) as raised:
        await getattr(gateway, name)(session, *GOOD_CALLS[name])
    assert isinstance(raised.value, ValueError)
    assert wire.publishes == []


@pytest.mark.parametrize("name", [*GOOD_CALLS, "connect_device"])
@pytest.mark.parametrize("when", ["before connect", "after stop"])
async def test_methods_raise_if_the_gateway_is_not_connected(make_gateway, name, when):
    gateway = make_gateway()
    session = gateway.device_manager.register("D1")
    if when == "after stop":
        await gateway.connect()
        await gateway.stop()
    arguments = ("D2",) if name == "connect_device" else (session, *GOOD_CALLS[name])
    with pytest.raises(NotConnectedError, match="connect") as raised:
        await getattr(gateway, name)(*arguments)
    assert isinstance(raised.value, AttributeError)
    assert [known.device_info.device_name for known in gateway.device_manager.all()] == ["D1"]
    # The same call works later.
    await gateway.connect()
    assert await getattr(gateway, name)(*arguments) is not None
    await gateway.stop()


async def test_only_a_datapoint_that_is_too_large_is_rejected(emulator, gateway, session):
    result = await gateway.send_device_timeseries(session, {"a": BIG, "b": 1})
    assert (result.reason_code, result.datapoints_count) == (0x95, 2)
    result = await gateway.send_device_attributes(session, {"a": BIG})
    assert result.reason_code == 0x95
    assert [point.key for point in emulator.device("D1").telemetry] == ["b"]


async def test_arguments_are_not_changed(gateway, session):
    data, keys = {"ts": 5, "values": {"a": [1]}}, ["a", "a"]
    await gateway.send_device_timeseries(session, data, metadata=TelemetryMetadata("c", 1))
    await gateway.request_device_attributes(session, keys, keys)
    await gateway.send_device_claim_request(session, CLAIM)
    assert (data, keys, CLAIM.device_session) == ({"ts": 5, "values": {"a": [1]}}, ["a", "a"], None)


async def test_a_gateway_accepts_each_form_of_configuration():
    """A ``GatewayConfig``, a ``DeviceConfig``, a dict, and no argument."""
    config = GatewayConfig({"host": "h"})
    assert engine_of(GatewayClient(config)).config is config
    assert engine_of(GatewayClient(DeviceConfig({"host": "h", "port": 7}))).config.port == 7
    assert engine_of(GatewayClient({"host": "h", "qos": 0})).config.qos == 0
    assert engine_of(GatewayClient()).config.combine_devices
    with pytest.raises(ValueError, match="Unknown option 'hots'"):
        GatewayClient({"hots": "h"})


@pytest.mark.parametrize("qos", [0, 1])
async def test_contract_9_gateway_topics_have_qos_1(emulator, make_gateway, qos):
    """At QoS 0 the server does not report refused messages (docs/platform_contract.md, section 4)."""
    gateway = make_gateway(qos=qos)
    await gateway.connect()
    seen = []
    emulator.on_publish = seen.append
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    session.set_rpc_request_callback(lambda *_: None)
    await gateway.send_device_timeseries(session, {"a": 1})
    await gateway.send_device_attributes(session, {"a": 1})
    await gateway.request_device_attributes(session, ["a"])
    await gateway.send_device_claim_request(session, CLAIM)
    await emulator.call_rpc("D1", "m")
    await gateway.send_timeseries({"a": 1})
    await gateway.disconnect_device(session, wait_for_publish=True)
    qos_of = {publish.topic: publish.qos for publish in seen}
    assert qos_of.pop("v1/devices/me/telemetry") == qos
    assert len(qos_of) == 7
    assert set(qos_of.values()) == {1}
    await gateway.stop()
