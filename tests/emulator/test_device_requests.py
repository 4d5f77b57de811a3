"""Attribute requests and client-side RPC of a device: each request ends once, with a response or an error."""

import asyncio
import json
import logging

import pytest

from engine_parts import engine_of
from tb_mqtt_client import ConnectionLostError, DeviceClient, NotConnectedError
from tb_mqtt_client.common.exceptions import RequestRefusedError
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer, RPCRequestIdProducer
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCStatus

ATTRIBUTES = "v1/devices/me/attributes/"
RPC = "v1/devices/me/rpc/"


class Server:
    """Processes requests instead of the emulator. ``response`` returns the response to a request."""

    def __init__(self, emulator, response=None):
        self.response = response
        self.requests = []
        self.arrived = asyncio.Event()
        emulator.on_publish = self.judge

    def judge(self, publish):
        kind, _, _ = publish.topic.removeprefix(ATTRIBUTES).removeprefix(RPC).partition("/")
        if kind != "request" or b"getSessionLimits" in publish.payload:
            return None
        self.requests.append((publish.topic, publish.json(), publish.qos))
        self.arrived.set()
        # The platform sends the response after the PUBACK.
        if self.response is not None:
            asyncio.get_running_loop().call_soon(self.reply, publish)
        return Verdict(store=False)

    def reply(self, publish):
        response = self.response(publish.json())
        if response is not None:
            payload = response if isinstance(response, bytes) else json.dumps(response).encode()
            publish.device.session.send(publish.topic.replace("request", "response"), payload)

    async def next(self):
        await self.arrived.wait()
        self.arrived.clear()
        return self.requests[-1]


# Attributes.


async def test_attributes_by_scope(emulator, device):
    server = Server(emulator, lambda _: {"client": {"a": 1}, "shared": {"b": [True], "a": "x"}})
    response = await device.request_attributes(["b", "a"], ["a"])
    assert server.requests == [(f"{ATTRIBUTES}request/1", {"sharedKeys": "b,a", "clientKeys": "a"}, 1)]
    assert (response["a"], response.get_client("a"), response.get_shared("b")) == ("x", 1, [True])


async def test_a_request_for_all_attributes_of_a_device_without_attributes(emulator, device):
    server = Server(emulator, lambda _: {})
    response = await device.request_attributes()
    assert server.requests[0][1] == {}
    assert (response.shared, response.client) == ([], [])


@pytest.mark.parametrize("plain", [True, False])
async def test_a_callback_gets_the_attributes(emulator, device, plain):
    Server(emulator, lambda request: {"shared": dict.fromkeys(request["sharedKeys"].split(","), 1)})
    passed = asyncio.get_running_loop().create_future()

    async def coroutine_function(response):
        passed.set_result(response)

    request = await AttributeRequest.build(["a", "b"])
    assert await device.send_attribute_request(request, passed.set_result if plain else coroutine_function) is None
    response = await passed
    assert (response.request_id, response.shared_keys()) == (request.request_id, ["a", "b"])


async def test_responses_may_arrive_in_any_order(emulator, device):
    server = Server(emulator)
    requested = [asyncio.create_task(device.request_attributes([f"k{number}"])) for number in range(20)]
    while len(server.requests) < 20:
        await server.next()
    for topic, request, _ in reversed(server.requests):
        await emulator.publish_to("TOKEN", topic.replace("request", "response"), {"shared": {request["sharedKeys"]: topic}})
    for number, response in enumerate(await asyncio.gather(*requested)):
        assert response.shared_keys() == [f"k{number}"]


