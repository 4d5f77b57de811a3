"""Requests, responses and updates of sub-devices: JSON forms and refused arguments."""

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_attribute_update import GatewayAttributeUpdate
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest, GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway.telemetry_metadata import TelemetryMetadata
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEvent, GatewayEventType
from tb_mqtt_client.service.gateway.device_session import DeviceSession


@pytest.fixture
def session():
    return DeviceSession(DeviceInfo("D1", "default"))


def rpc_request(**changes):
    call = {"id": 5, "method": "get", "params": [1]} | changes
    return GatewayRPCRequest.from_dict({"device": "D1", "data": call})


async def one_of_each(session):
    claim = GatewayClaimRequestBuilder().add_device_request("D9", ClaimRequest.build("s", 30)).build()
    return [
        DeviceConnectMessage.build("D1", "p"),
        DeviceDisconnectMessage.build("D1"),
        await GatewayAttributeRequest.build(session, ["a"], ["b", "c"]),
        rpc_request(),
        GatewayRPCResponse.build("D1", 5, {"a": 1}),
        GatewayRPCResponse.build("D1", "5", error="no"),
        claim,
        GatewayRequestedAttributeResponse(1, [AttributeEntry("a", 1)], None, "D1"),
        GatewayAttributeUpdate("D1", AttributeEntry("a", 1)),
        GatewayAttributeUpdate("D1", AttributeUpdate([], deleted_keys=["a"])),
        TelemetryMetadata("modbus", 5),
    ]


async def test_defect_71_values_can_be_copied_and_pickled(session):
    for value in await one_of_each(session):
        for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert type(again) is type(value)
            assert again == value
            assert repr(again) == repr(value)


@pytest.mark.parametrize(
    "cls",
    [
        DeviceConnectMessage,
        DeviceDisconnectMessage,
        GatewayAttributeRequest,
        GatewayRPCRequest,
        GatewayRPCResponse,
        GatewayClaimRequest,
    ],
)
def test_direct_construction_is_refused(cls):
    for arguments in ((), (1, "a"), ("a", 1, None)):
        with pytest.raises(TypeError, match=f"^Direct instantiation of {cls.__name__} is not allowed"):
            cls(*arguments)


async def test_values_are_immutable(session):
    frozen = [value for value in await one_of_each(session) if not isinstance(value, AttributeUpdate)]
    for value in frozen:
        name = next(iter(value.__dataclass_fields__))
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, "other")


async def test_defect_48_every_event_has_a_session(session):
    """The session is ``None`` until it is set, also in frozen events."""
    update = AttributeUpdate([AttributeEntry("a", 1)])
    events = [value for value in await one_of_each(session) if isinstance(value, BaseGatewayEvent)]
    for event in [update, await AttributeRequest.build(["a"]), GatewayEvent(GatewayEventType.DEVICE_UPDATE), *events]:
        if not isinstance(event, GatewayAttributeRequest):
            assert event.device_session is None
        assert isinstance(event.event_type, GatewayEventType)
        event.set_device_session(session)
        assert event.device_session is session


def test_events_have_their_types():
    expected = {
        DeviceConnectMessage.build("a"): "gateway.device.connect",
        DeviceDisconnectMessage.build("a"): "gateway.device.disconnect",
        rpc_request(params=None): "gateway.device.rpc.request",
        GatewayRPCResponse.build("a", 1): "gateway.device.rpc.response",
    }
    assert {event: str(event.event_type) for event in expected} == expected
    assert GatewayRequestedAttributeResponse().event_type is GatewayEventType.DEVICE_REQUESTED_ATTRIBUTE_RESPONSE
    assert GatewayClaimRequest.build().event_type is GatewayEventType.GATEWAY_CLAIM_REQUEST
    assert GatewayAttributeUpdate("a", []).event_type is GatewayEventType.DEVICE_ATTRIBUTE_UPDATE


def test_a_gateway_event_has_a_session_and_a_text(session):
    event = GatewayEvent(GatewayEventType.GATEWAY_CONNECT)
    assert (event.get_device_session(), event.to_dict()) == (None, {"event_type": event.event_type, "device_session": None})
    event.set_device_session(session)
    assert event.get_device_session() is session
    assert str(event) == f"GatewayEvent(type=gateway.connect, device_session={session})"


# Attribute requests.


@pytest.mark.parametrize(
    ("shared", "client", "payload"),
    [
        (["a"], None, {"client": False, "key": "a"}),
        (["a", "b"], None, {"client": False, "keys": ["a", "b"]}),
        (None, ["a"], {"client": True, "key": "a"}),
        ([], ["a", "b"], {"client": True, "keys": ["a", "b"]}),
        (["a"], ["b"], {"client": True, "key": "b"}),
        (["a,b"], [], {"client": False, "key": "a,b"}),
        (None, None, {}),
    ],
)
async def test_an_attribute_request_has_its_json_form(session, shared, client, payload):
    request = await GatewayAttributeRequest.build(session, shared, client)
    assert request.to_payload_format() == {"device": "D1", "id": request.request_id} | payload
    session.device_info.rename("D2")
    assert request.to_payload_format()["device"] == "D2"


