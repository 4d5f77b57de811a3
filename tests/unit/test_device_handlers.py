"""Handlers, adapters and the way to them on their own: published forms, and input that nobody wants."""

import asyncio
import json
import logging
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.common.async_utils import callback_task, end_tasks, seconds_or_none
from tb_mqtt_client.common.exceptions import RPCError, TBMQTTError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse, RPCStatus
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.service.formats.json_device import JsonMessageAdapter, MessageAdapter, request_id_of
from tb_mqtt_client.service.requests.callbacks import call_reporting
from tb_mqtt_client.service.requests.dispatch import QUIET_SECONDS, InboundDispatcher, InboundReport, matches
from tb_mqtt_client.service.requests.handlers import (
    AttributeUpdatesHandler,
    RequestedAttributeResponseHandler,
    RPCRequestsHandler,
    RPCResponseHandler,
)
from tb_mqtt_client.service.requests.pending import PendingRequests

ATTRIBUTES = "v1/devices/me/attributes"
HANDLERS = (AttributeUpdatesHandler, RPCRequestsHandler, RequestedAttributeResponseHandler, RPCResponseHandler)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)
near_misses = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("method", "params", "deleted", "client", "shared", "error", "request_id"), anything)
)
payloads = st.binary() | st.builds(lambda value: json.dumps(value).encode(), anything | near_misses)
topics = st.text() | st.builds(
    "/".join,
    st.lists(st.sampled_from(["v1", "devices", "me", "attributes", "rpc", "request", "response", "0", "7", "-1", "", "9" * 30])),
)


# Adapters.


async def build_each(adapter, request_id):
    return [
        adapter.build_attribute_request(AttributeRequest.of(request_id, ["a"], None)),
        adapter.build_rpc_request((await RPCRequest.build("m", 1)).with_fields(request_id=request_id)),
        adapter.build_rpc_response(RPCResponse.build(request_id, "r")),
    ]


async def test_publishes():
    adapter = JsonMessageAdapter()
    messages = [*await build_each(adapter, 7), adapter.build_claim_request(ClaimRequest.build("s", 1))]
    assert [(message.topic, message.payload) for message in messages] == [
        (f"{ATTRIBUTES}/request/7", b'{"sharedKeys":"a"}'),
        ("v1/devices/me/rpc/request/7", b'{"id":7,"method":"m","params":1}'),
        ("v1/devices/me/rpc/response/7", b'{"result":"r"}'),
        ("v1/devices/me/claim", b'{"secretKey":"s","durationMs":1000}'),
    ]
    assert {(message.qos, message.datapoints, message.is_service_message) for message in messages} == {(1, 1, True)}


@pytest.mark.parametrize("request_id", [None, -1, 2**31, 1.0, True, "x", "-1", "1.5", "", "٣"])
async def test_contract_8_ids_that_the_server_cannot_read(request_id):
    adapter = JsonMessageAdapter()
    with pytest.raises(ValueError, match=r"^AttributeRequest must have a valid ID\.$"):
        adapter.build_attribute_request(AttributeRequest.of(request_id, None, None))
    with pytest.raises(ValueError, match=r"^RPCRequest must have a valid ID\.$"):
        adapter.build_rpc_request((await RPCRequest.build("m")).with_fields(request_id=request_id))


@pytest.mark.parametrize("request_id", [None, -(2**31) - 1, 2**31, 1.0, True, "x", "-2147483649", "1.5", "", "\u0663"])
def test_contract_8_ids_of_responses_that_the_server_cannot_read(request_id):
    with pytest.raises(ValueError, match=r"^RPCResponse must have a valid request ID\.$"):
        JsonMessageAdapter().build_rpc_response(RPCResponse.build(request_id))


@pytest.mark.parametrize("request_id", [-(2**31), -1, 0, 2**31 - 1])
def test_a_response_has_the_id_of_the_platform_whatever_int32_it_is(request_id):
    assert (
        JsonMessageAdapter().build_rpc_response(RPCResponse.build(request_id)).topic == f"v1/devices/me/rpc/response/{request_id}"
    )


async def test_defect_54_an_id_may_be_text():
    assert JsonMessageAdapter().build_rpc_response(RPCResponse.build("12")).topic == "v1/devices/me/rpc/response/12"


