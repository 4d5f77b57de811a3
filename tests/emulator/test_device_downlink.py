"""The platform speaks to a device: attribute updates and calls. Whatever callbacks and payloads are, the client goes on."""

import asyncio
import functools
import logging

import pytest

from tb_mqtt_client import DeviceClient, NotConnectedError
from tb_mqtt_client.common import async_utils
from tb_mqtt_client.common.exceptions import SubscriptionRefusedError
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service import inbound_report
from tb_mqtt_client.service.device import downlink

ATTRIBUTES = "v1/devices/me/attributes"
CALL = "v1/devices/me/rpc/request/"
ANSWER = "v1/devices/me/rpc/response/"
FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}


def make_client(emulator, **options):
    return DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"} | options)


@pytest.fixture
async def device(emulator):
    client = make_client(emulator)
    await client.connect()
    yield client
    await client.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


class Answers:
    """Answers of the device to calls, as they arrive."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.arrived = asyncio.Queue()
        emulator.on_publish = self.judge

    def judge(self, publish):
        if publish.topic.startswith(ANSWER):
            self.arrived.put_nowait((int(publish.topic.removeprefix(ANSWER)), publish.json()))

    async def to(self, number, payload):
        assert await self.emulator.publish_to("TOKEN", f"{CALL}{number}", payload)
        return await self.arrived.get()


# Session set-up.


async def test_defect_21_and_22_connect_returns_when_everything_is_subscribed(emulator):
    client = make_client(emulator)
    updates, calls = asyncio.Queue(), Answers(emulator)
    client.set_attribute_update_callback(updates.put_nowait)
    client.set_rpc_request_callback(lambda request: request.method)
    for connect in range(3):
        if connect == 1:
            await emulator.disconnect_device("TOKEN")
            # Back when something is acknowledged again.
            await client.send_attributes({"a": 1}, timeout=None)
        elif connect == 2:
            await client.disconnect()
            await client.connect()
        else:
            await client.connect()
        assert await calls.to(0, {"method": "m"}) == (0, {"result": "m"})
        assert await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": connect})
        assert (await updates.get()).as_dict() == {"a": connect}
    await client.stop()


async def test_what_a_session_costs_is_taken_from_the_limits(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="100:3600"))
    client = make_client(emulator, rate_limit_percentage=100)
    answers = Answers(emulator)
    client.set_rpc_request_callback(lambda _: None)

    def spent():
        return 100 - round(client._rate_limiter.message_rate_limit.buckets.tokens(client._admission._clock())[0])

    await client.connect()
    # Connecting, and two subscriptions that the platform counts.
    assert spent() == 3
    await answers.to(1, {"method": "m"})
    # Its acknowledgement, and the answer.
    assert spent() == 5
    await client.disconnect()
    await client.connect()
    # The end of a session costs one too.
    assert spent() == 9
    await client.stop()


async def test_subscriptions_wait_for_their_tokens(emulator):
    """Over the limit the server grants a subscription and sends nothing."""
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="2:1"))
    client = make_client(emulator, rate_limit_percentage=100)
    await client.connect()
    # Connecting took one token, so that there was one for two subscriptions.
    assert await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    assert await emulator.publish_to("TOKEN", f"{CALL}0", {"method": "m"})
    await client.stop()


async def test_telemetry_does_not_wait_for_subscriptions(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="2:3600"))
    client = make_client(emulator, rate_limit_percentage=100)
    connecting = asyncio.create_task(client.connect())
    while not client._mqtt_manager.is_writable():  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert not connecting.done()
    await client.stop()
    with pytest.raises(NotConnectedError, match="stopped while it was connecting"):
        await connecting


async def test_a_connection_lost_while_a_subscription_waits(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(messages="4:3600"))
    client = make_client(emulator, rate_limit_percentage=25)
    connecting = asyncio.create_task(client.connect())
    while not client._rate_limiter.message_rate_limit.has_limit():  # noqa: ASYNC110
        await asyncio.sleep(0)
    await emulator.disconnect_device("TOKEN")
    with pytest.raises(ConnectionError):
        await connecting
    await client.stop()


async def test_defect_70_a_refused_subscription_is_told_and_the_rest_works(emulator, caplog):
    class Curious(DeviceClient):
        _free_topics = (*DeviceClient._free_topics, "v1/devices/me/#")

    client = Curious({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    client.set_rpc_request_callback(lambda _: 1)
    with caplog.at_level(logging.WARNING):
        await client.connect()
    refusal = "The server refused the subscription to v1/devices/me/#: Topic Filter invalid. Its messages will not come"
    assert [record.getMessage() for record in caplog.records] == [refusal]
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert await Answers(emulator).to(1, {"method": "m"}) == (1, {"result": 1})
    with pytest.raises(SubscriptionRefusedError) as refused:
        await client._mqtt_manager.subscribe("#")
    assert (refused.value.topic, refused.value.reason_code) == ("#", 0x8F)
    await client.stop()


# Attribute updates.


@pytest.mark.parametrize("plain", [True, False])
async def test_attribute_updates(emulator, device, plain):
    updates = asyncio.Queue()

    async def coroutine_function(update):
        await updates.put(update)

    device.set_attribute_update_callback(updates.put_nowait if plain else coroutine_function)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1, "b": {"c": None}})
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"deleted": ["a", "b"]})
    changed, deleted = await updates.get(), await updates.get()
    assert (changed.as_dict(), changed.deleted_keys) == ({"a": 1, "b": {"c": None}}, [])
    assert (deleted.as_dict(), deleted.deleted_keys) == ({}, ["a", "b"])


async def test_updates_come_in_their_order_whatever_their_callback_does(emulator, device):
    seen, last = [], asyncio.Event()

    async def callback(update):
        number = update.get("n")
        # The earlier ones take longer.
        for _ in range(20 - number):
            await asyncio.sleep(0)
        seen.append(number)
        if number == 19:
            last.set()
        if number % 3 == 0:
            raise ValueError(f"number {number}")

    device.set_attribute_update_callback(callback)
    for number in range(20):
        await emulator.publish_to("TOKEN", ATTRIBUTES, {"n": number})
    await last.wait()
    assert seen == list(range(20))
    assert device.statistics.callback_errors == 7
    assert device.statistics.inbound_messages == 21


async def test_a_callback_that_awaits_what_was_cancelled(emulator, device):
    """That is its own failure, and not the end of the task which calls it."""
    seen = asyncio.Queue()

    async def callback(update):
        seen.put_nowait(update.get("a"))
        if update.get("a") == 1:
            await cancelled(update)

    device.set_attribute_update_callback(callback)
    for number in (1, 2):
        await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": number})
        assert await seen.get() == number
    assert device.statistics.callback_errors == 1


async def test_updates_without_a_callback_are_of_no_interest(emulator, device):
    updates = asyncio.Queue()
    device.set_attribute_update_callback(updates.put_nowait)
    device.set_attribute_update_callback(None)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    await emulator.publish_to("TOKEN", ATTRIBUTES, b"no json")
    await device.send_attributes({"a": 1})
    device.set_attribute_update_callback(updates.put_nowait)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 2})
    assert (await updates.get()).get("a") == 2
    assert updates.empty()


async def test_a_hanging_callback_keeps_nothing_else(emulator, device, caplog):
    started = asyncio.Event()

    async def hang(_update):
        started.set()
        await asyncio.Event().wait()

    device.set_attribute_update_callback(hang)
    device.set_rpc_request_callback(lambda request: request.params)
    answers = Answers(emulator)
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    await started.wait()
    assert await answers.to(5, {"method": "m", "params": 7}) == (5, {"result": 7})
    assert (await device.send_timeseries({"a": 1})).is_successful()
    await device.stop()
    assert "does not end" not in caplog.text


async def test_a_callback_that_cannot_be_cancelled_does_not_keep_stop(emulator, caplog, monkeypatch):
    monkeypatch.setattr(async_utils, "END_SECONDS", 0.01)
    client = make_client(emulator)
    started, end = asyncio.Event(), asyncio.Event()

    async def hang(_update):
        started.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    client.set_attribute_update_callback(hang)
    await client.connect()
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 1})
    await started.wait()
    await client.stop()
    assert f"tb-mqtt-client handler of {ATTRIBUTES} was cancelled and does not end" in caplog.text
    [left] = [task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()]
    end.set()
    await asyncio.wait([left])


async def test_what_waits_is_bounded(emulator, caplog):
    client = make_client(emulator, max_inbound_messages=5)
    seen, go_on, done = [], asyncio.Event(), asyncio.Event()

    async def callback(update):
        await go_on.wait()
        seen.append(update.get("n"))
        if len(seen) == 6:
            done.set()

    client.set_attribute_update_callback(callback)
    await client.connect()
    for number in range(20):
        await emulator.publish_to("TOKEN", ATTRIBUTES, {"n": number})
        # One is with its callback before the next arrives.
        await client.send_attributes({"a": 1})
    go_on.set()
    await done.wait()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert client.statistics.inbound_refused == 14
    assert caplog.text.count("is refused: 5 wait for their callbacks") == 1
    await client.stop()


# Calls of the platform.


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


class Unprintable(Exception):
    def __str__(self):
        return "told"


def fail(_request):
    raise Unprintable


async def fail_later(_request):
    await asyncio.sleep(0)
    raise Unprintable


async def cancelled(_request):
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("callback", "error_type", "message"),
    [
        (fail, "Unprintable", "told"),
        (fail_later, "Unprintable", "told"),
        (cancelled, "CancelledError", ""),
        (lambda: None, "TypeError", "takes 0 positional arguments"),
        (lambda _: {1, 2}, "ValueError", "set"),
        (lambda _: object(), "ValueError", "object"),
        (lambda _: float("nan"), "ValueError", "nan is not a JSON number"),
        (lambda _: b"bytes", "ValueError", "bytes"),
        (lambda _: {"a": ("tuple",)}, "ValueError", "tuple"),
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
    await device.stop()
    assert cancelled.is_set()


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
    monkeypatch.setattr(downlink, "MAX_REFUSALS_QUEUED", 2)
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
    assert "does not end" not in caplog.text
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


# What nobody expects.


async def test_unknown_topics_and_answers_nobody_waits_for(emulator, device, caplog, monkeypatch):
    monkeypatch.setattr(inbound_report, "QUIET_SECONDS", 1000.0)
    session = emulator.device("device").session
    with caplog.at_level(logging.WARNING):
        for topic in ("x", "v1/devices/me", f"{ATTRIBUTES}/response/1/2", f"{ATTRIBUTES}/response/77", f"{ANSWER}77"):
            session.send(topic, b"{}")
        for topic in (f"{ATTRIBUTES}/response/x", f"{ANSWER}x", f"{ATTRIBUTES}/response/3"):
            session.send(topic, b"{}" if topic.endswith("x") else b"no json")
        await device.send_attributes({"a": 1})
        assert (await device.send_attributes({"a": 1})).is_successful()
    assert (device.statistics.inbound_unexpected, device.statistics.inbound_malformed) == (5, 3)
    # Of each kind one line: a server sends faster than anybody reads.
    assert len(caplog.records) == 2
    assert "A message on x is for nobody: there is no handler for its topic" in caplog.text


async def test_a_downlink_with_packet_id_0(emulator, device):
    """After 65,535 downlinks the server's counter is 0 on the wire (platform_contract.md, section 1)."""
    device.set_rpc_request_callback(lambda _: 1)
    answers = Answers(emulator)
    emulator.device("device").session._downlink_id = 65_535
    assert await answers.to(5, {"method": "m"}) == (5, {"result": 1})
    assert await answers.to(6, {"method": "m"}) == (6, {"result": 1})


async def test_the_first_message_of_a_stopped_client_is_not_lost_in_its_lane(emulator):
    """A handler that is cancelled before it began must not keep its topic for ever."""
    client = make_client(emulator)
    updates = asyncio.Queue()
    client.set_attribute_update_callback(updates.put_nowait)
    await client.connect()
    client._mqtt_manager._inbound.dispatch(ATTRIBUTES, b'{"a":1}')
    await client.disconnect()
    await client.connect()
    await emulator.publish_to("TOKEN", ATTRIBUTES, {"a": 2})
    update = await updates.get()
    while update.get("a") == 1:
        update = await updates.get()
    assert update.get("a") == 2
    await client.stop()


async def test_old_servers_answer_the_request_for_the_limits_late(caplog):
    """Before 3.8 it ends as a call does: {"error": "timeout"} after a minute."""
    async with Emulator(limits=None) as emulator:
        emulator.add_device("TOKEN", "device")
        client = make_client(emulator, limits_timeout=0.01)
        await client.connect()
        emulator.device("device").session.send(f"{ANSWER}1", b'{"error":"timeout"}')
        await client.send_attributes({"a": 1})
        assert client.statistics.inbound_unexpected == 1
        await client.stop()