async def test_an_attribute_request_is_divided_into_scopes(session):
    request = await GatewayAttributeRequest.build(session, ["a"], ["b", "c"])
    assert request.scopes() == [(True, ["b", "c"]), (False, ["a"])]
    assert (await GatewayAttributeRequest.build(session, [], None)).scopes() == []


async def test_an_attribute_request_of_a_device_becomes_one_of_a_gateway(session):
    request = await AttributeRequest.build(["a"], ["b"])
    again = await GatewayAttributeRequest.from_attribute_request(session, request)
    assert (again.request_id, again.shared_keys, again.client_keys) == (request.request_id, ["a"], ["b"])
    assert isinstance(again, AttributeRequest)
    assert again.device_session is session
    for wrong in (None, {"sharedKeys": "a"}, "a"):
        with pytest.raises(TypeError, match="attribute_request must be an instance of AttributeRequest"):
            await GatewayAttributeRequest.from_attribute_request(session, wrong)


@pytest.mark.parametrize("keys", ["abc", ("a",), {"a"}, [1], [""], [None], 7])
async def test_defect_57_keys_of_a_gateway_request_are_a_list_of_str(session, keys):
    for given in ({"shared_keys": keys}, {"client_keys": keys}):
        with pytest.raises(ValueError, match=next(iter(given))):
            await GatewayAttributeRequest.build(session, **given)


# Responses and updates.


def test_defect_49_lists_that_are_none_become_empty():
    response = GatewayRequestedAttributeResponse(request_id=3, device_name="D1")
    assert (response.shared_keys(), response.client_keys()) == ([], [])
    assert response.as_dict() == {"shared": [], "client": []}
    assert (response.get_shared("a"), response.get_client("a", 7)) == (None, 7)
    with pytest.raises(KeyError, match="Key 'a' not found"):
        response["a"]


def test_an_attribute_response_is_read_by_key_and_scope():
    response = GatewayRequestedAttributeResponse(
        3, [AttributeEntry("a", 1)], [AttributeEntry("a", 2), AttributeEntry("b", 3)], "D1"
    )
    assert isinstance(response, RequestedAttributeResponse)
    assert (response["a"], response["b"], response.get_client("a")) == (1, 3, 2)
    shared, client = "[AttributeEntry(key=a, value=1)]", "[AttributeEntry(key=a, value=2), AttributeEntry(key=b, value=3)]"
    assert repr(response) == (f"GatewayRequestedAttributeResponse(device_name=D1,request_id=3, shared={shared}, client={client})")


def test_an_attribute_update_of_a_sub_device_has_its_name():
    entries = [AttributeEntry("a", 1), AttributeEntry("b", 2)]
    for given in (entries, AttributeUpdate(entries)):
        update = GatewayAttributeUpdate("D1", given)
        assert (update.device_name, update.entries, update.as_dict()) == ("D1", entries, {"a": 1, "b": 2})
        assert update.attribute_update == AttributeUpdate(entries)
    assert GatewayAttributeUpdate("D1", entries[0]).entries == entries[:1]
    assert GatewayAttributeUpdate("D1", entries) != GatewayAttributeUpdate("D2", entries)
    assert GatewayAttributeUpdate("D1", entries) != AttributeUpdate(entries)
    assert str(GatewayAttributeUpdate("D1", entries[0])) == (
        "GatewayAttributeUpdate(device_name=D1, attribute_update=AttributeUpdate(entries=[AttributeEntry(key=a, value=1)]))"
    )
    for wrong in (None, {"a": 1}, [AttributeEntry("a", 1), "b"], "a"):
        with pytest.raises(TypeError, match="attribute_update must be an instance of AttributeUpdate"):
            GatewayAttributeUpdate("D1", wrong)


# RPC.


def test_an_rpc_request_is_read():
    request = rpc_request()
    assert (request.request_id, request.device_name, request.method, request.params) == (5, "D1", "get", [1])
    assert repr(request) == str(request) == "RPCRequest(id=5, device_name=D1, method=get, params=[1])"
    assert rpc_request(id=0, params=None).params is None


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ({"data": {"id": 1, "method": "m"}}, ValueError, "Missing device name in RPC request"),
        ({"device": "", "data": {"id": 1, "method": "m"}}, ValueError, "Missing device name in RPC request"),
        ({"device": 7, "data": {"id": 1, "method": "m"}}, ValueError, "Missing device name in RPC request"),
        ({"device": "D1"}, KeyError, "data"),
        ({"device": "D1", "data": [1]}, ValueError, "'data' must be an object"),
        ({"device": "D1", "data": {"method": "m"}}, ValueError, "Missing request id in RPC request"),
        ({"device": "D1", "data": {"id": True, "method": "m"}}, ValueError, "Missing request id in RPC request"),
        ({"device": "D1", "data": {"id": 1}}, ValueError, "Missing 'method' in RPC request"),
        ({"device": "D1", "data": {"id": 1, "method": 2}}, ValueError, "Missing 'method' in RPC request"),
    ],
)
def test_invalid_rpc_requests_are_refused(data, error, text):
    with pytest.raises(error, match=text):
        GatewayRPCRequest.from_dict(data)