async def test_contract_9_an_attribute_request_without_a_response_ends(emulator, device, caplog):
    Server(emulator)
    with pytest.raises(TimeoutError, match=r"^Timed out waiting for attributes \(requestId=\d+\)$"):
        await device.request_attributes(["a"], timeout=0.01)
    errors = asyncio.Queue()
    request = await AttributeRequest.build(["a"])
    with caplog.at_level(logging.WARNING):
        await device.send_attribute_request(request, pytest.fail, timeout=0.01, on_error=errors.put_nowait)
        assert isinstance(await errors.get(), TimeoutError)
    assert f"AttributeRequest(id={request.request_id}, shared_keys=['a'], client_keys=None) got no response" in caplog.text


async def test_defect_52_a_late_response_is_ignored(emulator, device):
    server = Server(emulator)
    with pytest.raises(TimeoutError):
        await device.request_attributes(["a"], timeout=0.01)
    topic, _, _ = await server.next()
    await emulator.publish_to("TOKEN", topic.replace("request", "response"), {"shared": {"a": 1}})
    server.response = lambda _: {"shared": {"b": 2}}
    assert (await device.request_attributes(["b"])).shared_keys() == ["b"]
    assert device.statistics.inbound_unexpected == 1


async def test_contract_2_the_first_request_of_a_session_is_sent_twice(emulator, device):
    """The server may drop the response to the first request of a session."""
    engine_of(device).requests.first_response_seconds = 0.01
    server = Server(emulator)
    server.response = lambda _: {"shared": {"a": 1}} if len(server.requests) > 1 else None
    assert (await device.request_attributes(["a"]))["a"] == 1
    assert [topic for topic, _, _ in server.requests] == [f"{ATTRIBUTES}request/1"] * 2
    # After one response, the server does not drop others in this session.
    server.response = None
    with pytest.raises(TimeoutError):
        await device.request_attributes(["a"], timeout=0.05)
    assert len(server.requests) == 3


async def test_a_request_is_sent_at_most_twice_in_a_session(emulator, device):
    engine_of(device).requests.first_response_seconds = 0.001
    server = Server(emulator)
    with pytest.raises(TimeoutError):
        await device.request_attributes(["a"], timeout=0.1)
    assert len(server.requests) == 2


async def test_an_attribute_request_is_sent_again_after_a_lost_connection(emulator, device):
    server = Server(emulator)
    requested = asyncio.create_task(device.request_attributes(["a"]))
    await server.next()
    server.response = lambda _: {"shared": {"a": 2}}
    await emulator.disconnect_device("TOKEN")
    assert (await requested)["a"] == 2
    assert len(server.requests) == 2


async def test_defect_29_a_pending_request_cannot_be_sent_again(emulator, device):
    server = Server(emulator)
    request = await AttributeRequest.build(["a"])
    passed = asyncio.get_running_loop().create_future()
    await device.send_attribute_request(request, passed.set_result)
    with pytest.raises(RuntimeError, match=rf"^Request ID {request.request_id} is already registered\.$"):
        await device.send_attribute_request(request, pytest.fail)
    server.response = lambda _: {}
    topic, _, _ = await server.next()
    await emulator.publish_to("TOKEN", topic.replace("request", "response"), {})
    await passed
    # After its response, it can be sent again.
    again = asyncio.get_running_loop().create_future()
    await device.send_attribute_request(request, again.set_result)
    assert (await again).request_id == request.request_id


async def test_an_exception_of_a_callback_is_logged(emulator, device, caplog):
    Server(emulator, lambda _: {})
    called = asyncio.Event()

    def callback(_):
        called.set()
        raise ZeroDivisionError("in the callback")

    await device.send_attribute_request(await AttributeRequest.build(), callback)
    await called.wait()
    assert (await device.request_attributes()).shared == []
    assert device.statistics.callback_errors == 1
    assert caplog.text.count("ZeroDivisionError: in the callback") == 1


async def test_a_hanging_callback_does_not_delay_other_requests(emulator, device):
    Server(emulator, lambda _: {})
    started = asyncio.Event()

    async def callback(_):
        started.set()
        await asyncio.Event().wait()

    await device.send_attribute_request(await AttributeRequest.build(), callback)
    await started.wait()
    assert (await device.request_attributes()).shared == []


