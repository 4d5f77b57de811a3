"""Server-side RPC of a device: each RPC request gets a response, whatever the callback and the payload are."""

import asyncio
import functools

import pytest
from device_peer import ATTRIBUTES, RPC_REQUEST, NoException, RPCResponses, cancelled, make_client

from engine_parts import engine_of
from tb_mqtt_client.entities.data.rpc_response import RPCResponse


async def plain_coroutine(request):
    await asyncio.sleep(0)
    return request.params


class Callable:
    def __call__(self, request):
        return plain_coroutine(request)


@pytest.mark.parametrize(
    "callback",
    [
        plain_coroutine,
        lambda request: request.params,
        lambda request: plain_coroutine(request),  # noqa: PLW0108
        functools.partial(plain_coroutine),
        Callable(),
        lambda request: RPCResponse.build(request.request_id, request.params),
        lambda request: RPCResponse.build("another id", request.params),
    ],
)
async def test_an_rpc_request_and_its_response(emulator, device, callback):
    device.set_rpc_request_callback(callback)
    responses = RPCResponses(emulator)
    for params in ({"a": [1]}, 0, "", [], False):
        assert await responses.to(0, {"method": "m", "params": params}) == (0, {"result": params})
    # Ids start from 0 again after a restart of the server.
    assert await responses.to(0, {"method": "m"}) == (0, {})


@pytest.mark.parametrize("number", [-1, -5, -(2**31), 2**31 - 1])
async def test_a_request_with_any_int32_as_its_id_gets_a_response(emulator, device, caplog, number):
    """The platform's counter of ids overflows."""
    device.set_rpc_request_callback(lambda request: request.request_id)
    responses = RPCResponses(emulator)
    async with asyncio.timeout(5):
        assert await responses.to(number, {"method": "m"}) == (number, {"result": number})
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


class WithText(Exception):
    def __str__(self):
        return "reported"


def fail(_request):
    raise WithText


async def fail_later(_request):
    await asyncio.sleep(0)
    raise WithText


def end_a_test(_request):
    raise NoException("skipped")


@pytest.mark.parametrize(
    ("callback", "error_type", "message"),
    [
        (end_a_test, "NoException", "skipped"),
        (fail, "WithText", "reported"),
        (fail_later, "WithText", "reported"),
        (cancelled, "CancelledError", ""),
        (lambda: None, "TypeError", "takes 0 positional arguments"),
        (lambda _: {1, 2}, "UnsupportedValueError", "set"),
        (lambda _: object(), "UnsupportedValueError", "object"),
        (lambda _: float("nan"), "ValueError", "nan is not a JSON number"),
        (lambda _: b"bytes", "UnsupportedValueError", "bytes"),
        (lambda _: {"a": ("tuple",)}, "UnsupportedValueError", "tuple"),
    ],
)
async def test_defect_53_the_platform_gets_the_error_of_a_failed_callback(emulator, device, callback, error_type, message, caplog):
    device.set_rpc_request_callback(callback)
    request_id, response = await RPCResponses(emulator).to(3, {"method": "m"})
    assert (request_id, list(response), response["error"]["type"]) == (3, ["error"], error_type)
    assert message in response["error"]["message"]
    assert device.statistics.callback_errors == 1
    assert caplog.text.count("The callback for the RPC request 'm' failed") == 1
    assert caplog.text.count("Traceback") >= 1


async def test_without_a_callback_the_response_is_an_error(emulator, device):
    responses = RPCResponses(emulator)
    expected = {"error": "The device has no callback for RPC requests"}
    assert await responses.to(0, {"method": "m"}) == (0, expected)
    device.set_rpc_request_callback(lambda _: 1)
    device.set_rpc_request_callback(None)
    assert await responses.to(1, {"method": "m"}) == (1, expected)


async def test_a_callback_may_return_an_error_response(emulator, device):
    device.set_rpc_request_callback(lambda request: RPCResponse.build(request.request_id, error="wrong valve"))
    assert await RPCResponses(emulator).to(1, {"method": "m"}) == (1, {"error": "wrong valve"})
    assert device.statistics.callback_errors == 0


async def test_a_callback_is_cancelled_after_its_timeout(emulator):
    client = make_client(emulator, rpc_callback_timeout=0.01)
    ended = asyncio.Event()

    async def hang(_request):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    client.set_rpc_request_callback(hang)
    await client.connect()
    _, response = await RPCResponses(emulator).to(1, {"method": "m"})
    assert (response["error"]["type"], response["error"]["message"]) == (
        "TimeoutError",
        "the device did not respond within 0.01 s",
    )
    await ended.wait()
    await client.stop()


