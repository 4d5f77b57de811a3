"""Texts of reprs and errors, defaults and payloads of SDK 2.0, on which programs may rely.

Each is written here as SDK 2.0 has it; docs/differences.md lists those that were changed.
"""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import pytest

from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.exceptions import BackpressureException
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.constants import mqtt_topics
from tb_mqtt_client.constants.json_typing import validate_json_compatibility
from tb_mqtt_client.constants.provisioning import ProvisioningResponseStatus
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.data_entry import DataEntry
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.data.provisioning_request import (
    AccessTokenProvisioningCredentials,
    BasicProvisioningCredentials,
    ProvisioningRequest,
)
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_attribute_update import GatewayAttributeUpdate
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessageBuilder
from tb_mqtt_client.entities.gateway_event import GatewayEvent, GatewayEventType
from tb_mqtt_client.service.gateway.device_manager import DeviceManager

ENTRY = AttributeEntry("a", 1)
RESULT = PublishResult("t", None, 1, 2, 0, 3)
RPC = {"device": "D1", "data": {"id": 5, "method": "m", "params": [1]}}
INFO = {"device_name": "D1", "device_profile": "p", "device_id": "00000000-0000-0000-0000-000000000001", "original_name": "D0"}


async def examples():
    return {
        "DataEntry(key=k, value=v, ts=None)": DataEntry("k", "v"),
        "AttributeEntry(key=a, value=1)": ENTRY,
        "TimeseriesEntry(key=k, value=[1], ts=5)": TimeseriesEntry("k", [1], 5),
        "AttributeUpdate(entries=[AttributeEntry(key=a, value=1)])": AttributeUpdate([ENTRY]),
        "AttributeRequest(id=1, shared_keys=['s'], client_keys=None)": (await AttributeRequest.build(["s"])).with_fields(
            request_id=1
        ),
        "RequestedAttributeResponse(request_id=1, shared=[], client=[AttributeEntry(key=a, value=1)])": RequestedAttributeResponse(
            1, [], [ENTRY]
        ),
        "RPCRequest(id=1, method=m, params=[1])": (await RPCRequest.build("m", [1])).with_fields(request_id=1),
        "RPCResponse(request_id=1, result={'x': 1}, error=None)": RPCResponse.build(1, {"x": 1}),
        "ClaimRequest(secret_key=***, duration=10)": ClaimRequest.build("s", 10),
        "DeviceConnectMessage(device_name=D1, device_profile=default)": DeviceConnectMessage.build("D1"),
        "DeviceDisconnectMessage(device_name=D1)": DeviceDisconnectMessage.build("D1"),
        "GatewayEvent(type=gateway.connect, device_session=None)": GatewayEvent(GatewayEventType.GATEWAY_CONNECT),
        "GatewayRequestedAttributeResponse(device_name=D1,request_id=1, shared=[], client=[])": GatewayRequestedAttributeResponse(
            request_id=1, shared=[], device_name="D1"
        ),
        "GatewayAttributeUpdate(device_name=D1, attribute_update=AttributeUpdate(entries=[AttributeEntry(key=a, value=1)]))": (
            GatewayAttributeUpdate("D1", ENTRY)
        ),
        "RPCRequest(id=5, device_name=D1, method=m, params=[1])": GatewayRPCRequest.from_dict(RPC),
        "GatewayRPCResponse(device_name=D1, request_id=5, result=1, error=None)": GatewayRPCResponse.build("D1", 5, 1),
        "GatewayClaimRequest(devices_requests={'D1': ClaimRequest(secret_key=***, duration=10)})": GatewayClaimRequestBuilder()
        .add_device_request("D1", ClaimRequest.build("s", 10))
        .build(),
        "PublishResult(topic=t, qos=1, message_id=1, payload_size=2, reason_code=0, datapoints_count=3)": RESULT,
        "DeviceInfo(device_id=00000000-0000-0000-0000-000000000001, device_name=D1, device_profile=p, original_name=D0)": (
            DeviceInfo.from_dict(INFO)
        ),
        "DeviceConfig(host=h, port=1, auth=token client_id=None tls=False)": DeviceConfig(
            {"host": "h", "port": "1", "access_token": "t"}
        ),
        "GatewayConfig(host=h, port=1883, auth=user/pass client_id=c tls=True)": GatewayConfig(
            {"host": "h", "client_id": "c", "ca_cert": "ca.pem"}
        ),
    }


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("HOST", "PORT", "ACCESS_TOKEN", "CLIENT_ID", "CA_CERT"):
        monkeypatch.delenv(f"TB_{name}", raising=False)


async def test_objects_have_the_text_of_sdk_2():
    for text, value in (await examples()).items():
        assert str(value) == text