# Client-side RPC.


async def test_a_client_side_rpc(emulator, device):
    server = Server(emulator, lambda request: {"echo": request["params"]})
    request = await RPCRequest.build("echo", {"a": [1]})
    response = await device.send_rpc_request(request)
    assert (response.status, response.result, response.error) == (RPCStatus.SUCCESS, {"echo": {"a": [1]}}, None)
    assert response.request_id == request.request_id
    # The request for the limits had the id 1.
    assert server.requests == [(f"{RPC}request/2", {"id": 2, "method": "echo", "params": {"a": [1]}}, 1)]
    assert (await device.call_rpc("echo", 0)).result == {"echo": 0}


@pytest.mark.parametrize(
    ("reply", "status"),
    [({"error": "no such thing"}, RPCStatus.ERROR), ({"error": "timeout"}, RPCStatus.TIMEOUT), (b"no json", RPCStatus.ERROR)],
)
async def test_contract_9_an_error_from_the_platform_is_not_a_success(emulator, device, reply, status):
    Server(emulator, lambda _: reply)
    response = await device.call_rpc("m")
    assert response.status is status
    assert response.error is not None
    assert response.result == (None if reply == b"no json" else reply)


async def test_an_rpc_request_without_a_response(emulator, device):
    Server(emulator)
    request = await RPCRequest.build("m")
    with pytest.raises(TimeoutError, match=rf"^Timed out waiting for RPC response \(requestId={request.request_id}\)$"):
        await device.send_rpc_request(request, timeout=0.01)
    passed = []
    assert await device.send_rpc_request(request, passed.append, timeout=0.01) is None
    assert (passed[0].status, passed[0].error["type"], passed[0].request_id) == (
        RPCStatus.TIMEOUT,
        "TimeoutError",
        request.request_id,
    )
    future = await device.send_rpc_request(request, wait_for_publish=False, timeout=0.01)
    with pytest.raises(TimeoutError):
        await future


@pytest.mark.parametrize("wait", [True, False])
async def test_an_rpc_request_with_a_callback(emulator, device, wait):
    Server(emulator, lambda _: {"value": 5})
    passed = []

    async def callback(response):
        passed.append(response)

    outcome = await device.send_rpc_request(await RPCRequest.build("m"), callback, wait_for_publish=wait)
    response = outcome if wait else await outcome
    assert passed == [response]
    assert response.result == {"value": 5}


@pytest.mark.parametrize("wait", [True, False])
async def test_send_rpc_request_raises_the_exception_of_the_callback(emulator, device, wait, caplog):
    Server(emulator, lambda _: 1)

    def callback(_):
        raise ZeroDivisionError("in the callback")

    outcome = device.send_rpc_request(await RPCRequest.build("m"), callback, wait_for_publish=wait)
    with pytest.raises(ZeroDivisionError):
        await (outcome if wait else await outcome)
    # A caller that does not wait may never await the future, so the exception is logged.
    assert device.statistics.callback_errors == caplog.text.count("ZeroDivisionError: in the callback") == (0 if wait else 1)


async def test_a_lost_connection_ends_an_rpc_request_at_once(emulator, device):
    server = Server(emulator)
    response = asyncio.create_task(device.call_rpc("m", timeout=None))
    passed = []
    with_callback = await device.send_rpc_request(await RPCRequest.build("m"), passed.append, wait_for_publish=False, timeout=None)
    while len(server.requests) < 2:
        await server.next()
    await emulator.disconnect_device("TOKEN")
    with pytest.raises(ConnectionLostError, match="before the response arrived"):
        await response
    assert await with_callback is None
    assert (passed[0].status, passed[0].error["type"]) == (RPCStatus.ERROR, "ConnectionLostError")
    # The lost requests are not sent again, since their callers were notified.
    server.response = lambda _: "done"
    assert (await device.call_rpc("other")).result == "done"
    assert [request["method"] for _, request, _ in server.requests] == ["m", "m", "other"]


