"""The synchronous clients on the wire: sends, results, callbacks, and the threads that they run in."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
from device_peer import FAST, RPC_REQUEST, RPCResponses

from tb_mqtt_client import (
    AttributeRequest,
    BackpressureException,
    Certainty,
    ClientState,
    Connected,
    ConnectionLost,
    DeviceNotConnectedError,
    NotConnectedError,
    RPCRequest,
    TelemetryMetadata,
)
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.sync import DeviceClient, GatewayClient

SECONDS = 30
"""A limit for waiting in threads, so that a defect cannot block the tests."""


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tb-mqtt")]


def remaining_threads():
    """Return the threads that do not end on their own: those of workers end soon after the event loop."""
    for thread in own_threads():
        thread.join(SECONDS)
    return own_threads()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert remaining_threads() == []


@pytest.fixture
def options(emulator):
    return FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}


@pytest.fixture
async def make(options):
    """Return a function that makes clients, which are stopped after the test."""
    made = []

    def make(kind=DeviceClient, **others):
        made.append(kind(options | others))
        return made[-1]

    yield make
    for client in made:
        await asyncio.to_thread(client.stop, 0)


@pytest.fixture
async def client(options):
    client = DeviceClient(options)
    await asyncio.to_thread(client.connect)
    yield client
    await asyncio.to_thread(client.stop)


@pytest.fixture
async def gateway(options):
    gateway = GatewayClient(options | {"access_token": "GATEWAY"})
    await asyncio.to_thread(gateway.connect)
    yield gateway
    await asyncio.to_thread(gateway.stop)


async def in_thread(function, *arguments):
    """Run the code of a program in a thread, as the event loop of this thread must not be blocked."""
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), SECONDS)


def received(emulator, name="device"):
    """Return the received telemetry of a device: time, key and value."""
    return [tuple(datapoint) for datapoint in emulator.device(name).telemetry]


class Calls:
    """A callback that keeps its arguments and the thread in which it was called."""

    def __init__(self, result=None):
        self.arguments = []
        self.threads = []
        self.result = result
        self._changed = threading.Condition()

    def __call__(self, *arguments):
        with self._changed:
            self.arguments.append(arguments)
            self.threads.append(threading.current_thread())
            self._changed.notify_all()
        return self.result

    def wait(self, count=1):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arguments) >= count, SECONDS)
        return self.arguments


async def test_a_program(options, emulator):
    def program():
        with DeviceClient(options) as client:
            assert client.state is ClientState.OPEN
            result = client.send_timeseries({"ts": 1, "values": {"a": 1, "b": 2}})
            assert (result.is_successful(), result.datapoints_count) == (True, 2)
            assert client.send_attributes({"serial": "4711"}).is_successful()
        return client.state

    assert await in_thread(program) is ClientState.STOPPED
    assert received(emulator) == [(1, "a", 1), (1, "b", 2)]


async def test_deliveries_of_several_threads(client, emulator):
    def sender(first):
        deliveries = [client.send_timeseries({"ts": ts, "values": {"a": ts}}, wait=False) for ts in range(first, first + 200)]
        return [delivery.result(SECONDS).reason_code for delivery in deliveries]

    codes = await asyncio.gather(*(in_thread(sender, first) for first in (1000, 2000, 3000, 4000)))
    assert codes == [[0] * 200] * 4
    times = [ts for ts, _, _ in received(emulator)]
    for first in (1000, 2000, 3000, 4000):
        assert [ts for ts in times if first <= ts < first + 1000] == list(range(first, first + 200))
    assert client.statistics.acknowledged == 800


async def test_a_delivery(client, emulator):
    emulator.on_publish = lambda _publish: Verdict.ignore()
    delivery = await in_thread(lambda: client.send_timeseries({"a": 1}, wait=False))
    assert not delivery.done()
    assert not delivery.cancelled()
    calls = Calls()
    delivery.add_done_callback(calls)
    for wait in (delivery.result, delivery.exception):
        with pytest.raises(TimeoutError, match="no result after"):
            await in_thread(wait, 0.01)
    emulator.on_publish = None
    waiting = [asyncio.ensure_future(in_thread(delivery.result)) for _ in range(2)]
    await emulator.disconnect_device("TOKEN")
    results = await asyncio.gather(*waiting)
    assert [result.reason_code for result in results] == [0, 0]
    assert delivery.done()
    assert await in_thread(delivery.exception) is None
    assert await in_thread(calls.wait) == [(delivery,)]
    # A later callback is called, too, in the same thread.
    delivery.add_done_callback(calls)
    await in_thread(calls.wait, 2)
    assert len(set(calls.threads)) == 1
    assert calls.threads[0].name == "tb-mqtt callbacks"


async def test_a_result_is_pending_after_its_timeout(client, emulator):
    emulator.on_publish = lambda _publish: Verdict.ignore()
    result = await in_thread(lambda: client.send_timeseries({"a": 1}, timeout=0.01))
    assert (result.reason_code, result.certainty) == (LocalReasonCode.NOT_DELIVERED, Certainty.PENDING)
    emulator.on_publish = None
    await emulator.disconnect_device("TOKEN")
    await in_thread(client.stop)
    assert client.statistics.acknowledged == 1


async def test_invalid_data_raises_in_the_call(client):
    with pytest.raises(ValueError, match="Invalid key"):
        client.send_timeseries({"": 1}, wait=False)
    with pytest.raises(TypeError, match="plain function"):
        client.set_rpc_request_callback(asyncio.sleep)
    with pytest.raises(TypeError, match="claim_request"):
        await in_thread(client.claim_device, "secret")
    assert client.statistics.accepted == 0


@pytest.mark.parametrize("kind", [DeviceClient, GatewayClient])
async def test_a_client_that_is_not_started(make, kind):
    client = make(kind)
    assert client.state is ClientState.NEW
    assert client.statistics.accepted == 0
    assert client.health()["state"] == "new"
    with pytest.raises(NotConnectedError, match=r"connect\(\) or start\(\)"):
        client.send_timeseries({"a": 1})
    with pytest.raises(NotConnectedError):
        await in_thread(client.wait_connected)
    await in_thread(client.disconnect)
    await in_thread(client.stop)
    assert remaining_threads() == []


async def test_a_failed_connect_can_be_repeated(make, emulator):
    client = make(access_token="LATER")
    with pytest.raises(ConnectionError, match="no device with these credentials"):
        await in_thread(client.connect)
    emulator.add_device("LATER", "later")
    await in_thread(client.connect)
    assert client.state is ClientState.OPEN
    await in_thread(client.stop)
    # Also after a stop.
    await in_thread(client.connect)
    assert (await in_thread(client.send_timeseries, {"a": 1})).is_successful()
    await in_thread(client.stop)


async def test_start_and_connection_events(make, emulator):
    client = make()
    calls = Calls()
    remove = client.on_connection_event(calls)
    seen = []
    events = client.connection_events()
    reader = threading.Thread(target=lambda: seen.extend(events))
    await in_thread(client.start)
    reader.start()
    delivery = client.send_timeseries({"a": 1}, wait=False)
    await in_thread(client.wait_connected, SECONDS)
    assert (await in_thread(delivery.result, SECONDS)).is_successful()
    await emulator.disconnect_device("TOKEN")
    while not any(isinstance(event, ConnectionLost) for (event,) in calls.arguments):
        await in_thread(calls.wait, len(calls.arguments) + 1)
    await in_thread(client.wait_connected, SECONDS)
    remove()
    await in_thread(client.stop)
    await in_thread(reader.join)
    assert [type(event) for event in seen if isinstance(event, Connected | ConnectionLost)][:2] == [Connected, ConnectionLost]
    assert len(set(calls.threads)) == 1


async def test_callbacks_may_use_the_client_and_wait(client, emulator):
    updates, results = Calls(), []

    def on_update(update):
        updates(update)
        results.append(client.send_timeseries({"seen": update.keys()[0]}))

    client.set_attribute_update_callback(on_update)

    def on_rpc(request):
        assert client.send_attributes({"last": request.method}).is_successful()
        return client.request_attributes(shared_keys=["level"])["level"]

    client.set_rpc_request_callback(on_rpc)
    await emulator.set_shared_attributes("device", {"level": 7})
    assert await emulator.call_rpc("device", "get") == {"result": 7}
    await in_thread(updates.wait)
    assert [result.is_successful() for result in results] == [True]
    assert emulator.device("device").attributes["last"] == "get"


async def test_callbacks_run_in_order_in_one_thread(client, emulator):
    updates = Calls()
    client.set_attribute_update_callback(updates)
    for level in range(20):
        await emulator.set_shared_attributes("device", {"level": level})
    await in_thread(updates.wait, 20)
    assert [update.get("level") for (update,) in updates.arguments] == list(range(20))
    assert len(set(updates.threads)) == 1


async def test_a_callback_that_raises_is_counted_and_answered(client, emulator, caplog):
    def fail(_request):
        raise SystemExit(1)

    client.set_rpc_request_callback(fail)
    responses = RPCResponses(emulator)
    assert "error" in (await responses.to(1, {"method": "m", "params": None}))[1]
    delivery = client.send_timeseries({"a": 1}, wait=False)
    delivery.add_done_callback(lambda _: 1 / 0)
    await in_thread(delivery.result)
    second = Calls()
    delivery.add_done_callback(second)
    await in_thread(second.wait)
    assert client.statistics.callback_errors == 2
    assert "SystemExit" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_callback_may_stop_the_client(make, emulator):
    client = make()
    stopped = threading.Event()

    def stop(_update):
        client.send_timeseries({"last": 1}, wait=False)
        client.stop()
        stopped.set()

    client.set_attribute_update_callback(stop)
    await in_thread(client.connect)
    await emulator.set_shared_attributes("device", {"level": 7})
    assert await in_thread(stopped.wait, SECONDS)
    assert client.state is ClientState.STOPPED
    assert [key for _, key, _ in received(emulator)] == ["last"]


async def test_an_rpc_callback_that_is_too_slow(make, emulator):
    client = make(rpc_callback_timeout=0.05)
    release = threading.Event()
    client.set_rpc_request_callback(lambda _request: release.wait(SECONDS))
    await in_thread(client.connect)
    responses = RPCResponses(emulator)
    assert "did not respond within" in (await responses.to(1, {"method": "m", "params": None}))[1]["error"]["message"]
    # This one waits behind the first callback, and is not called any more.
    assert "did not respond within" in (await responses.to(2, {"method": "m", "params": None}))[1]["error"]["message"]
    release.set()
    # A busy machine may be too slow for some of the next ones.
    for request_id in range(3, 200):
        _, response = await responses.to(request_id, {"method": "m", "params": None})
        if "error" not in response:
            break
    assert response == {"result": True}
    await in_thread(client.stop)


async def test_requests(client, emulator):
    await emulator.set_shared_attributes("device", {"level": 7})

    def program():
        assert client.request_attributes(shared_keys=["level"])["level"] == 7
        responses = Calls()
        client.send_attribute_request(AttributeRequest.create(shared_keys=["level"]), responses)
        assert responses.wait()[0][0]["level"] == 7

    await in_thread(program)


async def test_client_side_rpc(client, emulator):
    emulator.on_client_rpc = lambda _device, method, params: {"method": method, "params": params}
    request = RPCRequest.create("now", {"zone": "UTC"})

    def program():
        assert client.call_rpc("now").result == {"method": "now", "params": None}
        pending = client.send_rpc_request(request, wait=False)
        assert pending.result(SECONDS).result["params"] == {"zone": "UTC"}
        seen = Calls()
        assert client.send_rpc_request(request, seen).result == seen.arguments[0][0].result
        assert seen.threads == [threading.current_thread()]
        later = client.send_rpc_request(request, seen, wait=False)
        assert later.result(SECONDS).result["method"] == "now"
        assert seen.wait(2)

    await in_thread(program)


async def test_a_request_can_be_cancelled(client, emulator):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.startswith(RPC_REQUEST) else None
    request = RPCRequest.create("now")
    pending = await in_thread(lambda: client.send_rpc_request(request, wait=False, timeout=None))
    assert pending.cancel()

    def waits():
        # asyncio would turn this exception into its own.
        for wait in (pending.result, pending.exception):
            with pytest.raises(CancelledError):
                wait(SECONDS)

    await in_thread(waits)
    assert pending.cancelled()
    assert not pending.cancel()


async def test_a_blocking_call_in_a_thread_with_an_event_loop(client):
    with pytest.raises(RuntimeError, match="asyncio clients"):
        client.send_timeseries({"a": 1})
    with pytest.raises(RuntimeError, match="asyncio clients"):
        client.disconnect()
    delivery = client.send_timeseries({"a": 1}, wait=False)
    with pytest.raises(RuntimeError, match="asyncio clients"):
        delivery.result()
    # Neither of them was sent, or waits for anything.
    assert client.statistics.accepted == 1
    assert (await in_thread(delivery.result)).is_successful()


async def test_a_full_queue(make, emulator):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    client = make(max_queued_messages=5, queue_policy="raise", max_inflight_messages=1)
    await in_thread(client.connect)

    def fill():
        for value in range(1000):
            client.send_timeseries({"ts": value, "values": {"a": "x" * 30_000}}, wait=False)

    with pytest.raises(BackpressureException):
        await in_thread(fill)
    await in_thread(client.stop, 0)
    statistics = client.statistics
    assert 5 <= statistics.accepted <= 20
    assert statistics.undelivered == statistics.accepted


async def test_stop_resolves_every_delivery(make, emulator):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    client = make()
    await in_thread(client.connect)
    deliveries = [client.send_timeseries({"ts": ts, "values": {"a": 1}}, wait=False) for ts in range(100)]
    waiting = asyncio.ensure_future(in_thread(deliveries[-1].result))
    await in_thread(client.stop, 0.05)
    assert (await waiting).reason_code == LocalReasonCode.NOT_DELIVERED
    assert all(delivery.done() for delivery in deliveries)
    with pytest.raises(NotConnectedError, match="stopped"):
        client.send_timeseries({"a": 1}, wait=False)
    statistics = client.statistics
    assert (statistics.accepted, statistics.undelivered) == (100, 100)


async def test_clients_share_one_thread(make, emulator):
    for number in range(5):
        emulator.add_device(f"T{number}", f"device {number}")
    clients = [make(access_token=f"T{number}") for number in range(5)]
    # Several threads connect at the same time.
    await asyncio.gather(*(in_thread(client.connect) for client in clients))
    assert [thread.name for thread in own_threads()].count("tb-mqtt event loop") == 1
    results = await asyncio.gather(*(in_thread(client.send_timeseries, {"a": 1}) for client in clients))
    assert [result.reason_code for result in results] == [0] * 5
    await asyncio.gather(*(in_thread(client.stop) for client in clients))


async def test_a_gateway(gateway, emulator):
    def program():
        session, result = gateway.connect_device("sensor", "thermometer", wait=True)
        assert result.is_successful()
        assert gateway.device_manager.get_by_name("sensor") is session
        assert gateway.send_device_timeseries(session, {"ts": 1, "values": {"a": 1}}).is_successful()
        deliveries = [gateway.send_device_timeseries(session, {"ts": ts, "values": {"a": ts}}, wait=False) for ts in range(2, 50)]
        assert all(delivery.result(SECONDS).is_successful() for delivery in deliveries)
        assert gateway.send_device_attributes(session, {"serial": "4711"}).is_successful()
        metadata = TelemetryMetadata("modbus", 1)
        assert gateway.send_device_timeseries(session, {"a": 3}, metadata=metadata).is_successful()
        return session

    session = await in_thread(program)
    assert [ts for ts, _, _ in received(emulator, "sensor")][:49] == list(range(1, 50))
    assert emulator.device("sensor").profile == "thermometer"
    returned, delivery = await in_thread(gateway.disconnect_device, session)
    assert returned is session
    assert (await in_thread(delivery.result)).is_successful()
    with pytest.raises(DeviceNotConnectedError):
        gateway.send_device_timeseries(session, {"a": 1}, wait=False)


async def test_callbacks_of_a_sub_device(gateway, emulator):
    session, delivery = await in_thread(gateway.connect_device, "sensor")
    updates, states, responses = Calls(), Calls(), Calls()
    session.set_attribute_update_callback(updates)
    session.set_state_change_callback(states)
    session.set_attribute_response_callback(responses)
    session.set_rpc_request_callback(lambda session, request: [session.device_info.device_name, request.method])
    assert (await in_thread(delivery.result)).is_successful()
    await emulator.set_shared_attributes("sensor", {"level": 7})
    [(of_session, update)] = await in_thread(updates.wait)
    assert of_session is session
    assert update.get("level") == 7
    assert await emulator.call_rpc("sensor", "get") == {"result": ["sensor", "get"]}
    request = AttributeRequest.create(shared_keys=["level"])
    await in_thread(gateway.send_device_attributes_request, session, request)
    [(of_session, _response)] = await in_thread(responses.wait)
    assert of_session is session
    assert (await in_thread(gateway.request_device_attributes, session, ["level"]))["level"] == 7
    await emulator.disconnect_device("GATEWAY")
    await in_thread(states.wait)
    assert {thread.name for thread in updates.threads + states.threads + responses.threads} == {"tb-mqtt callbacks"}
    with pytest.raises(TypeError, match="plain function"):
        session.set_attribute_update_callback(asyncio.sleep)
