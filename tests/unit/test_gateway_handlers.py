"""A gateway's adapter, sender and handlers on their own: published forms, and input that nobody wants."""

import asyncio
import inspect
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_parts import own_tasks
from tb_mqtt_client import GatewayClient
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
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
from tb_mqtt_client.service.gateway.message_sender import GatewayMessageSender
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.requests.dispatch import InboundReport

ADAPTER = JsonGatewayFormat()
RPC, ATTRIBUTES, RESPONSE = "v1/gateway/rpc", "v1/gateway/attributes", "v1/gateway/attributes/response"


@pytest.fixture
def manager():
    manager = DeviceManager()
    manager.register("D1")
    return manager


@pytest.fixture
def session(manager):
    return manager.get_by_name("D1")


# The adapter.


async def test_publishes(session):
    claim = GatewayClaimRequestBuilder().add_device_request(session, ClaimRequest.build("s", 1)).build()
    request = GatewayAttributeRequest.of(3, ["a"], None).with_fields(device_session=session)
    messages = [
        ADAPTER.build_connect(DeviceConnectMessage.build("D1", "p")),
        ADAPTER.build_disconnect(DeviceDisconnectMessage.build("D1")),
        ADAPTER.build_attribute_request(request),
        ADAPTER.build_rpc_response(GatewayRPCResponse.build("D1", 0, [1])),
        ADAPTER.build_claim_request(claim),
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
async def test_contract_9_the_adapter_builds_no_request_that_the_server_disconnects_for(session, shared, client):
    request = await GatewayAttributeRequest.build(session, shared, client)
    with pytest.raises(ValueError, match="must ask for keys of one scope"):
        ADAPTER.build_attribute_request(request)


async def test_a_claim_of_nobody():
    with pytest.raises(ValueError, match="must have at least one device"):
        ADAPTER.build_claim_request(GatewayClaimRequest.build())


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{", b"[]", b"null", b'"x"', b"[" * 100_000])
def test_payloads_that_are_not_objects(payload):
    for parse in (ADAPTER.parse_attribute_update, ADAPTER.parse_attribute_response, ADAPTER.parse_rpc_request):
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
async def test_answers_to_attribute_requests(session, keys, data, found):
    request = await GatewayAttributeRequest.build(session, *keys)
    reply = ADAPTER.parse_attribute_response(json.dumps({"device": "D1", "id": 99} | data).encode())
    assert (reply.device_name, reply.request_id) == ("D1", 99)
    response = ADAPTER.attributes_of(request, reply)
    assert ({e.key: e.value for e in response.shared}, {e.key: e.value for e in response.client}) == found
    assert (response.request_id, response.device_name) == (request.request_id, "D1")


@pytest.mark.parametrize("data", [{}, {"device": 1}, {"id": "x"}, {"values": [1]}])
def test_attribute_responses_that_cannot_be_read(data):
    with pytest.raises(ValueError, match=r".+"):
        ADAPTER.parse_attribute_response(json.dumps({"device": "D1", "id": 1} | data if data else data).encode())


async def test_attributes_that_cannot_be_read(session):
    reply = ADAPTER.parse_attribute_response(b'{"device":"D1","id":1,"values":{"":1}}')
    with pytest.raises(ValueError, match=r".+"):
        ADAPTER.attributes_of(await GatewayAttributeRequest.build(session, ["a"]), reply)


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
def test_rpc_requests_that_cannot_be_read(data, address):
    with pytest.raises(UnreadableRPCRequestError, match="RPC request") as raised:
        ADAPTER.parse_rpc_request(json.dumps(data).encode())
    assert (raised.value.device_name, raised.value.request_id) == address


@pytest.mark.parametrize(
    "data", [{}, {"device": "D1"}, {"device": "D1", "data": 1}, {"data": {"a": 1}}, {"device": "D1", "data": {"": 1}}]
)
def test_attribute_updates_that_cannot_be_read(data):
    with pytest.raises(ValueError, match=r".+"):
        ADAPTER.parse_attribute_update(json.dumps(data).encode())


@pytest.mark.parametrize("data", [{}, {"device": "D1"}, {"device": "D1", "reason": "x"}, {"reason": 1}, {"device": 1, "reason": 1}])
def test_disconnect_notices_that_cannot_be_read(data):
    with pytest.raises(ValueError, match=r".+"):
        ADAPTER.parse_disconnect_notice(json.dumps(data).encode())


def test_a_payload_is_renamed():
    assert ADAPTER.rename(b'{"a\\"b":[{"x":1}]}', 'a"b', "é") == '{"é":[{"x":1}]}'.encode()


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
    """SDK 2.0 had other names in its interface than in its client."""
    assert list(inspect.signature(getattr(GatewayClient, name)).parameters)[1 : len(parameters) + 1] == parameters


# The sender.


class Queue(MessageService):
    """Keeps what is published."""

    def __init__(self):
        self.messages, self.uplinks = [], []
        self.intake = self

    def submit(self, message):
        self.messages.append(message)

    async def accept(self, encoded):
        self.uplinks.append(encoded)
        return asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("qos", [0, 1])
async def test_contract_4_what_is_of_sub_devices_has_qos_1(session, qos):
    sender, queue = GatewayMessageSender(), Queue()
    sender.set_message_queue(queue)
    sender.set_payload_format(ADAPTER)
    claim = GatewayClaimRequestBuilder().add_device_request("D1", ClaimRequest.build("s")).build()
    for sending in (
        sender.send_device_connect(DeviceConnectMessage.build("D1"), qos),
        sender.send_device_disconnect(DeviceDisconnectMessage.build("D1"), qos),
        sender.send_attributes_request(await GatewayAttributeRequest.build(session, ["a"]), qos),
        sender.send_rpc_response(GatewayRPCResponse.build("D1", 1), qos),
        sender.send_claim_request(claim, qos),
    ):
        [future] = await sending
        # The caller's own: who cancels it changes nothing.
        assert future in queue.messages[-1].delivery_futures[1:]
    assert [message.topic.removeprefix("v1/gateway/") for message in queue.messages] == [
        "connect",
        "disconnect",
        "attributes/request",
        "rpc",
        "claim",
    ]
    assert {(message.qos, message.device) for message in queue.messages} == {(1, None)}


async def test_a_sent_uplink_answers_its_futures():
    queue = Queue()
    message = uplink(TimeseriesEntry("a", 1))
    [future] = await GatewayMessageSender(ADAPTER, queue).send_uplink_message(message)
    assert queue.uplinks == [message.encoded]
    result = PublishResult("t", 1, 1, 1, 0)
    future.set_result(result)
    assert await asyncio.gather(*message.get_delivery_futures()) == [result]


async def test_a_sender_without_what_it_needs():
    sender = GatewayMessageSender()
    for sending in (
        sender.send_device_connect(DeviceConnectMessage.build("D1")),
        sender.send_uplink_message(uplink(TimeseriesEntry("a", 1))),
    ):
        with pytest.raises(NotConnectedError, match="set_message_queue"):
            await sending
    for wrong in (None, "json", object()):
        with pytest.raises(ValueError, match="payload_format must be an instance of GatewayFormat"):
            sender.set_payload_format(wrong)
        with pytest.raises(ValueError, match="message_queue must be an instance of MessageService"):
            sender.set_message_queue(wrong)


# Handlers on their own.


async def test_calls_at_the_handler(manager, session):
    """Answers go to the dispatcher, whose handler may be the sender."""
    dispatcher, queue = DirectEventDispatcher(), Queue()
    dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, GatewayMessageSender(ADAPTER, queue).send_rpc_response)
    handler = GatewayRPCHandler(dispatcher, ADAPTER, manager, own_tasks())
    session.set_rpc_request_callback(lambda _session, request: RPCResponse.build(request.request_id, request.params))
    call = json.dumps({"device": "D1", "data": {"id": 1, "method": "m", "params": 7}}).encode()
    handling = asyncio.create_task(handler.handle(RPC, call))
    while not queue.messages:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert queue.messages[0].payload == b'{"device":"D1","id":1,"data":{"result":7}}'
    # The call is over when its answer is delivered.
    assert not handling.done()
    for delivery in queue.messages[0].delivery_futures:
        delivery.set_result(None)
    await handling
    # Without a handler for answers there is nobody to tell.
    await GatewayRPCHandler(DirectEventDispatcher(), ADAPTER, manager, own_tasks()).handle(RPC, call)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)
inner = anything | st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "method", "params", "deleted"), anything | st.just(1)))
fields = dict.fromkeys(("value", "values", "reason"), anything) | {
    "device": st.just("D1") | anything,
    "id": st.just(1) | anything,
    "data": inner,
}
payloads = st.binary() | st.builds(lambda value: json.dumps(value).encode(), anything | st.fixed_dictionaries({}, optional=fields))


@given(payload=payloads)
def test_no_handler_raises(payload):
    """Whatever comes, it is counted as malformed or as nobody's, or reaches a callback, or is of no interest."""
    logging.disable(logging.CRITICAL)

    async def scenario():
        report, manager = InboundReport(), DeviceManager()
        session = manager.register("D1")
        for kind in ("attribute_update", "attribute_response", "rpc_request"):
            getattr(session, f"set_{kind}_callback")(lambda *_: 1 / 0)
        dispatcher = DirectEventDispatcher(report)
        arguments = dispatcher, ADAPTER, manager
        responses = GatewayRequestedAttributeResponseHandler(*arguments, report)
        request = GatewayAttributeRequest.of(1, ["a"], None).with_fields(device_session=session)
        responses.remember(request, responses.pending.add(key_of(request), MqttPublishMessage("t", b"")))
        calls = GatewayRPCHandler(*arguments, own_tasks(), report)
        for handler in (GatewayAttributeUpdatesHandler(*arguments, report), calls, responses):
            await handler.handle("topic", payload)
        calls.refusal("topic", payload)
        responses.pending.fail_all(ValueError("end"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(scenario())
    finally:
        logging.disable(logging.NOTSET)
