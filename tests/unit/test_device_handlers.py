"""A device's payload format, handlers, dispatcher and pending requests without a client: forms, and invalid input."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrary import json_values, payloads
from engine_parts import own_tasks
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import request_id_of
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.requests.dispatch import QUIET_SECONDS, InboundDispatcher, InboundReport, matches
from tb_mqtt_client.service.requests.incoming import AttributeUpdatesHandler, ResponseHandler, RPCRequestsHandler
from tb_mqtt_client.service.requests.outgoing import PendingRequests
from tb_mqtt_client.service.requests.server_rpc import ServerSideRPC
from tb_mqtt_client.service.session.protocol import HandlerOptions

ATTRIBUTES = "v1/devices/me/attributes"

anything = json_values()
near_misses = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("method", "params", "deleted", "client", "shared", "error", "request_id"), anything)
)
any_payload = payloads(anything | near_misses)
topics = st.text() | st.builds(
    "/".join,
    st.lists(st.sampled_from(["v1", "devices", "me", "attributes", "rpc", "request", "response", "0", "7", "-1", "", "9" * 30])),
)


# The payload format.


async def build_each(payload_format, request_id):
    return [
        payload_format.build_attribute_request(AttributeRequest.of(request_id, ["a"], None)),
        payload_format.build_rpc_request((await RPCRequest.build("m", 1)).with_fields(request_id=request_id)),
        payload_format.build_rpc_response(RPCResponse.build(request_id, "r")),
    ]


async def test_topics_and_payloads_of_messages():
    payload_format = JsonDeviceFormat()
    messages = [*await build_each(payload_format, 7), payload_format.build_claim_request(ClaimRequest.build("s", 1))]
    assert [(message.topic, message.payload) for message in messages] == [
        (f"{ATTRIBUTES}/request/7", b'{"sharedKeys":"a"}'),
        ("v1/devices/me/rpc/request/7", b'{"id":7,"method":"m","params":1}'),
        ("v1/devices/me/rpc/response/7", b'{"result":"r"}'),
        ("v1/devices/me/claim", b'{"secretKey":"s","durationMs":1000}'),
    ]
    assert {(message.qos, message.datapoints, message.is_service_message) for message in messages} == {(1, 1, True)}


@pytest.mark.parametrize("request_id", [None, -1, 2**31, 1.0, True, "x", "-1", "1.5", "", "٣"])
async def test_contract_8_requests_with_unreadable_ids_raise(request_id):
    payload_format = JsonDeviceFormat()
    with pytest.raises(ValueError, match=r"^AttributeRequest must have a valid ID\.$"):
        payload_format.build_attribute_request(AttributeRequest.of(request_id, None, None))
    with pytest.raises(ValueError, match=r"^RPCRequest must have a valid ID\.$"):
        payload_format.build_rpc_request((await RPCRequest.build("m")).with_fields(request_id=request_id))


@pytest.mark.parametrize("request_id", [None, -(2**31) - 1, 2**31, 1.0, True, "x", "-2147483649", "1.5", "", "\u0663"])
def test_contract_8_responses_with_unreadable_ids_raise(request_id):
    with pytest.raises(ValueError, match=r"^RPCResponse must have a valid request ID\.$"):
        JsonDeviceFormat().build_rpc_response(RPCResponse.build(request_id))


@pytest.mark.parametrize("request_id", [-(2**31), -1, 0, 2**31 - 1])
def test_the_id_of_a_response_may_be_any_int32(request_id):
    assert JsonDeviceFormat().build_rpc_response(RPCResponse.build(request_id)).topic == f"v1/devices/me/rpc/response/{request_id}"


async def test_defect_54_an_id_may_be_text():
    assert JsonDeviceFormat().build_rpc_response(RPCResponse.build("12")).topic == "v1/devices/me/rpc/response/12"


def test_parsed_messages():
    payload_format = JsonDeviceFormat()
    response = payload_format.parse_attribute_response(f"{ATTRIBUTES}/response/5", b'{"client":{"a":1},"request_id":9}')
    assert (response.request_id, response["a"]) == (5, 1)
    assert payload_format.parse_attribute_update(b'{"deleted":["a"]}').deleted_keys == ["a"]
    request = payload_format.parse_rpc_request("v1/devices/me/rpc/request/0", b'{"method":"m","id":7}')
    assert (request.request_id, request.method) == (0, "m")
    assert payload_format.parse_rpc_response("v1/devices/me/rpc/response/3", b"[1]") == RPCResponse.build(3, [1])
    failed = payload_format.parse_rpc_response("v1/devices/me/rpc/response/3", b"no json")
    assert (failed.request_id, failed.status, failed.error["type"]) == (3, RPCStatus.ERROR, "JSONDecodeError")


@pytest.mark.parametrize("topic", ["", "x", "a/b", "a/+1", "a/1/", "a/99999999999", "a/2147483648", "a/١"])
def test_topics_without_a_valid_id(topic):
    payload_format = JsonDeviceFormat()
    for parse, text in (
        (payload_format.parse_attribute_response, "Invalid attribute request response format"),
        (payload_format.parse_rpc_request, "Invalid RPC request format"),
        (payload_format.parse_rpc_response, "Invalid RPC response format"),
    ):
        with pytest.raises(ValueError, match=f"^{text}$"):
            parse(topic, b'{"method":"m"}')
    assert request_id_of(topic) is None


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b"1", b"\xff", b'"a"', b"[" * 100_000, b'{"a":' * 100_000])
def test_payloads_that_are_not_objects(payload):
    payload_format = JsonDeviceFormat()
    with pytest.raises(ValueError, match=r"^Invalid attribute update format$"):
        payload_format.parse_attribute_update(payload)
    with pytest.raises(ValueError, match=r"^Invalid attribute request response format$"):
        payload_format.parse_attribute_response("a/1", payload)
    with pytest.raises(ValueError, match=r"^Invalid RPC request format$"):
        payload_format.parse_rpc_request("a/1", payload)


# Handlers.


def send(_response):
    raise AssertionError("the handler returns responses, and does not send them")


def updates_handler(report):
    return AttributeUpdatesHandler(JsonDeviceFormat(), report)


def rpc_requests_handler(report):
    rpc = ServerSideRPC(report, own_tasks(), send, lambda response, _: response, 60.0)
    return RPCRequestsHandler(JsonDeviceFormat(), report, rpc)


def response_handlers(report):
    payload_format = JsonDeviceFormat()
    return (
        ResponseHandler(payload_format, report, payload_format.parse_attribute_response),
        ResponseHandler(payload_format, report, payload_format.parse_rpc_response),
    )


PENDING = MqttPublishMessage("t", b"")


async def test_attribute_updates():
    updates, handler = [], updates_handler(InboundReport())
    await handler.handle(ATTRIBUTES, b'{"a":1}')
    handler.set_callback(updates.append)
    await handler.handle(ATTRIBUTES, b'{"a":2}')
    await handler.handle(ATTRIBUTES, b"no json")
    assert [update.as_dict() for update in updates] == [{"a": 2}]


async def test_responses_resolve_the_request_with_their_id():
    report = InboundReport()
    attributes, rpc = response_handlers(report)
    first, second, failed = attributes.pending.add(3, PENDING), rpc.pending.add(2, PENDING), rpc.pending.add(1, PENDING)
    with pytest.raises(RuntimeError, match=r"^Request ID 3 is already registered\.$"):
        attributes.pending.add(3, PENDING)
    await attributes.handle("a/4", b"{}")
    await attributes.handle("a/3", b'{"shared":{"a":1}}')
    await attributes.handle("a/3", b'{"shared":{"a":2}}')
    await attributes.handle("a/x", b"{}")
    await rpc.handle("a/2", b'{"v":1}')
    await rpc.handle("a/1", b'{"error":"wrong"}')
    assert first.result()["a"] == 1
    assert second.result().result == {"v": 1}
    assert (failed.result().status, failed.result().error) == (RPCStatus.ERROR, "wrong")
    counts = report.counts()
    assert (counts["inbound_unexpected"], counts["inbound_malformed"]) == (2, 1)


async def test_rpc_requests():
    handler = rpc_requests_handler(InboundReport())
    handler.set_callback(lambda request: RPCResponse.build(request.request_id, "r"))
    assert await handler.handle("a/0", b'{"method":"m"}') == RPCResponse.build(0, "r")
    assert await handler.handle("a/x", b'{"method":"m"}') is None


@given(st.lists(st.tuples(topics, any_payload), max_size=5))
def test_handlers_raise_nothing_for_any_message(messages):
    """``handle`` also leaves no task."""

    async def handle_all():
        report = InboundReport()
        updates, rpc_requests = updates_handler(report), rpc_requests_handler(report)
        for handler in (updates, rpc_requests):
            handler.set_callback(lambda message: message.request_id if hasattr(message, "request_id") else None)
        responses = response_handlers(report)
        for handler in responses:
            handler.pending.add(0, PENDING)
        for handler in (updates, rpc_requests, *responses):
            for topic, payload in messages:
                await handler.handle(topic, payload)
        for handler in responses:
            handler.pending.fail_all(ValueError("end"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(handle_all(), debug=False)


@given(topics | st.binary(), any_payload)
def test_the_dispatcher_raises_nothing_for_any_message(topic, payload):
    async def dispatch():
        report = InboundReport()
        dispatcher = InboundDispatcher(report, own_tasks())
        dispatcher.register(ATTRIBUTES, updates_handler(report).handle)
        dispatcher.register("v1/+/+", rpc_requests_handler(report).handle, HandlerOptions(concurrent=True))
        dispatcher.dispatch(topic, payload)
        assert report.messages == 1
        await dispatcher.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(dispatch())


# The dispatcher.


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("+/b/+", "x/b/y", True),
    ],
)
def test_topics_that_match_a_filter(topic_filter, topic, expected):
    assert matches(topic_filter, topic) is expected


async def test_the_handler_of_an_exact_topic_takes_precedence_over_a_pattern():
    handled = asyncio.Queue()
    dispatcher = InboundDispatcher(InboundReport(), own_tasks())

    async def exact(topic, _payload):
        handled.put_nowait(("exact", topic))

    async def pattern(topic, _payload):
        handled.put_nowait(("pattern", topic))

    dispatcher.register("a/+", pattern)
    dispatcher.register("a/1", exact)
    for topic in ("a/1", "a/2"):
        dispatcher.dispatch(topic, b"")
    assert {await handled.get(), await handled.get()} == {("exact", "a/1"), ("pattern", "a/2")}
    dispatcher.unregister("a/1")
    dispatcher.unregister("unknown")
    dispatcher.dispatch("a/1", b"")
    assert await handled.get() == ("pattern", "a/1")


async def test_taps_get_messages_before_their_handlers_and_make_them_expected():
    report, seen = InboundReport(), []
    dispatcher = InboundDispatcher(report, own_tasks())

    async def further(topic, _payload):
        seen.append(("further", topic))

    removes = [
        dispatcher.tap("#", lambda topic, payload: seen.append(("all", topic, payload))),
        dispatcher.tap("a/+", lambda topic, _payload: seen.append(("a/+", topic))),
        dispatcher.register_further("a/1", further),
    ]
    for topic in ("a/1", "b"):
        dispatcher.dispatch(topic, b"x")
    assert seen == [("all", "a/1", b"x"), ("a/+", "a/1"), ("all", "b", b"x")]
    await asyncio.sleep(0)
    assert seen[3:] == [("further", "a/1")]
    assert report.unexpected == 0
    for remove in removes:
        remove()
        remove()
    dispatcher.dispatch("a/1", b"x")
    await asyncio.sleep(0)
    assert (len(seen), report.unexpected) == (4, 1)


async def test_a_defect_of_a_handler_is_reported_to_the_loop_and_later_messages_are_handled():
    errors, seen = [], asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    dispatcher = InboundDispatcher(InboundReport(), own_tasks())

    async def handler(_topic, payload):
        seen.put_nowait(payload)
        if payload == b"bad":
            raise ZeroDivisionError

    dispatcher.register("a", handler)
    for payload in (b"bad", b"good"):
        dispatcher.dispatch("a", payload)
    assert [await seen.get(), await seen.get()] == [b"bad", b"good"]
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]


async def test_messages_after_a_cancelled_worker_are_handled():
    """A cancelled task of a topic family is replaced."""
    seen, dispatcher = asyncio.Queue(), InboundDispatcher(InboundReport(), own_tasks())

    async def handler(_topic, payload):
        seen.put_nowait(payload)
        if payload == b"cancelled":
            raise asyncio.CancelledError

    dispatcher.register("a", handler)
    for payload in (b"cancelled", b"next"):
        dispatcher.dispatch("a", payload)
    assert [await seen.get(), await seen.get()] == [b"cancelled", b"next"]


async def test_stop_does_not_cancel_the_callback_that_calls_it():
    dispatcher, done = InboundDispatcher(InboundReport(), own_tasks()), asyncio.Event()

    async def handler(_topic, _payload):
        await dispatcher.stop()
        done.set()

    dispatcher.register("a", handler)
    dispatcher.dispatch("a", b"")
    await done.wait()


def test_warnings_do_not_flood(caplog):
    now = 0.0
    report = InboundReport(clock=lambda: now)
    with caplog.at_level(logging.DEBUG):
        for _ in range(5):
            report.message_unexpected("t", "no request is pending")
            report.message_malformed("t", b"x" * 1000, ValueError("bad"))
        now = QUIET_SECONDS
        report.message_unexpected("t", "no request is pending")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "Unexpected message on t: no request is pending",
        f"A message on t cannot be read (bad): {b'x' * 100!r}",
        "Unexpected message on t: no request is pending (and 4 more like this since the last such line)",
    ]
    assert len(caplog.records) == 11
    assert (report.counts()["inbound_unexpected"], report.counts()["inbound_malformed"]) == (6, 5)


# Pending requests.


async def test_a_pending_request_ends_once():
    pending = PendingRequests()
    publishes = [MqttPublishMessage("t", b"") for _ in range(3)]
    resolved, failed, unsent = (pending.add(key, publish) for key, publish in enumerate(publishes))
    assert (len(pending), 1 in pending, 9 in pending) == (3, True, False)
    assert pending.resolve(0, "response")
    assert not pending.resolve(0, "again")
    assert not pending.resolve(9, "unknown")
    publishes[1].mark_as_sent(1)
    pending.fail_sent(ConnectionError("lost"))
    assert not pending.resolve(1, "too late")
    assert not unsent.done()
    pending.fail_all(ValueError("end"))
    assert resolved.result() == "response"
    assert isinstance(failed.exception(), ConnectionError)
    assert isinstance(unsent.exception(), ValueError)
    await asyncio.sleep(0)
    assert len(pending) == 0
