"""Attribute updates and server-side RPC of sub-devices. No callback and no payload stops the gateway."""

import asyncio
import json

import pytest
from gateway_wire import Wire
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbitrary import json_values, payloads
from engine_parts import engine_of, sub_devices_of
from tb_mqtt_client import GatewayClient
from tb_mqtt_client.emulator import Emulator, Verdict
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway_event import GatewayEventType

ATTRIBUTES, RPC = "v1/gateway/attributes", "v1/gateway/rpc"


@pytest.fixture
async def session(gateway):
    return (await gateway.connect_device("D1", wait_for_publish=True))[0]


def rpc_request(request_id=5, method="m", device="D1", **more):
    return {"device": device, "data": {"id": request_id, "method": method} | more}


# Attribute updates.


@pytest.mark.parametrize("coroutine", [True, False])
async def test_contract_9_attribute_updates_and_deletions(emulator, gateway, session, coroutine):
    arrived = asyncio.Queue()

    async def callback(*arguments):
        arrived.put_nowait(arguments)

    session.set_attribute_update_callback(callback if coroutine else lambda *arguments: arrived.put_nowait(arguments))
    await emulator.set_shared_attributes("D1", {"a": 1, "b": [None]})
    await emulator.delete_shared_attributes("D1", ["a", "c"])
    of_session, update = await arrived.get()
    assert of_session is session
    assert (update.as_dict(), update.deleted_keys, update.device_session) == ({"a": 1, "b": [None]}, [], session)
    _, update = await arrived.get()
    assert (update.as_dict(), update.deleted_keys) == ({}, ["a", "c"])


async def test_updates_of_a_device_are_processed_in_order_and_do_not_delay_other_devices(emulator, gateway, session):
    """A callback that is slow or hangs does not delay the callbacks of other devices."""
    other, _ = await gateway.connect_device("D2", wait_for_publish=True)
    go, seen, arrived = asyncio.Event(), [], asyncio.Queue()

    async def slow(_session, update):
        if update.get("a") == 0:
            await go.wait()
        seen.append(update.get("a"))
        arrived.put_nowait(None)

    session.set_attribute_update_callback(slow)
    other.set_attribute_update_callback(lambda _session, update: arrived.put_nowait(update.get("a")))
    for value in range(5):
        await emulator.set_shared_attributes("D1", {"a": value})
    await emulator.set_shared_attributes("D2", {"a": "other"})
    assert await arrived.get() == "other"
    go.set()
    for _ in range(5):
        await arrived.get()
    assert seen == [0, 1, 2, 3, 4]


async def test_the_number_of_waiting_updates_of_a_device_is_limited(emulator, gateway, session):
    sub_devices_of(gateway).downlink.attribute_updates.max_waiting = 3
    session.set_attribute_update_callback(lambda *_: asyncio.Event().wait())
    for value in range(5):
        await emulator.set_shared_attributes("D1", {"a": value})
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    assert gateway.statistics.inbound_refused == 2


MALFORMED_UPDATES = [
    b"\xff", b"{", b"[]", b"{}", b'{"device":"D1","data":{"a":NaN}}', {"device": "D1"}, {"device": "D1", "data": [1]},
    {"device": 5, "data": {}}, {"device": "", "data": {"a": 1}}, {"device": "D1", "data": {"": 1}},
]  # fmt: skip


async def test_defect_51_failures_of_attribute_updates_are_reported(emulator, gateway, session, caplog):
    arrived = asyncio.Queue()

    def callback(_session, update):
        arrived.put_nowait(update)
        raise ZeroDivisionError

    session.set_attribute_update_callback(callback)
    for payload in [*MALFORMED_UPDATES, {"device": "unknown", "data": {"a": 1}}]:
        assert await emulator.publish_to("GATEWAY", ATTRIBUTES, payload)
    for value in range(2):
        await emulator.set_shared_attributes("D1", {"a": value})
        assert (await arrived.get()).as_dict() == {"a": value}
    statistics = gateway.statistics
    assert (statistics.inbound_malformed, statistics.inbound_unexpected, statistics.callback_errors) == (
        len(MALFORMED_UPDATES),
        1,
        2,
    )
    assert "The callback for attribute updates of D1 failed" in caplog.text
    assert "cannot be read" in caplog.text


async def test_updates_without_a_callback_are_ignored(emulator, gateway, session):
    await emulator.set_shared_attributes("D1", {"a": 1})
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    statistics = gateway.statistics
    assert (statistics.inbound_malformed, statistics.inbound_unexpected, statistics.callback_errors) == (0, 0, 0)


# Server-side RPC.