def test_an_rpc_response_has_its_json_form():
    response = GatewayRPCResponse.build("D1", 5, {"a": None})
    assert isinstance(response, RPCResponse)
    assert response.to_payload_format() == {"device": "D1", "id": 5, "data": {"result": {"a": None}}}
    assert repr(response) == "GatewayRPCResponse(device_name=D1, request_id=5, result={'a': None}, error=None)"
    # The platform requires `data` (docs/platform_contract.md, section 4).
    assert GatewayRPCResponse.build("D1", 5).to_payload_format() == {"device": "D1", "id": 5, "data": {}}
    failed = GatewayRPCResponse.build("D1", 5, error=ZeroDivisionError("by nothing"))
    assert failed.status is RPCStatus.ERROR
    error = failed.to_payload_format()["data"]["error"]
    assert (error["message"], error["type"]) == ("by nothing", "ZeroDivisionError")
    assert GatewayRPCResponse.of_device("D2", RPCResponse.build(7, 1)) == GatewayRPCResponse.build("D2", 7, 1)


@pytest.mark.parametrize("name", ["", None, 7])
def test_an_rpc_response_needs_a_device(name):
    with pytest.raises(ValueError, match="Device name must be a non-empty string"):
        GatewayRPCResponse.build(name, 5)


# Claiming.


def test_a_claim_request_can_have_several_devices(session):
    request = GatewayClaimRequest.build()
    request.add_device_request(session, ClaimRequest.build("s", 30))
    request.add_device_request("D9", ClaimRequest.build("", None))
    assert request.to_payload_format() == {"D1": {"secretKey": "s", "durationMs": 30_000}, "D9": {"secretKey": ""}}
    session.device_info.rename("D2")
    assert list(request.to_payload_format()) == ["D2", "D9"]
    assert repr(request) == f"GatewayClaimRequest(devices_requests={request.devices_requests})"
    assert GatewayClaimRequest.build().to_payload_format() == {}


def test_a_built_claim_request_does_not_change(session):
    builder = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("s"))
    built = builder.build()
    builder.add_device_request("D9", ClaimRequest.build("t"))
    assert list(built.to_payload_format()) == ["D1"]
    assert list(builder.build().to_payload_format()) == ["D1", "D9"]


def test_invalid_claim_requests_are_refused(session):
    for target in (GatewayClaimRequest.build(), GatewayClaimRequestBuilder()):
        for wrong in (None, 7, "", object()):
            with pytest.raises(ValueError, match="device_session must be an instance of DeviceSession or a string"):
                target.add_device_request(wrong, ClaimRequest.build("s"))
        for wrong in (None, "s", {"secretKey": "s"}):
            with pytest.raises(ValueError, match="device_claim_request must be an instance of ClaimRequest"):
                target.add_device_request(session, wrong)


# Names and metadata.


@pytest.mark.parametrize("wrong", ["", None, 7, b"D1", []])
def test_invalid_names_are_refused(wrong):
    for build in (DeviceConnectMessage.build, DeviceDisconnectMessage.build):
        with pytest.raises(ValueError, match="Device name must"):
            build(wrong)
    with pytest.raises(ValueError, match="Device profile must"):
        DeviceConnectMessage.build("D1", wrong)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (" \t\u2003", "a character that is not white space"),
        ("a\0b", "a NUL, which the platform cannot store: 'a"),
        ("a\ud800", "lone surrogates, which UTF-8 cannot express: 'a"),
        ("x" * 256, "at most 255 UTF-16 code units, which x{50}... exceeds"),
        ("\U0001f600" * 128, "at most 255 UTF-16 code units"),
    ],
)
def test_names_that_the_platform_can_never_have(wrong, text):
    for build in (DeviceConnectMessage.build, DeviceDisconnectMessage.build):
        with pytest.raises(ValueError, match=f"^Device name must .*{text}"):
            build(wrong)
    with pytest.raises(ValueError, match=f"^Device profile must .*{text}"):
        DeviceConnectMessage.build("D1", wrong)


@pytest.mark.parametrize("name", ["x" * 255, "\U0001f600" * 127, " a ", "CO2 <ppm>", "a\nb"])
def test_names_that_the_platform_may_have(name):
    """Devices with markup in their names cannot be created today, but may be older than that rule."""
    assert DeviceConnectMessage.build(name, name).to_payload_format() == {"device": name, "type": name}


@pytest.mark.parametrize(
    ("connector", "received"), [("", 1), (None, 1), (b"c", 1), ("c", None), ("c", 1.5), ("c", True), ("c", -1), ("c", 2**63)]
)
def test_invalid_metadata_is_refused(connector, received):
    with pytest.raises(ValueError, match="must be"):
        TelemetryMetadata(connector, received)
