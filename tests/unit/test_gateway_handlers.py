"""A gateway's payload format, sender and handlers without a client: forms, and invalid input."""

import asyncio
import inspect
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrary import json_values, payloads
from engine_parts import own_tasks
from tb_mqtt_client import GatewayClient
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest, GatewayClaimRequestBuilder
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessageBuilder
from tb_mqtt_client.entities.gateway_event import GatewayEventType
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.formats.protocol import UnreadableRPCRequestError
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.incoming import (
    GatewayAttributeUpdatesHandler,
    GatewayRequestedAttributeResponseHandler,
    GatewayRPCHandler,
    key_of,
)
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.server_rpc import ServerSideRPC

FORMAT = JsonGatewayFormat()
RPC, ATTRIBUTES, RESPONSE = "v1/gateway/rpc", "v1/gateway/attributes", "v1/gateway/attributes/response"


@pytest.fixture
def manager():
    manager = DeviceManager()
    manager.register("D1")
    return manager


@pytest.fixture
def session(manager):
    return manager.get_by_name("D1")


# The payload format.


async def test_topics_and_payloads_of_messages(session):
    claim = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("s", 1)).build()
    request = GatewayAttributeRequest.of(3, ["a"], None).with_fields(device_session=session)
    messages = [
        FORMAT.build_connect(DeviceConnectMessage.build("D1", "p")),
        FORMAT.build_disconnect(DeviceDisconnectMessage.build("D1")),
        FORMAT.build_attribute_request(request),
        FORMAT.build_rpc_response(GatewayRPCResponse.build("D1", 0, [1])),
        FORMAT.build_claim_request(claim),
    ]
    assert [(message.topic, message.payload) for message in messages] == [
        ("v1/gateway/connect", b'{"device":"D1","type":"p"}'),
        ("v1/gateway/disconnect", b'{"device":"D1"}'),
        ("v1/gateway/attributes/request", b'{"device":"D1","id":3,"client":false,"key":"a"}'),
        (RPC, b'{"device":"D1","id":0,"data":{"result":[1]}}'),
        ("v1/gateway/claim", b'{"D1":{"secretKey":"s","durationMs":1000}}'),
    ]
    assert {(message.qos, message.datapoints, message.is_service_message, message.is_device_message) for message in messages} == {
        (1, 0, True, False)
    }


@pytest.mark.parametrize(("shared", "client"), [(None, None), ([], []), (["a"], ["b"])])
async def test_contract_9_requests_for_which_the_server_disconnects_raise(session, shared, client):
    request = await GatewayAttributeRequest.build(session, shared, client)
    with pytest.raises(ValueError, match="must ask for keys of one scope"):
        FORMAT.build_attribute_request(request)