@pytest.mark.parametrize("coroutine", [True, False])
async def test_defect_40_an_rpc_request_gets_a_response(emulator, gateway, session, coroutine):
    """No task is left, and the loop's exception handler is not called."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    requests = []

    def plain(of_session, request):
        requests.append((of_session, request))
        return GatewayRPCResponse.build(request.device_name, request.request_id, {"got": request.params})

    async def asynchronous(*arguments):
        return plain(*arguments)

    session.set_rpc_request_callback(asynchronous if coroutine else plain)
    assert await emulator.call_rpc("D1", "set", {"x": [1]}) == {"result": {"got": {"x": [1]}}}
    assert await emulator.call_rpc("D1", "set") == {"result": {"got": None}}
    [(of_session, request), _] = requests
    assert of_session is session
    assert (request.device_name, request.method, request.params, request.request_id) == ("D1", "set", {"x": [1]}, 0)
    assert request.device_session is session
    assert errors == []


async def test_the_payload_of_a_response(emulator, gateway, session):
    """``data`` is mandatory, and ids start from 0."""
    wire = Wire(emulator)
    session.set_rpc_request_callback(lambda _session, request: request.params and GatewayRPCResponse.build("D1", 0, request.params))
    await emulator.publish_to("GATEWAY", RPC, rpc_request(0, params="p"))
    assert await wire.next("rpc") == {"device": "D1", "id": 0, "data": {"result": "p"}}
    # None is a success without a result.
    await emulator.publish_to("GATEWAY", RPC, rpc_request(1))
    assert await wire.next("rpc") == {"device": "D1", "id": 1, "data": {}}
    assert {publish.qos for publish in wire.publishes} == {1}


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31 - 1])
async def test_a_request_with_any_int32_as_its_id_gets_a_response(emulator, gateway, session, number):
    wire = Wire(emulator)
    session.set_rpc_request_callback(lambda _session, request: request.request_id)
    await emulator.publish_to("GATEWAY", RPC, rpc_request(number))
    assert await wire.next("rpc") == {"device": "D1", "id": number, "data": {"result": number}}


@pytest.mark.parametrize("value", [1, 0, False, "text", [], {"result": 1}])
async def test_a_callback_may_return_a_json_value(emulator, gateway, session, value):
    session.set_rpc_request_callback(lambda *_: value)
    assert await emulator.call_rpc("D1", "m") == {"result": value}
    assert gateway.statistics.callback_errors == 0


@pytest.mark.parametrize(
    "returned",
    [
        lambda request: RPCResponse.build(request.request_id, 1),
        lambda _: RPCResponse.build(99, 1),
        lambda _: GatewayRPCResponse.build("other", 99, 1),
    ],
)
async def test_a_response_has_the_id_and_device_of_its_request(emulator, gateway, session, returned):
    """The callback's response may have another id and another device."""
    session.set_rpc_request_callback(lambda _session, request: returned(request))
    assert await emulator.call_rpc("D1", "m") == {"result": 1}


def raises(*_):
    raise LookupError("no such thing")


async def raises_later(*_):
    await asyncio.sleep(0)
    raise LookupError("no such thing")


@pytest.mark.parametrize(
    ("callback", "kind", "text"),
    [
        (raises, "LookupError", "no such thing"),
        (raises_later, "LookupError", "no such thing"),
        (lambda *_: object(), "UnsupportedValueError", "object"),
        (lambda *_: {"a": {1, 2}}, "UnsupportedValueError", "set"),
        (lambda: None, "TypeError", "positional argument"),
    ],
)
async def test_contract_9_the_platform_gets_the_error_of_a_failed_callback(
    emulator, gateway, session, callback, kind, text, caplog
):
    session.set_rpc_request_callback(callback)
    error = (await emulator.call_rpc("D1", "m"))["error"]
    assert error["type"] == kind
    assert text in error["message"]
    assert "Traceback" in error["details"]
    assert gateway.statistics.callback_errors == 1
    assert "The callback for the RPC request 'm' to D1 failed" in caplog.text


async def test_a_callback_is_cancelled_after_its_timeout(emulator, make_gateway):
    gateway = make_gateway(rpc_callback_timeout=0.02)
    await gateway.connect()
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    session.set_rpc_request_callback(lambda *_: asyncio.Event().wait())
    error = (await emulator.call_rpc("D1", "m"))["error"]
    assert (error["type"], error["message"]) == ("TimeoutError", "the device did not respond within 0.02 s")
    await gateway.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_without_a_callback_or_a_device_the_response_is_an_error(emulator, gateway, session):
    wire = Wire(emulator)
    assert await emulator.call_rpc("D1", "m") == {"error": "The device has no callback for RPC requests"}
    await wire.next("rpc")
    await emulator.publish_to("GATEWAY", RPC, rpc_request(7, device="gone"))
    assert await wire.next("rpc") == {"device": "gone", "id": 7, "data": {"error": "The gateway has no such device"}}
    await gateway.disconnect_device(session, wait_for_publish=True)
    await emulator.publish_to("GATEWAY", RPC, rpc_request(8))
    assert (await wire.next("rpc"))["data"] == {"error": "The gateway has no such device"}