async def test_an_unacknowledged_rpc_request_is_not_sent_again(emulator, device):
    server = Server(emulator)
    judge, published = server.judge, asyncio.Event()

    def ignore_first(publish):
        verdict = judge(publish)
        if publish.topic.startswith(f"{RPC}request") and not published.is_set() and b"getSession" not in publish.payload:
            published.set()
            return Verdict.close()
        return verdict

    emulator.on_publish = ignore_first
    with pytest.raises(ConnectionLostError):
        await device.call_rpc("m", timeout=None)
    server.response = lambda _: 1
    assert (await device.call_rpc("other")).result == 1
    assert [request["method"] for _, request, _ in server.requests] == ["m", "other"]


async def test_an_rpc_request_without_a_connection_is_sent_on_the_next_one(emulator, device):
    server = Server(emulator, lambda _: 1)
    await emulator.stop()
    response = asyncio.create_task(device.call_rpc("m", timeout=10))
    while not engine_of(device).downlink.rpc_responses.pending:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await emulator.start()
    assert (await response).result == 1
    assert len(server.requests) == 1


async def test_a_timed_out_or_cancelled_rpc_request_is_not_sent(emulator, device):
    """It is removed from the queue."""
    server = Server(emulator, lambda _: 1)
    await emulator.stop()
    await engine_of(device).mqtt_manager.wait_lost()
    with pytest.raises(TimeoutError):
        await device.call_rpc("late", timeout=0.01)
    cancelled = asyncio.create_task(device.call_rpc("cancelled"))
    while not engine_of(device).downlink.rpc_responses.pending:  # noqa: ASYNC110
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert engine_of(device).message_service.is_empty()
    await emulator.start()
    assert (await device.call_rpc("m")).result == 1
    assert [request["method"] for _, request, _ in server.requests] == ["m"]


async def test_stop_does_not_wait_for_a_timed_out_rpc_request(emulator, device):
    # The client tries to reconnect, so that stop() waits for queued messages.
    await emulator.stop()
    await engine_of(device).mqtt_manager.wait_lost()
    response = asyncio.create_task(device.call_rpc("m", timeout=0.05))
    while not engine_of(device).downlink.rpc_responses.pending:  # noqa: ASYNC110
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await device.stop(timeout=60)
    with pytest.raises(TimeoutError):
        await response


async def test_a_refused_request_ends_at_once(emulator, device):
    emulator.on_publish = lambda publish: Verdict.refuse(0x90) if "/request/" in publish.topic else None
    with pytest.raises(RequestRefusedError, match="Topic Name invalid") as refused:
        await device.call_rpc("m", timeout=None)
    assert refused.value.reason_code == 0x90
    with pytest.raises(RequestRefusedError):
        await device.request_attributes(timeout=None)


async def test_each_client_has_its_own_ids_of_messages(emulator, device):
    """They do not depend on the ids of request objects."""
    emulator.add_device("OTHER", "other")
    other = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "OTHER"})
    await other.connect()
    server = Server(emulator)
    requested = []
    for _ in range(3):
        RPCRequestIdProducer.reset()
        request = await RPCRequest.build("m")
        requested += [asyncio.create_task(client.send_rpc_request(request)) for client in (device, other)]
    while len(server.requests) < 6:
        await server.next()
    assert sorted(topic for topic, _, _ in server.requests) == sorted(
        f"{RPC}request/{number}" for number in (2, 3, 4) for _ in "ab"
    )
    for token in ("TOKEN", "OTHER"):
        for number in (4, 2, 3):
            await emulator.publish_to(token, f"{RPC}response/{number}", [token, number])
    results = [(response.request_id, response.result) for response in await asyncio.gather(*requested)]
    assert sorted(results) == [(1, [token, number]) for token in ("OTHER", "TOKEN") for number in (2, 3, 4)]
    await other.stop()