async def test_defect_71_all_values_can_be_copied_and_pickled():
    others = [
        DeviceUplinkMessageBuilder().set_device_name("d").add_timeseries(TimeseriesEntry("a", 1, 5)).build(),
        GatewayUplinkMessageBuilder().set_device_name("d").add_attributes(ENTRY).build(),
        ProvisioningRequest("h", AccessTokenProvisioningCredentials("k", "s")),
        BasicProvisioningCredentials("k", "s", username="u"),
        ProvisioningResponse.build(
            ProvisioningRequest("h", AccessTokenProvisioningCredentials("k", "s")), {"status": "FAILURE", "errorMsg": "e"}
        ),
        RPCResponse.build(1, error=ValueError("x")),
    ]
    for value in [*(await examples()).values(), *others]:
        for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert type(made) is type(value)
            if type(value).__repr__ is object.__repr__:
                assert vars(made) == vars(value)
            else:
                assert repr(made).partition("delivery_futures")[0] == repr(value).partition("delivery_futures")[0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: validate_json_compatibility({"x": [1, {"y": {1}}]}),
            ValueError,
            r"^Invalid JSON value at \$\.x\[1\]\.y: unsupported - set",
        ),
        (
            lambda: validate_json_compatibility({"x": {1: 2}}),
            ValueError,
            r"^Invalid JSON key at \$\.x: expected str, got int \(1\)",
        ),
        (DeviceUplinkMessage, TypeError, "^Direct instantiation of DeviceUplinkMessage is not allowed"),
        (lambda: AttributeRequest(1), TypeError, "^Direct instantiation of AttributeRequest is not allowed"),
        (lambda: RPCRequest(1, "m"), TypeError, "^Direct instantiation of RPCRequest is not allowed"),
        (lambda: RPCResponse(1), TypeError, "^Direct instantiation of RPCResponse is not allowed"),
        (lambda: ClaimRequest("s"), TypeError, "^Direct instantiation of ClaimRequest is not allowed"),
        (lambda: RPCResponse.build(1, error=5), ValueError, "^Error must be a string, dictionary, or an exception instance$"),
        (lambda: ClaimRequest.build(5), ValueError, "^Secret key must be a string$"),
        (lambda: ClaimRequest.build("s", -1), ValueError, "^Duration must be a non-negative integer representing seconds$"),
        (lambda: DeviceConnectMessage.build(""), ValueError, "^Device name must not be empty.$"),
        (lambda: GatewayRPCResponse.build("", 1), ValueError, "^Device name must be a non-empty string$"),
        (lambda: GatewayAttributeUpdate("D1", 5), TypeError, "^attribute_update must be an instance of AttributeUpdate, list of"),
        (lambda: GatewayRPCRequest.from_dict({"data": {}}), ValueError, "^Missing device name in RPC request$"),
        (lambda: GatewayRPCRequest.from_dict({"device": "D1"}), KeyError, "data"),
        (lambda: RPCRequest.from_dict(None, {}), ValueError, "^Missing request id in RPC request$"),
        (lambda: RPCRequest.from_dict(1, {}), ValueError, "^Missing 'method' in RPC request$"),
        (lambda: PublishResult.merge([]), ValueError, "^No publish results to merge.$"),
        (lambda: RequestedAttributeResponse(1, [], [])["k"], KeyError, "Key 'k' not found in shared or client attributes."),
        (lambda: setattr(ClaimRequest.build("s"), "duration", 1), FrozenInstanceError, "duration"),
        (lambda: setattr(DeviceInfo("D1", "p"), "device_name", "x"), AttributeError, "Cannot modify attribute"),
        (
            lambda: GatewayClaimRequestBuilder().add_device_request(5, ClaimRequest.build("s")),
            ValueError,
            "^device_session must be an",
        ),
        (
            lambda: GatewayClaimRequestBuilder().add_device_request("D1", 5),
            ValueError,
            "^device_claim_request must be an instance of",
        ),
    ],
)
def test_errors_have_the_text_of_sdk_2(call, error, text):
    with pytest.raises(error, match=text):
        call()


async def test_a_method_that_is_not_a_str_is_refused():
    with pytest.raises(ValueError, match=r"^Method must be a string$"):
        await RPCRequest.build(5)


def test_backpressure_has_the_text_of_sdk_2():
    assert str(BackpressureException()) == "Client is under backpressure. Please retry later."


@pytest.mark.parametrize(
    ("entry", "size"),
    [(DataEntry("a", 1), 7), (DataEntry("a", 1, ts=5), 25), (DataEntry("é", "é"), 11), (TimeseriesEntry("a", 1, 0), 25)],
)
def test_entries_have_the_sizes_of_sdk_2(entry, size):
    assert entry.size == size