def test_parsing():
    adapter = JsonMessageAdapter()
    response = adapter.parse_requested_attribute_response(f"{ATTRIBUTES}/response/5", b'{"client":{"a":1},"request_id":9}')
    assert (response.request_id, response["a"]) == (5, 1)
    assert adapter.parse_attribute_update(b'{"deleted":["a"]}').deleted_keys == ["a"]
    request = adapter.parse_rpc_request("v1/devices/me/rpc/request/0", b'{"method":"m","id":7}')
    assert (request.request_id, request.method) == (0, "m")
    assert adapter.parse_rpc_response("v1/devices/me/rpc/response/3", b"[1]") == RPCResponse.build(3, [1])
    failed = adapter.parse_rpc_response("v1/devices/me/rpc/response/3", b"no json")
    assert (failed.request_id, failed.status, failed.error["type"]) == (3, RPCStatus.ERROR, "JSONDecodeError")


@pytest.mark.parametrize("topic", ["", "x", "a/b", "a/+1", "a/1/", "a/99999999999", "a/2147483648", "a/١"])
def test_topics_without_a_number(topic):
    adapter = JsonMessageAdapter()
    for parse, text in (
        (adapter.parse_requested_attribute_response, "Invalid attribute request response format"),
        (adapter.parse_rpc_request, "Invalid RPC request format"),
        (adapter.parse_rpc_response, "Invalid RPC response format"),
    ):
        with pytest.raises(ValueError, match=f"^{text}$"):
            parse(topic, b'{"method":"m"}')
    assert request_id_of(topic) is None


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b"1", b"\xff", b'"a"', b"[" * 100_000, b'{"a":' * 100_000])
def test_payloads_that_are_no_objects(payload):
    adapter = JsonMessageAdapter()
    with pytest.raises(ValueError, match=r"^Invalid attribute update format$"):
        adapter.parse_attribute_update(payload)
    with pytest.raises(ValueError, match=r"^Invalid attribute request response format$"):
        adapter.parse_requested_attribute_response("a/1", payload)
    with pytest.raises(ValueError, match=r"^Invalid RPC request format$"):
        adapter.parse_rpc_request("a/1", payload)


def test_an_adapter_of_ones_own_needs_all_methods():
    assert MessageAdapter.__abstractmethods__ >= {
        "build_uplink_messages", "build_attribute_request", "build_claim_request", "build_rpc_request", "build_rpc_response",
        "parse_requested_attribute_response", "parse_attribute_update", "parse_rpc_request", "parse_rpc_response",
    }  # fmt: skip
    with pytest.raises(TypeError, match="abstract"):
        MessageAdapter()


async def test_packing_one_message():
    builder = DeviceUplinkMessageBuilder().set_device_name("d").add_attributes([AttributeEntry("a", 1), AttributeEntry("b", "x")])
    builder.add_timeseries([TimeseriesEntry("p", 1, 1000), TimeseriesEntry("q", 2), TimeseriesEntry("z", 4, 1000)])
    stamped = builder.set_main_ts(5).build()
    assert JsonMessageAdapter.pack_attributes(stamped) == {"a": 1, "b": "x"}
    records = [{"ts": 1000, "values": {"p": 1, "z": 4}}, {"ts": 5, "values": {"q": 2}}]
    assert JsonMessageAdapter.pack_timeseries(stamped) == records
    assert json.loads(JsonMessageAdapter.build_payload(stamped, True)) == records
    assert JsonMessageAdapter.build_payload(stamped, False) == b'{"a":1,"b":"x"}'
    unstamped = DeviceUplinkMessageBuilder().add_timeseries([TimeseriesEntry("p", 1), TimeseriesEntry("q", 2)]).build()
    assert JsonMessageAdapter.pack_timeseries(unstamped) == {"p": 1, "q": 2}
    mixed = DeviceUplinkMessageBuilder().add_timeseries([TimeseriesEntry("p", 1, 1), TimeseriesEntry("q", 2)]).build()
    first, second = JsonMessageAdapter.pack_timeseries(mixed)
    assert first == {"ts": 1, "values": {"p": 1}}
    assert second["values"] == {"q": 2}
    assert second["ts"] > 1_600_000_000_000


# Handlers.


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_adapter_has_to_be_one(handler):
    handler().set_message_adapter(JsonMessageAdapter())
    for wrong in (None, "adapter", JsonMessageAdapter):
        with pytest.raises(ValueError, match=r"^message_adapter must be an instance of MessageAdapter\.$"):
            handler().set_message_adapter(wrong)


async def test_attribute_updates():
    updates, handler = [], AttributeUpdatesHandler()
    await handler.handle(ATTRIBUTES, b'{"a":1}')
    handler.set_callback(updates.append)
    await handler.handle(ATTRIBUTES, b'{"a":2}')
    await handler.handle(ATTRIBUTES, b"no json")
    assert [update.as_dict() for update in updates] == [{"a": 2}]


