"""Calls of the platform: each gets an answer, whatever callback and payload are."""

import asyncio
import functools

import pytest
from device_peer import ATTRIBUTES, CALL, Answers, NoException, cancelled, make_client

from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.requests import server_rpc


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
async def test_a_call_and_its_answer(emulator, device, callback):
    device.set_rpc_request_callback(callback)
    answers = Answers(emulator)
    for params in ({"a": [1]}, 0, "", [], False):
        assert await answers.to(0, {"method": "m", "params": params}) == (0, {"result": params})
    # Ids begin again after a restart of the server.
    assert await answers.to(0, {"method": "m"}) == (0, {})


@pytest.mark.parametrize("number", [-1, -5, -(2**31), 2**31 - 1])
async def test_a_call_of_any_int32_is_answered(emulator, device, caplog, number):
    """The platform's counter passes the end of its numbers."""
    device.set_rpc_request_callback(lambda request: request.request_id)
    answers = Answers(emulator)
    async with asyncio.timeout(5):
        assert await answers.to(number, {"method": "m"}) == (number, {"result": number})
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


class Unprintable(Exception):
    def __str__(self):
        return "told"


def fail(_request):
    raise Unprintable


async def fail_later(_request):
    await asyncio.sleep(0)
    raise Unprintable


def end_a_test(_request):
    raise NoException("skipped")


@pytest.mark.parametrize(
    ("callback", "error_type", "message"),
    [
        (end_a_test, "NoException", "skipped"),
        (fail, "Unprintable", "told"),
        (fail_later, "Unprintable", "told"),
        (cancelled, "CancelledError", ""),
        (lambda: None, "TypeError", "takes 0 positional arguments"),
        (lambda _: {1, 2}, "UnsupportedValueError", "set"),
        (lambda _: object(), "UnsupportedValueError", "object"),
        (lambda _: float("nan"), "ValueError", "nan is not a JSON number"),
        (lambda _: b"bytes", "UnsupportedValueError", "bytes"),
        (lambda _: {"a": ("tuple",)}, "UnsupportedValueError", "tuple"),
    ],
)
async def test_defect_53_a_failing_callback_is_an_error_for_the_platform(emulator, device, callback, error_type, message, caplog):
    device.set_rpc_request_callback(callback)
    number, answer = await Answers(emulator).to(3, {"method": "m"})
    assert (number, list(answer), answer["error"]["type"]) == (3, ["error"], error_type)
    assert message in answer["error"]["message"]
    assert device.statistics.callback_errors == 1
    assert caplog.text.count("The callback for the RPC call 'm' failed") == 1
    assert caplog.text.count("Traceback") >= 1


async def test_a_call_without_a_callback_is_an_error(emulator, device):
    answers = Answers(emulator)
    expected = {"error": "The device has no callback for RPC calls"}
    assert await answers.to(0, {"method": "m"}) == (0, expected)
    device.set_rpc_request_callback(lambda _: 1)
    device.set_rpc_request_callback(None)
    assert await answers.to(1, {"method": "m"}) == (1, expected)


async def test_a_response_that_is_an_error(emulator, device):
    device.set_rpc_request_callback(lambda request: RPCResponse.build(request.request_id, error="wrong valve"))
    assert await Answers(emulator).to(1, {"method": "m"}) == (1, {"error": "wrong valve"})
    assert device.statistics.callback_errors == 0


async def test_a_callback_that_hangs_is_given_up(emulator):
    client = make_client(emulator, rpc_callback_timeout=0.01)
    ended = asyncio.Event()

    async def hang(_request):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    client.set_rpc_request_callback(hang)
    await client.connect()
    _, answer = await Answers(emulator).to(1, {"method": "m"})
    assert (answer["error"]["type"], answer["error"]["message"]) == (
        "TimeoutError",
        "the device did not answer within 0.01 s",
    )
    await ended.wait()
    await client.stop()


async def test_a_callback_that_does_not_end_even_then(emulator, caplog):
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
    answers = Answers(emulator)
    _, answer = await answers.to(1, {"method": "m"})
    assert answer["error"]["type"] == "TimeoutError"
    client.set_rpc_request_callback(lambda _: 5)
    assert await answers.to(1, {"method": "m"}) == (1, {"result": 5})
    end.set()
    await ended.wait()
    await client.stop()
    # Nothing is lost: what it raised in the end is told too.
    assert "much too late" in caplog.text
    assert client.statistics.callback_errors == 2


async def test_a_callback_that_hangs_is_cancelled_by_stop(emulator, device):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_request):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    device.set_rpc_request_callback(hang)
    await emulator.publish_to("TOKEN", f"{CALL}1", {"method": "m"})
    await begun.wait()
    await device.stop(timeout=0.01)
    assert cancelled.is_set()


async def test_stop_waits_for_the_answer_of_a_call_that_runs(emulator, device):
    answers, begun, go = Answers(emulator), asyncio.Event(), asyncio.Event()

    async def callback(_request):
        begun.set()
        await go.wait()
        await device.send_attributes({"done": True})
        return "late"

    device.set_rpc_request_callback(callback)
    await emulator.publish_to("TOKEN", f"{CALL}1", {"method": "m"})
    await begun.wait()
    stopping = asyncio.ensure_future(device.stop())
    await asyncio.sleep(0)
    go.set()
    await stopping
    assert answers.arrived.get_nowait() == (1, {"result": "late"})
    assert "done" in emulator.device("device").attributes