async def test_a_callback_that_does_not_end_when_it_is_cancelled(emulator, caplog):
    client = make_client(emulator, rpc_callback_timeout=0.01)
    end, ended = asyncio.Event(), asyncio.Event()

    async def hang(_request):
        try:
            await end.wait()
        except asyncio.CancelledError:
            await end.wait()
        ended.set()
        raise ZeroDivisionError("much too late")

    client.set_rpc_request_callback(hang)
    await client.connect()
    responses = RPCResponses(emulator)
    _, response = await responses.to(1, {"method": "m"})
    assert response["error"]["type"] == "TimeoutError"
    client.set_rpc_request_callback(lambda _: 5)
    assert await responses.to(1, {"method": "m"}) == (1, {"result": 5})
    end.set()
    await ended.wait()
    await client.stop()
    # Its late exception is logged, too.
    assert "much too late" in caplog.text
    assert client.statistics.callback_errors == 2


@pytest.mark.parametrize("end", ["stop", "disconnect"])
async def test_stop_and_disconnect_cancel_a_callback_that_hangs(emulator, device, end):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_request):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    device.set_rpc_request_callback(hang)
    await emulator.publish_to("TOKEN", f"{RPC_REQUEST}1", {"method": "m"})
    await begun.wait()
    await (device.stop(timeout=0.01) if end == "stop" else device.disconnect())
    assert cancelled.is_set()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


async def test_stop_waits_for_the_response_to_a_running_request(emulator, device):
    responses, begun, go = RPCResponses(emulator), asyncio.Event(), asyncio.Event()

    async def callback(_request):
        begun.set()
        await go.wait()
        await device.send_attributes({"done": True})
        return "late"

    device.set_rpc_request_callback(callback)
    await emulator.publish_to("TOKEN", f"{RPC_REQUEST}1", {"method": "m"})
    await begun.wait()
    stopping = asyncio.ensure_future(device.stop())
    await asyncio.sleep(0)
    go.set()
    await stopping
    assert responses.arrived.get_nowait() == (1, {"result": "late"})
    assert "done" in emulator.device("device").attributes


async def test_stop_waits_for_the_responses_to_many_requests(emulator, device):
    responses = RPCResponses(emulator)
    device.set_rpc_request_callback(lambda request: request.params)
    arrived = asyncio.Event()
    device.set_attribute_update_callback(lambda _: arrived.set())
    for number in range(50):
        emulator.device("device").session.send(f"{RPC_REQUEST}{number}", b'{"method":"m","params":%d}' % number)
    emulator.device("device").session.send(ATTRIBUTES, b'{"a":1}')
    await arrived.wait()
    await device.stop()
    assert sorted(responses.arrived.get_nowait() for _ in range(responses.arrived.qsize())) == [
        (number, {"result": number}) for number in range(50)
    ]


async def test_callbacks_run_concurrently(emulator, device):
    begun, release = [], {number: asyncio.Event() for number in range(3)}

    async def callback(request):
        begun.append(request.request_id)
        await release[request.request_id].wait()
        return request.request_id

    device.set_rpc_request_callback(callback)
    responses = RPCResponses(emulator)
    for number in range(3):
        await emulator.publish_to("TOKEN", f"{RPC_REQUEST}{number}", {"method": "m"})
    for number in (2, 0, 1):
        release[number].set()
        assert await responses.arrived.get() == (number, {"result": number})
    assert begun == [0, 1, 2]


async def test_contract_2_a_repeated_request_runs_the_callback_once(emulator, device):
    runs, release = [], asyncio.Event()

    async def callback(request):
        runs.append(request.request_id)
        await release.wait()
        return len(runs)

    device.set_rpc_request_callback(callback)
    responses = RPCResponses(emulator)
    for _ in range(2):
        await emulator.publish_to("TOKEN", f"{RPC_REQUEST}0", {"method": "m"})
    await device.send_attributes({"a": 1})
    release.set()
    assert await responses.arrived.get() == (0, {"result": 1})
    # After the response, the same message is a new request.
    assert await responses.to(0, {"method": "m"}) == (0, {"result": 2})