async def test_requested_attributes():
    told, handler = [], RequestedAttributeResponseHandler()

    async def callback(response):
        told.append(response)

    request = AttributeRequest.of(3, ["a"], None)
    await handler.register_request(request, callback)
    with pytest.raises(RuntimeError, match=r"^Request ID 3 is already registered\.$"):
        await handler.register_request(request, callback)
    await handler.handle("a/4", b"{}")
    await handler.handle("a/3", b'{"shared":{"a":1}}')
    await handler.handle("a/3", b'{"shared":{"a":2}}')
    assert [response["a"] for response in told] == [1]
    await handler.register_request(request, callback)
    handler.unregister_request(3)
    handler.unregister_request(3)
    await handler.register_request(request, callback)
    handler.clear()
    await handler.handle("a/3", b'{"shared":{"a":3}}')
    assert len(told) == 1


async def test_rpc_requests():
    handler = RPCRequestsHandler()
    handler.set_callback(lambda request: RPCResponse.build(request.request_id, "r"))
    assert await handler.handle("a/0", b'{"method":"m"}') == RPCResponse.build(0, "r")
    assert await handler.handle("a/x", b'{"method":"m"}') is None


async def test_rpc_responses():
    told, handler = [], RPCResponseHandler()

    async def callback(response):
        told.append(response)

    first, second = handler.register_request(1), handler.register_request(2, callback)
    with pytest.raises(RuntimeError, match=r"^Request ID 1 is already registered\.$"):
        handler.register_request(1)
    await handler.handle("a/2", b'{"v":1}')
    await handler.handle("a/1", b"5")
    assert (first.result().result, second.result().result, told) == (5, {"v": 1}, [second.result()])
    failed = handler.register_request(1, callback)
    await handler.handle("a/1", b'{"error":"wrong"}')
    with pytest.raises(RPCError, match=r"^wrong$") as raised:
        failed.result()
    assert isinstance(raised.value, TBMQTTError)
    assert (raised.value.response, told[-1].status) == (told[-1], RPCStatus.ERROR)

    def fail(_):
        raise ZeroDivisionError

    failed = handler.register_request(1, fail)
    await handler.handle("a/1", b"{}")
    with pytest.raises(ZeroDivisionError):
        failed.result()
    cancelled = handler.register_request(1)
    handler.clear()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


@given(st.lists(st.tuples(topics, payloads), max_size=5))
def test_no_message_gets_an_exception_out_of_a_handler(messages):
    """Whatever the topic and the payload are, ``handle`` raises nothing and leaves no task."""

    async def handle_all():
        for handler_class in HANDLERS:
            handler = handler_class()
            if hasattr(handler, "set_callback"):
                handler.set_callback(lambda message: message.request_id if hasattr(message, "request_id") else None)
            elif handler_class is RPCResponseHandler:
                handler.register_request(0).add_done_callback(lambda future: future.cancelled() or future.exception())
            else:
                await handler.register_request(AttributeRequest.of(0, None, None), lambda _: None)
            for topic, payload in messages:
                await handler.handle(topic, payload)
            if hasattr(handler, "clear"):
                handler.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(handle_all(), debug=False)


@given(topics | st.binary(), payloads)
def test_no_message_gets_an_exception_out_of_the_dispatcher(topic, payload):
    async def dispatch():
        report = InboundReport()
        dispatcher = InboundDispatcher(report)
        dispatcher.register(ATTRIBUTES, AttributeUpdatesHandler(report=report).handle)
        dispatcher.register("v1/+/+", RPCRequestsHandler(report=report).handle, side_by_side=True)
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
def test_filters(topic_filter, topic, expected):
    assert matches(topic_filter, topic) is expected


async def test_an_exact_handler_goes_before_a_pattern():
    told = asyncio.Queue()
    dispatcher = InboundDispatcher(InboundReport())

    async def exact(topic, _payload):
        told.put_nowait(("exact", topic))

    async def pattern(topic, _payload):
        told.put_nowait(("pattern", topic))

    dispatcher.register("a/+", pattern)
    dispatcher.register("a/1", exact)
    for topic in ("a/1", "a/2"):
        dispatcher.dispatch(topic, b"")
    assert {await told.get(), await told.get()} == {("exact", "a/1"), ("pattern", "a/2")}
    dispatcher.unregister("a/1")
    dispatcher.unregister("unknown")
    dispatcher.dispatch("a/1", b"")
    assert await told.get() == ("pattern", "a/1")