async def test_stop_waits_for_the_answers_of_many_calls_that_just_came(emulator, device):
    answers = Answers(emulator)
    device.set_rpc_request_callback(lambda request: request.params)
    arrived = asyncio.Event()
    device.set_attribute_update_callback(lambda _: arrived.set())
    for number in range(50):
        emulator.device("device").session.send(f"{CALL}{number}", b'{"method":"m","params":%d}' % number)
    emulator.device("device").session.send(ATTRIBUTES, b'{"a":1}')
    await arrived.wait()
    await device.stop()
    assert sorted(answers.arrived.get_nowait() for _ in range(answers.arrived.qsize())) == [
        (number, {"result": number}) for number in range(50)
    ]


async def test_calls_run_side_by_side(emulator, device):
    begun, release = [], {number: asyncio.Event() for number in range(3)}

    async def callback(request):
        begun.append(request.request_id)
        await release[request.request_id].wait()
        return request.request_id

    device.set_rpc_request_callback(callback)
    answers = Answers(emulator)
    for number in range(3):
        await emulator.publish_to("TOKEN", f"{CALL}{number}", {"method": "m"})
    for number in (2, 0, 1):
        release[number].set()
        assert await answers.arrived.get() == (number, {"result": number})
    assert begun == [0, 1, 2]


async def test_contract_2_a_call_that_is_sent_again_runs_once(emulator, device):
    runs, release = [], asyncio.Event()

    async def callback(request):
        runs.append(request.request_id)
        await release.wait()
        return len(runs)

    device.set_rpc_request_callback(callback)
    answers = Answers(emulator)
    for _ in range(2):
        await emulator.publish_to("TOKEN", f"{CALL}0", {"method": "m"})
    await device.send_attributes({"a": 1})
    release.set()
    assert await answers.arrived.get() == (0, {"result": 1})
    # The same again, when the first is over, is a new call.
    assert await answers.to(0, {"method": "m"}) == (0, {"result": 2})


async def test_an_answer_survives_a_lost_connection(emulator, device):
    called, release = asyncio.Event(), asyncio.Event()

    async def callback(_request):
        called.set()
        await release.wait()
        return "late"

    device.set_rpc_request_callback(callback)
    answers = Answers(emulator)
    await emulator.publish_to("TOKEN", f"{CALL}7", {"method": "m"})
    await called.wait()
    await emulator.disconnect_device("TOKEN")
    release.set()
    assert await answers.arrived.get() == (7, {"result": "late"})


async def test_contract_9_an_oversized_answer_becomes_an_error(emulator, device):
    device.set_rpc_request_callback(lambda request: "x" * request.params)
    answers = Answers(emulator)
    number, answer = await answers.to(1, {"method": "m", "params": 70_000})
    assert number == 1
    assert "has 70013 bytes, and the platform takes 65" in answer["error"]
    assert device.statistics.callback_errors == 1
    assert (await answers.to(2, {"method": "m", "params": 3}))[1] == {"result": "xxx"}
    assert emulator.device("device").counters.connections == 1


async def test_an_error_with_an_unchecked_result(emulator, device):
    device.set_rpc_request_callback(lambda request: RPCResponse.build(request.request_id, object(), "error"))
    _, answer = await Answers(emulator).to(1, {"method": "m"})
    assert "unsupported" in answer["error"]


@pytest.mark.parametrize("payload", [b"", b"no json", b"[]", b"{}", b'{"method":5}', b"\xff", b"[" * 50_000])
async def test_a_malformed_call_is_answered_with_an_error(emulator, device, payload):
    device.set_rpc_request_callback(pytest.fail)
    assert await Answers(emulator).to(4, payload) == (4, {"error": "Invalid RPC request format"})
    assert device.statistics.inbound_malformed == 1


@pytest.mark.parametrize("number", ["x", "", "1.5", "+1", "١", "1_0", str(2**31), "-99999999999"])
async def test_contract_8_a_call_under_no_number_is_not_answered(emulator, device, number):
    """The server disconnects for an answer whose id is no int32."""
    device.set_rpc_request_callback(lambda _: 1)
    answers = Answers(emulator)
    await emulator.publish_to("TOKEN", f"{CALL}{number}", {"method": "m"})
    assert await answers.to(1, {"method": "m"}) == (1, {"result": 1})
    assert device.statistics.inbound_malformed == 1
    assert answers.arrived.empty()


async def test_calls_beyond_the_bound_get_an_error(emulator, monkeypatch):
    monkeypatch.setattr(server_rpc, "MAX_REFUSALS", 2)
    client = make_client(emulator, max_inbound_messages=3)
    release = asyncio.Event()

    async def callback(request):
        await release.wait()
        return request.request_id

    client.set_rpc_request_callback(callback)
    await client.connect()
    answers = Answers(emulator)
    # In one packet of TCP, so that no answer goes out between them.
    session = emulator.device("device").session
    for number in range(10):
        session.send(f"{CALL}{number}", b'{"method":"m"}')
    refused = [await answers.arrived.get() for _ in range(2)]
    assert refused == [(number, {"error": "The device has too many calls to answer"}) for number in (3, 4)]
    release.set()
    assert [await answers.arrived.get() for _ in range(3)] == [(number, {"result": number}) for number in (0, 1, 2)]
    assert client.statistics.inbound_refused == 7
    await client.stop()
    assert answers.arrived.empty()


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
    await emulator.publish_to("TOKEN", f"{CALL}1", {"method": "m"})
    assert await outcome == "stopped"
    assert "did not end" not in caplog.text
    await client.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


async def test_a_call_may_ask_the_platform(emulator, device):
    """A callback that waits for an answer of the platform does not wait for itself."""

    async def callback(_request):
        return (await device.request_attributes(["a"]))["a"]

    device.set_rpc_request_callback(callback)
    await emulator.set_shared_attributes("device", {"a": 5})
    assert await emulator.call_rpc("device", "m") == {"result": 5}