async def test_contract_2_ids_are_not_reused_after_a_reconnect(emulator, device):
    server = Server(emulator, lambda _: 1)
    await device.call_rpc("m")
    await emulator.disconnect_device("TOKEN")
    await device.call_rpc("m", timeout=10)
    await device.disconnect()
    await device.connect()
    await device.call_rpc("m")
    numbers = [int(topic.rpartition("/")[2]) for topic, _, _ in server.requests]
    # The other ids from 1 to 6 belonged to the requests for the limits of each session.
    assert sorted(set(numbers)) == numbers
    assert len(numbers) == 3
    assert numbers[-1] == 6


@pytest.mark.parametrize("end", ["disconnect", "stop"])
async def test_the_end_of_the_client_ends_its_requests(emulator, device, end):
    server = Server(emulator)
    response = asyncio.create_task(device.call_rpc("m", timeout=None))
    requested = asyncio.create_task(device.request_attributes(timeout=None))
    errors = []
    await device.send_attribute_request(await AttributeRequest.build(), pytest.fail, timeout=None, on_error=errors.append)
    while len(server.requests) < 3:
        await server.next()
    await getattr(device, end)()
    for waiting in (response, requested):
        with pytest.raises(NotConnectedError, match="disconnected before the response arrived"):
            await waiting
    assert [type(error) for error in errors] == [NotConnectedError]


async def test_a_request_during_a_disconnect_ends_with_the_connection(emulator, device):
    server, ended, release = Server(emulator), asyncio.Event(), asyncio.Event()

    async def on_error(_error):
        ended.set()
        await release.wait()

    await device.send_attribute_request(await AttributeRequest.build(), pytest.fail, on_error=on_error)
    await server.next()
    disconnecting = asyncio.create_task(device.disconnect())
    await ended.wait()
    response = asyncio.create_task(device.call_rpc("m", timeout=10))
    await server.next()
    release.set()
    await disconnecting
    with pytest.raises(ConnectionLostError):
        await response


async def test_a_callback_may_stop_its_client(emulator, device):
    Server(emulator, lambda _: {})
    stopped = asyncio.Event()

    async def callback(_):
        await device.stop()
        stopped.set()

    await device.send_attribute_request(await AttributeRequest.build(), callback)
    await stopped.wait()
    assert not engine_of(device).mqtt_manager.is_connected()


async def test_defect_55_qos_of_the_configuration_is_0_or_1(emulator):
    for qos, sent in ((0, 0), (1, 1), (2, 1)):
        client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
        engine_of(client).config.qos = qos
        await client.connect()
        server = Server(emulator, lambda _: {})
        await client.call_rpc("m")
        await client.request_attributes()
        await client.stop()
        assert [used for _, _, used in server.requests] == [sent, sent]


@pytest.mark.parametrize("kind", ["rpc", "attributes"])
async def test_contract_9_an_oversized_request_is_refused_at_the_call(emulator, device, kind):
    server = Server(emulator)
    big = "x" * 66_000
    with pytest.raises(
        ValueError, match=r"^the payload for v1/devices/me/\S+ has \d+ bytes, and the platform accepts at most 65\d+$"
    ):
        await (device.call_rpc("m", big) if kind == "rpc" else device.request_attributes([big]))
    server.response = lambda _: {}
    await device.request_attributes()
    assert len(server.requests) == 1
    assert emulator.device("device").counters.connections == 1


async def test_disconnect_does_not_reset_the_ids_of_request_objects(emulator, device):
    """SDK 2.0 reset them at each disconnect."""
    AttributeRequestIdProducer.reset()
    first = await AttributeRequest.build()
    await device.disconnect()
    assert (await AttributeRequest.build()).request_id == first.request_id + 1
    assert json.dumps(first.to_payload_format()) == "{}"