async def test_a_response_is_sent_after_a_lost_connection(emulator, device):
    called, release = asyncio.Event(), asyncio.Event()

    async def callback(_request):
        called.set()
        await release.wait()
        return "late"

    device.set_rpc_request_callback(callback)
    responses = RPCResponses(emulator)
    await emulator.publish_to("TOKEN", f"{RPC_REQUEST}7", {"method": "m"})
    await called.wait()
    await emulator.disconnect_device("TOKEN")
    release.set()
    assert await responses.arrived.get() == (7, {"result": "late"})


async def test_contract_9_an_oversized_response_becomes_an_error(emulator, device):
    device.set_rpc_request_callback(lambda request: "x" * request.params)
    responses = RPCResponses(emulator)
    request_id, response = await responses.to(1, {"method": "m", "params": 70_000})
    assert request_id == 1
    assert "has 70013 bytes, and the platform accepts at most 65" in response["error"]
    assert device.statistics.callback_errors == 1
    assert (await responses.to(2, {"method": "m", "params": 3}))[1] == {"result": "xxx"}
    assert emulator.device("device").counters.connections == 1


async def test_an_error_response_with_a_result_that_is_not_json(emulator, device):
    device.set_rpc_request_callback(lambda request: RPCResponse.build(request.request_id, object(), "error"))
    _, response = await RPCResponses(emulator).to(1, {"method": "m"})
    assert "unsupported" in response["error"]


@pytest.mark.parametrize("payload", [b"", b"no json", b"[]", b"{}", b'{"method":5}', b"\xff", b"[" * 50_000])
async def test_the_response_to_a_malformed_request_is_an_error(emulator, device, payload):
    device.set_rpc_request_callback(pytest.fail)
    assert await RPCResponses(emulator).to(4, payload) == (4, {"error": "Invalid RPC request format"})
    assert device.statistics.inbound_malformed == 1


@pytest.mark.parametrize("number", ["x", "", "1.5", "+1", "١", "1_0", str(2**31), "-99999999999"])
async def test_contract_8_a_request_without_a_valid_id_gets_no_response(emulator, device, number):
    """The server disconnects a device whose response has an id that is not an int32."""
    device.set_rpc_request_callback(lambda _: 1)
    responses = RPCResponses(emulator)
    await emulator.publish_to("TOKEN", f"{RPC_REQUEST}{number}", {"method": "m"})
    assert await responses.to(1, {"method": "m"}) == (1, {"result": 1})
    assert device.statistics.inbound_malformed == 1
    assert responses.arrived.empty()


async def test_requests_over_the_limit_get_an_error(emulator):
    client = make_client(emulator, max_inbound_messages=3)
    engine_of(client).downlink.rpc.max_refusals = 2
    release = asyncio.Event()

    async def callback(request):
        await release.wait()
        return request.request_id

    client.set_rpc_request_callback(callback)
    await client.connect()
    responses = RPCResponses(emulator)
    # The requests are in one TCP segment, so that no response is sent between them.
    session = emulator.device("device").session
    for number in range(10):
        session.send(f"{RPC_REQUEST}{number}", b'{"method":"m"}')
    refused = [await responses.arrived.get() for _ in range(2)]
    assert refused == [(number, {"error": "The device is processing too many RPC requests"}) for number in (3, 4)]
    release.set()
    assert [await responses.arrived.get() for _ in range(3)] == [(number, {"result": number}) for number in (0, 1, 2)]
    assert client.statistics.inbound_refused == 7
    await client.stop()
    assert responses.arrived.empty()


@pytest.mark.parametrize("end", ["stop", "disconnect"])
@pytest.mark.parametrize("own_task", [False, True])
async def test_a_callback_may_end_its_client(emulator, end, own_task, caplog):
    client = make_client(emulator)
    outcome = asyncio.get_running_loop().create_future()

    async def callback(_request):
        try:
            await (asyncio.create_task(getattr(client, end)()) if own_task else getattr(client, end)())
        except asyncio.CancelledError:
            outcome.set_result("cancelled")
            raise
        outcome.set_result("stopped")

    client.set_rpc_request_callback(callback)
    await client.connect()
    await emulator.publish_to("TOKEN", f"{RPC_REQUEST}1", {"method": "m"})
    assert await outcome == "stopped"
    assert "did not end" not in caplog.text
    await client.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


async def test_a_callback_may_send_a_request_to_the_platform(emulator, device):
    """The response to the callback's own request arrives while the callback runs."""

    async def callback(_request):
        return (await device.request_attributes(["a"]))["a"]

    device.set_rpc_request_callback(callback)
    await emulator.set_shared_attributes("device", {"a": 5})
    assert await emulator.call_rpc("device", "m") == {"result": 5}