@pytest.mark.parametrize("result", ["x" * 66_000, float("nan"), "\ud800"])
async def test_a_response_that_cannot_be_sent_becomes_an_error(emulator, gateway, session, result):
    response = GatewayRPCResponse.build("D1", 1).with_fields(result=result)
    session.set_rpc_request_callback(lambda *_: response)
    assert list(await emulator.call_rpc("D1", "m")) == ["error"]
    assert gateway.statistics.callback_errors == 1


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"\xff", None),
        (b"[]", None),
        (b"{}", None),
        ({"device": "D1"}, None),
        ({"device": "D1", "data": {"method": "m"}}, None),
        ({"device": "D1", "data": {"id": True, "method": "m"}}, None),
        ({"device": "D1", "data": {"id": 3}}, "Missing 'method' in RPC request"),
        ({"device": "D1", "data": {"id": 3, "method": 5}}, "Missing 'method' in RPC request"),
    ],
)
async def test_malformed_rpc_requests(emulator, gateway, session, payload, error):
    """The platform gets an error response if device and id are readable."""
    wire = Wire(emulator)
    await emulator.publish_to("GATEWAY", RPC, payload)
    session.set_rpc_request_callback(lambda *_: None)
    await emulator.publish_to("GATEWAY", RPC, rpc_request(9))
    if error is not None:
        assert await wire.next("rpc") == {"device": "D1", "id": 3, "data": {"error": error}}
    assert (await wire.next("rpc"))["id"] == 9
    assert gateway.statistics.inbound_malformed == 1


async def test_a_copy_of_a_running_request_gets_no_response(emulator, gateway, session):
    wire, go, two_begun, begun = Wire(emulator), asyncio.Event(), asyncio.Event(), []

    async def callback(_session, request):
        begun.append(request.request_id)
        if len(begun) == 2:
            two_begun.set()
        await go.wait()

    session.set_rpc_request_callback(callback)
    for number in (1, 1, 2):
        await emulator.publish_to("GATEWAY", RPC, rpc_request(number))
    await two_begun.wait()
    go.set()
    assert {(await wire.next("rpc"))["id"] for _ in range(2)} == {1, 2}
    assert begun == [1, 2]
    # The id is used again, as after a restart of the server.
    await emulator.publish_to("GATEWAY", RPC, rpc_request(1))
    assert (await wire.next("rpc"))["id"] == 1


async def test_requests_over_the_limit_get_an_error(emulator, make_gateway):
    gateway = make_gateway(max_inbound_messages=2)
    sub_devices_of(gateway).downlink.rpc.max_refusals = 2
    await gateway.connect()
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    session.set_rpc_request_callback(lambda *_: asyncio.Event().wait())
    wire = Wire(emulator)
    wire.verdict = lambda publish: Verdict.ignore() if publish.topic == RPC else None
    for number in range(6):
        await emulator.publish_to("GATEWAY", RPC, rpc_request(number))
    await emulator.publish_to("GATEWAY", RPC, b"{")
    for _ in range(2):
        assert (await wire.next("rpc"))["data"] == {"error": "The gateway is processing too many RPC requests"}
    # The gateway has processed the earlier messages when it responds to this request to its own device.
    gateway.set_rpc_request_callback(lambda _: None)
    assert await emulator.call_rpc("gateway", "m") == {}
    statistics = gateway.statistics
    assert (statistics.inbound_refused, statistics.inbound_malformed) == (5, 1)
    assert len(wire.of("rpc")) == 2
    engine_of(gateway).tasks.end_seconds = 0.05
    await gateway.stop(timeout=0.01)


async def test_a_callback_may_send_a_request_to_the_platform(emulator, gateway, session):
    emulator.device("D1").shared_attributes["a"] = 7

    async def callback(of_session, request):
        return RPCResponse.build(request.request_id, (await gateway.request_device_attributes(of_session, ["a"]))["a"])

    session.set_rpc_request_callback(callback)
    assert await emulator.call_rpc("D1", "m") == {"result": 7}


async def test_a_callback_may_stop_the_client(emulator, gateway, session):
    stopped = asyncio.Event()

    async def callback(*_):
        await gateway.stop()
        stopped.set()

    session.set_rpc_request_callback(callback)
    await emulator.call_rpc("D1", "m", oneway=True)
    await stopped.wait()