async def test_a_defect_of_a_handler_is_told_to_the_loop_and_keeps_nobody():
    told, seen = [], asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    dispatcher = InboundDispatcher(InboundReport())

    async def handler(_topic, payload):
        seen.put_nowait(payload)
        if payload == b"bad":
            raise ZeroDivisionError

    dispatcher.register("a", handler)
    for payload in (b"bad", b"good"):
        dispatcher.dispatch("a", payload)
    assert [await seen.get(), await seen.get()] == [b"bad", b"good"]
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


async def test_messages_after_a_cancelled_worker_are_handled():
    """Whoever cancels the task of a topic family does not end the family."""
    seen, dispatcher = asyncio.Queue(), InboundDispatcher(InboundReport())

    async def handler(_topic, payload):
        seen.put_nowait(payload)
        if payload == b"cancelled":
            raise asyncio.CancelledError

    dispatcher.register("a", handler)
    for payload in (b"cancelled", b"next"):
        dispatcher.dispatch("a", payload)
    assert [await seen.get(), await seen.get()] == [b"cancelled", b"next"]


async def test_stop_spares_the_callback_that_calls_it():
    dispatcher, done = InboundDispatcher(InboundReport()), asyncio.Event()

    async def handler(_topic, _payload):
        await dispatcher.stop()
        done.set()

    dispatcher.register("a", handler)
    dispatcher.dispatch("a", b"")
    await done.wait()


async def test_ending_tasks(caplog):
    ended = asyncio.create_task(asyncio.Event().wait(), name="ended")
    spared = asyncio.create_task(asyncio.Event().wait(), name="spared")
    callback_task.set(spared)
    await end_tasks({ended, spared, asyncio.current_task()})
    assert ended.cancelled()
    assert not spared.cancelled()
    assert caplog.text == ""
    spared.cancel()


def test_warnings_do_not_flood(caplog):
    now = 0.0
    report = InboundReport(clock=lambda: now)
    with caplog.at_level(logging.DEBUG):
        for _ in range(5):
            report.message_unexpected("t", "nobody waits")
            report.message_malformed("t", b"x" * 1000, ValueError("bad"))
        now = QUIET_SECONDS
        report.message_unexpected("t", "nobody waits")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "A message on t is for nobody: nobody waits",
        f"A message on t cannot be read (bad): {b'x' * 100!r}",
        "A message on t is for nobody: nobody waits (and 4 more like this since the last such line)",
    ]
    assert len(caplog.records) == 11
    assert (report.counts()["inbound_unexpected"], report.counts()["inbound_malformed"]) == (6, 5)


# Pending requests.


async def test_pending_requests_end_once():
    pending = PendingRequests()
    answered, failed, unsent, discarded = (pending.add(key, MqttPublishMessage("t", b"")) for key in range(4))
    assert (len(pending), 1 in pending, 9 in pending) == (4, True, False)
    assert pending.answer(0, "answer")
    assert not pending.answer(0, "again")
    assert not pending.answer(9, "nobody")
    pending._pending[1].message.is_sent = True
    pending.fail_sent(ConnectionError("lost"))
    assert not pending.answer(1, "too late")
    pending.discard(3)
    pending.discard(3)
    assert not unsent.done()
    pending.fail_all(ValueError("end"))
    assert answered.result() == "answer"
    assert isinstance(failed.exception(), ConnectionError)
    assert isinstance(unsent.exception(), ValueError)
    assert discarded.cancelled()
    await asyncio.sleep(0)
    assert len(pending) == 0


async def test_a_cancelled_request_is_forgotten_and_may_come_again():
    pending = PendingRequests()
    pending.add(1).cancel()
    again = pending.add(1)
    await asyncio.sleep(0)
    assert pending.answer(1, "answer")
    assert again.result() == "answer"


@pytest.mark.parametrize(("given_", "limit"), [(None, None), (-1, None), (0, 0), (2.5, 2.5)])
def test_waiting_times(given_, limit):
    assert seconds_or_none(given_) == limit


@pytest.mark.parametrize("wrong", ["3", float("nan"), [], object()])
def test_waiting_times_that_are_none(wrong):
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds or None, not"):
        seconds_or_none(wrong)


def test_a_callback_that_is_thrown_away_with_its_loop_did_not_fail():
    """As those are that run when a program closes its loop."""

    @types.coroutine
    def wait():
        yield

    report = InboundReport()
    calling = call_reporting(report, "a test", wait)
    calling.send(None)
    calling.close()
    assert report.callback_errors == 0