async def test_payloads_have_the_form_of_sdk_2():
    request = (await RPCRequest.build("m", 0)).with_fields(request_id=1)
    assert json.dumps(request.to_payload_format()) == '{"id": 1, "method": "m", "params": 0}'
    assert (await RPCRequest.build("m")).to_payload_format().keys() == {"id", "method"}
    assert (await AttributeRequest.build(["a", "b"], ["c"])).to_payload_format() == {"sharedKeys": "a,b", "clientKeys": "c"}
    assert RPCResponse.build(1).to_payload_format() == {}
    assert RPCResponse.build(1, error="e").to_payload_format() == {"error": "e"}
    assert RPCResponse.build(1, error="e").status is RPCStatus.ERROR
    assert ClaimRequest.build("s", 10).to_payload_format() == {"secretKey": "s", "durationMs": 10000}
    assert ClaimRequest.build("s").duration == 60000
    assert GatewayRPCResponse.build("D1", 5, 1).to_payload_format() == {"device": "D1", "id": 5, "data": {"result": 1}}
    assert TimeseriesEntry("k", 1, 0).as_dict() == {"key": "k", "value": 1, "ts": 0}
    assert TimeseriesEntry("k", 1).as_dict() == ENTRY.as_dict() | {"key": "k"}
    assert RESULT.as_dict() == {"topic": "t", "qos": 1, "message_id": 1, "payload_size": 2, "reason_code": 0, "datapoints_count": 3}
    assert DeviceInfo.from_dict(INFO).to_dict() == INFO
    response = RequestedAttributeResponse.from_dict({"shared": {"a": 1}})
    assert (response.request_id, response.as_dict()) == (-1, {"shared": [{"key": "a", "value": 1}], "client": []})


def test_an_update_is_read_like_a_dict():
    update = AttributeUpdate([ENTRY, AttributeEntry("b", 2)])
    assert (update.keys(), update.values(), update.items()) == (["a", "b"], [1, 2], [("a", 1), ("b", 2)])
    assert (update.get("b"), update.get("c", 3), update.as_dict()) == (2, 3, {"a": 1, "b": 2})


def test_objects_compare_and_hash_as_in_sdk_2():
    assert AttributeEntry("a", 1) == AttributeEntry("a", True) != TimeseriesEntry("a", 1)
    assert DataEntry("a", 1) != DataEntry("a", 1)
    for unhashable in (ENTRY, RESULT, AttributeUpdate([])):
        with pytest.raises(TypeError):
            hash(unhashable)
    assert len({ClaimRequest.build("s"), ClaimRequest.build("s")}) == 1
    assert DeviceInfo("D1", "p").__eq__(5) is NotImplemented


def test_enumerations_have_the_text_of_sdk_2():
    assert [str(value) for value in (RPCStatus.NOT_FOUND, GatewayEventType.DEVICE_UPLINK, ProvisioningResponseStatus.ERROR)] == [
        "NOT_FOUND", "gateway.device.uplink", "FAILURE",
    ]  # fmt: skip
    assert [state for state in DeviceSessionState if state.is_connected()] == [DeviceSessionState.CONNECTED]


def test_topics_are_those_of_sdk_2():
    assert {
        mqtt_topics.build_device_attributes_request_topic(1),
        mqtt_topics.build_device_rpc_request_topic(2),
        mqtt_topics.build_device_rpc_response_topic(3),
        mqtt_topics.build_firmware_update_request_topic(4, 5),
    } == {
        "v1/devices/me/attributes/request/1",
        "v1/devices/me/rpc/request/2",
        "v1/devices/me/rpc/response/3",
        "v2/fw/request/4/chunk/5",
    }


async def test_messages_have_the_attributes_of_sdk_2():
    message = MqttPublishMessage("v1/gateway/connect", b"{}", qos=7)
    assert (message.qos, message.retain, message.datapoints, message.payload_size) == (1, False, 0, 2)
    assert (message.is_service_message, message.is_device_message, len(message.delivery_futures)) == (True, False, 1)
    uplink = DeviceUplinkMessageBuilder().set_device_name("d").set_device_profile("p").add_attributes(ENTRY).build()
    assert (uplink.size, uplink.attributes, uplink.has_timeseries()) == (70 + 2 + ENTRY.size, (ENTRY,), False)
    assert uplink.set_main_ts(5) is uplink
    assert uplink.main_ts == 5
    builder = GatewayUplinkMessageBuilder().set_device_name("d")
    assert len(builder) == 51
    assert builder.build().device_profile == "default"


def test_the_device_manager_finds_sessions_by_every_name():
    manager = DeviceManager()
    session = manager.register("D1")
    assert repr(manager) == "DeviceManager(['D1'])"
    manager.rename_device("D1", "D2")
    assert manager.get_by_name("D2") is manager.get_by_name("D1") is manager.register("D1") is session
    assert manager.all_devices == {session.device_info.device_id: session}
    assert (manager.connected_devices, manager.is_connected(session.device_info.device_id)) == ({session}, True)


def test_a_rate_limit_reads_the_platforms_notation():
    limit = RateLimit("10:1,300:60", "name")
    assert (limit.name, limit.minimal_limit, limit.percentage, limit.has_limit()) == ("name", 8, 80, True)
    assert not RateLimit("0:0,").has_limit()