async def test_stop_waits_for_the_response_to_a_running_request(emulator, gateway, session):
    begun, go = asyncio.Event(), asyncio.Event()

    async def callback(_session, request):
        begun.set()
        await go.wait()
        return GatewayRPCResponse.build(request.device_name, request.request_id, result="late")

    session.set_rpc_request_callback(callback)
    response = asyncio.ensure_future(emulator.call_rpc("D1", "m"))
    await begun.wait()
    stopping = asyncio.ensure_future(gateway.stop())
    await asyncio.sleep(0)
    go.set()
    await stopping
    assert await response == {"result": "late"}


async def test_responses_are_events(emulator, gateway, session):
    """The user's handlers get them in addition to the one that sends them."""
    seen = []
    gateway.event_dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, lambda event: seen.append(event) or ["nonsense"])
    gateway.event_dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, raises)
    session.set_rpc_request_callback(lambda _session, request: RPCResponse.build(request.request_id, 1))
    assert await emulator.call_rpc("D1", "m") == {"result": 1}
    assert [(event.device_name, event.result) for event in seen] == [("D1", 1)]
    assert gateway.statistics.callback_errors == 1


async def test_a_response_that_the_platform_refuses_is_logged(emulator, gateway, session, caplog):
    refused = asyncio.Event()

    def verdict(publish):
        if publish.topic == RPC:
            refused.set()
            return Verdict.refuse(0x80)
        return None

    emulator.on_publish = verdict
    session.set_rpc_request_callback(lambda *_: None)
    await emulator.publish_to("GATEWAY", RPC, rpc_request(1))
    await refused.wait()
    assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
    assert "Unspecified error" in caplog.text


async def test_updates_and_rpc_requests_of_the_gateways_own_device(emulator, gateway, session):
    updates = asyncio.Queue()
    gateway.set_attribute_update_callback(updates.put_nowait)
    gateway.set_rpc_request_callback(lambda request: request.method)
    await emulator.set_shared_attributes("gateway", {"a": 1})
    assert (await updates.get()).as_dict() == {"a": 1}
    assert await emulator.call_rpc("gateway", "m") == {"result": "m"}
    assert (await gateway.request_attributes(["a"]))["a"] == 1


# Arbitrary messages.

anything = json_values(max_size=3, max_leaves=10)
inner = anything | st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "method", "params", "deleted"), anything | st.just(1)))
devices = st.sampled_from(["D1", "unknown"]) | anything
fields = {"device": devices, "data": inner, "id": anything | st.just(1), "value": anything, "values": anything, "reason": anything}
near_misses = st.fixed_dictionaries({}, optional=fields)
any_payload = payloads(anything | near_misses, max_size=50)
topics = st.sampled_from([ATTRIBUTES, RPC, "v1/gateway/attributes/response", "v1/gateway/disconnect"])
renames = st.dictionaries(st.sampled_from(["D1", "D2"]), st.sampled_from(["D1", "D2", "D3", ""]) | anything, max_size=3)
methods = st.sampled_from(["gateway_device_renamed", "gateway_device_deleted"])
notices = st.fixed_dictionaries({"method": methods, "params": anything | renames})


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(topics, any_payload) | notices.map(lambda n: ("v1/devices/me/rpc/request/99", json.dumps(n).encode())),
        max_size=40,
    )
)
def test_a_gateway_works_after_arbitrary_messages(messages):
    """No task is left, the loop's exception handler is not called, and the gateway still sends and responds."""

    async def scenario():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with Emulator() as emulator:
            emulator.add_gateway("GATEWAY", "gateway")
            gateway = GatewayClient({"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY"})
            await gateway.connect()
            for name in ("D1", "D2"):
                session, _ = await gateway.connect_device(name)
                session.set_rpc_request_callback(lambda *_: 1 / 0)
                session.set_attribute_update_callback(lambda *_: 1 / 0)
                session.set_attribute_response_callback(lambda *_: 1 / 0)
            for topic, payload in messages:
                await emulator.publish_to("GATEWAY", topic, payload)
            gateway.set_rpc_request_callback(lambda _: "still here")
            assert await emulator.call_rpc("gateway", "m") == {"result": "still here"}
            session, _ = await gateway.connect_device("D9", wait_for_publish=True)
            assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
            assert (await gateway.request_device_attributes(session, client_keys=["x"])).client == []
            await gateway.stop()
            assert gateway.statistics.inbound_messages >= len(messages)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert errors == []

    asyncio.run(scenario())