async def test_a_claim_without_a_device_raises():
    with pytest.raises(ValueError, match="must have at least one device"):
        FORMAT.build_claim_request(GatewayClaimRequest.build())


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{", b"[]", b"null", b'"x"', b"[" * 100_000])
def test_payloads_that_are_not_objects(payload):
    for parse in (FORMAT.parse_attribute_update, FORMAT.parse_attribute_response, FORMAT.parse_rpc_request):
        with pytest.raises(ValueError, match=r".+"):
            parse(payload)


@pytest.mark.parametrize(
    ("keys", "data", "found"),
    [
        ((["a"], None), {"value": 1}, ({"a": 1}, {})),
        ((None, ["a"]), {"value": None}, ({}, {"a": None})),
        ((["a", "b"], None), {"values": {"a": 1, "b": 2}}, ({"a": 1, "b": 2}, {})),
        ((["a", "b"], None), {"value": 1}, ({}, {})),
        ((["a"], None), {}, ({}, {})),
        ((["a"], ["b"]), {"value": 1}, ({}, {"b": 1})),
        ((None, None), {"values": {"a": 1}}, ({"a": 1}, {})),
    ],
)
async def test_responses_to_attribute_requests(session, keys, data, found):
    request = await GatewayAttributeRequest.build(session, *keys)
    reply = FORMAT.parse_attribute_response(json.dumps({"device": "D1", "id": 99} | data).encode())
    assert (reply.device_name, reply.request_id) == ("D1", 99)
    response = FORMAT.attributes_of(request, reply)
    assert ({e.key: e.value for e in response.shared}, {e.key: e.value for e in response.client}) == found
    assert (response.request_id, response.device_name) == (request.request_id, "D1")


@pytest.mark.parametrize("data", [{}, {"device": 1}, {"id": "x"}, {"values": [1]}])
def test_unreadable_attribute_responses_raise(data):
    with pytest.raises(ValueError, match=r".+"):
        FORMAT.parse_attribute_response(json.dumps({"device": "D1", "id": 1} | data if data else data).encode())


async def test_unreadable_attributes_raise(session):
    reply = FORMAT.parse_attribute_response(b'{"device":"D1","id":1,"values":{"":1}}')
    with pytest.raises(ValueError, match=r".+"):
        FORMAT.attributes_of(await GatewayAttributeRequest.build(session, ["a"]), reply)


@pytest.mark.parametrize(
    ("data", "address"),
    [
        ({}, (None, None)),
        ({"device": "D1"}, ("D1", None)),
        ({"device": "D1", "data": 1}, ("D1", None)),
        ({"device": "D1", "data": {"id": 1}}, ("D1", 1)),
        ({"device": "", "data": {"id": True}}, (None, None)),
    ],
)
def test_unreadable_rpc_requests_raise(data, address):
    with pytest.raises(UnreadableRPCRequestError, match="RPC request") as raised:
        FORMAT.parse_rpc_request(json.dumps(data).encode())
    assert (raised.value.device_name, raised.value.request_id) == address


@pytest.mark.parametrize(
    "data", [{}, {"device": "D1"}, {"device": "D1", "data": 1}, {"data": {"a": 1}}, {"device": "D1", "data": {"": 1}}]
)
def test_unreadable_attribute_updates_raise(data):
    with pytest.raises(ValueError, match=r".+"):
        FORMAT.parse_attribute_update(json.dumps(data).encode())


@pytest.mark.parametrize("data", [{}, {"device": "D1"}, {"device": "D1", "reason": "x"}, {"reason": 1}, {"device": 1, "reason": 1}])
def test_unreadable_notices_of_a_disconnect_raise(data):
    with pytest.raises(ValueError, match=r".+"):
        FORMAT.parse_disconnect_notice(json.dumps(data).encode())


def test_the_device_in_a_payload_is_renamed():
    assert FORMAT.rename(b'{"a\\"b":[{"x":1}]}', 'a"b', "é") == '{"é":[{"x":1}]}'.encode()


def uplink(*entries, attributes=(), main_ts=None):
    builder = GatewayUplinkMessageBuilder().set_device_name("D1").set_main_ts(main_ts)
    return builder.add_timeseries(list(entries)).add_attributes(list(attributes)).build()


@pytest.mark.parametrize(
    ("name", "parameters"),
    {
        "connect_device": ["device_name_or_device_connect_message", "device_profile", "wait_for_publish"],
        "disconnect_device": ["device_session", "wait_for_publish"],
        "send_device_timeseries": ["device_session", "data", "wait_for_publish"],
        "send_device_attributes": ["device_session", "data", "wait_for_publish"],
        "send_device_attributes_request": ["device_session", "attribute_request", "wait_for_publish"],
        "send_device_claim_request": ["device_session", "gateway_claim_request", "wait_for_publish"],
    }.items(),
)
def test_defect_50_parameters_have_one_name(name, parameters):
    """In SDK 2.0, the names of the interface and of the client differed."""
    assert list(inspect.signature(getattr(GatewayClient, name)).parameters)[1 : len(parameters) + 1] == parameters


# Handlers.


def rpc_handler(dispatcher, manager, report):
    def send(_response):
        raise AssertionError("the handler dispatches responses, and does not send them")

    rpc = ServerSideRPC(report, own_tasks(), send, lambda response, _: response, 60.0)
    return GatewayRPCHandler(dispatcher, FORMAT, manager, report, rpc)


async def test_responses_to_rpc_requests_are_dispatched(manager, session):
    dispatcher, responses, delivery = DirectEventDispatcher(InboundReport()), [], asyncio.get_running_loop().create_future()

    def send(response):
        responses.append(FORMAT.build_rpc_response(response))
        return [delivery]

    dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, send)
    handler = rpc_handler(dispatcher, manager, InboundReport())
    session.set_rpc_request_callback(lambda _session, request: RPCResponse.build(request.request_id, request.params))
    request = json.dumps({"device": "D1", "data": {"id": 1, "method": "m", "params": 7}}).encode()
    handling = asyncio.create_task(handler.handle(RPC, request))
    while not responses:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert responses[0].payload == b'{"device":"D1","id":1,"data":{"result":7}}'
    # Processing ends with the acknowledgement of the response.
    assert not handling.done()
    delivery.set_result(None)
    await handling
    # Without a handler of the event, the response is not sent.
    await rpc_handler(DirectEventDispatcher(InboundReport()), manager, InboundReport()).handle(RPC, request)


anything = json_values()
inner = anything | st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "method", "params", "deleted"), anything | st.just(1)))
fields = dict.fromkeys(("value", "values", "reason"), anything) | {
    "device": st.just("D1") | anything,
    "id": st.just(1) | anything,
    "data": inner,
}
any_payload = payloads(anything | st.fixed_dictionaries({}, optional=fields))


@given(payload=any_payload)
def test_handlers_raise_nothing_for_any_payload(payload):
    """A message is counted as malformed or unexpected, reaches a callback, or is ignored."""
    logging.disable(logging.CRITICAL)

    async def scenario():
        report, manager = InboundReport(), DeviceManager()
        session = manager.register("D1")
        for kind in ("attribute_update", "attribute_response", "rpc_request"):
            getattr(session, f"set_{kind}_callback")(lambda *_: 1 / 0)
        dispatcher = DirectEventDispatcher(report)
        responses = GatewayRequestedAttributeResponseHandler(FORMAT, manager, report)
        request = GatewayAttributeRequest.of(1, ["a"], None).with_fields(device_session=session)
        responses.remember(request, responses.pending.add(key_of(request), MqttPublishMessage("t", b"")))
        rpc_requests = rpc_handler(dispatcher, manager, report)
        updates = GatewayAttributeUpdatesHandler(dispatcher, FORMAT, manager, report)
        for handler in (updates, rpc_requests, responses):
            await handler.handle("topic", payload)
        rpc_requests.refusal("topic", payload)
        responses.pending.fail_all(ValueError("end"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(scenario())
    finally:
        logging.disable(logging.NOTSET)
