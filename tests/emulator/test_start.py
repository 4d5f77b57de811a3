"""``start()``: a client that boots before its network, queues, and connects for as long as it takes."""

import asyncio
import logging
import socket

import pytest
from device_peer import FAST, make_client

from engine_parts import engine_of
from tb_mqtt_client import (
    ClientFailed,
    ClientState,
    Connected,
    ConnectFailed,
    Connecting,
    ConnectionLost,
    ConnectRefused,
    DeviceClient,
    DeviceConfig,
    GatewayClient,
    NotConnectedError,
    PublishingPaused,
    QueueHigh,
    QueueLow,
)
from tb_mqtt_client.constants.reason_codes import LocalReasonCode, ReasonCode
from tb_mqtt_client.emulator import Emulator, Verdict

KINDS = {"device": DeviceClient, "gateway": GatewayClient}


def own_tasks():
    return {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()}


class Heard:
    """The events of a client, and what waits for one of a kind."""

    def __init__(self, client):
        self.events = []
        self._arrived = asyncio.Condition()
        self.remove = client.on_connection_event(self._take)

    async def _take(self, event):
        async with self._arrived:
            self.events.append(event)
            self._arrived.notify_all()

    async def wait_for(self, kind, number=1):
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: len(self.of(kind)) >= number)
        return self.of(kind)[number - 1]

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(params=KINDS)
async def absent(request):
    """An emulator that does not listen yet, and a client of its device or gateway."""
    emulator = Emulator()
    await emulator.start()
    await emulator.stop()
    (emulator.add_device if request.param == "device" else emulator.add_gateway)("TOKEN", "device")
    client = KINDS[request.param](FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    yield emulator, client
    await client.stop(0)
    await emulator.stop()
    await asyncio.sleep(0)
    assert own_tasks() == set()


async def test_data_of_a_client_without_a_server_arrives_when_the_server_does(absent):
    emulator, client = absent
    heard = Heard(client)
    await client.start()
    assert client.state is ClientState.CONNECTING
    deliveries = [(await client.send_timeseries({"a": number}, wait_for_publish=False))[0] for number in range(3)]
    await heard.wait_for(ConnectFailed, 3)
    assert client.state is ClientState.CONNECTING
    assert client.statistics.queued == 3
    assert "nothing listens" in client.health()["connect_error"]
    await emulator.start()
    await client.wait_connected()
    assert client.state is ClientState.OPEN
    assert client.health()["connect_error"] == ""
    assert all(result.is_successful() for result in await asyncio.gather(*deliveries))
    connected = await heard.wait_for(Connected)
    assert (connected.host, connected.port, connected.connections) == (emulator.host, emulator.port, 1)
    assert connected.limits == client.health()["limits"]
    attempts = heard.of(Connecting)
    assert [event.attempt for event in attempts] == list(range(1, len(attempts) + 1))
    # The attempts and their ends alternate.
    kinds = [type(event) for event in heard.events]
    assert kinds == [Connecting, ConnectFailed] * (len(attempts) - 1) + [Connecting, Connected]


FIRST_FAILURES = {
    "DNS": (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "the name 'localhost' cannot be resolved"),
    "network": (OSError(101, "Network is unreachable"), "there is no route to this address"),
    "time": (TimeoutError(), "the name 'localhost' was not resolved within"),
}


@pytest.mark.parametrize(("error", "text"), FIRST_FAILURES.values(), ids=FIRST_FAILURES)
async def test_the_first_attempt_may_fail_for_anything(emulator, monkeypatch, error, text):
    client, failures = make_client(emulator), [error] * 3
    heard, loop = Heard(client), asyncio.get_running_loop()
    getaddrinfo = loop.getaddrinfo

    async def fail_first(*arguments, **options):
        if failures:
            raise failures.pop()
        return await getaddrinfo(*arguments, **options)

    monkeypatch.setattr(loop, "getaddrinfo", fail_first)
    engine_of(client).config.host = "localhost"
    await client.start()
    await client.wait_connected()
    failed = await heard.wait_for(ConnectFailed, 3)
    assert isinstance(failed.error, type(error))
    assert failed.reason.startswith(f"localhost:{emulator.port}: {text}")
    assert failed.retry_in is not None
    assert client.state is ClientState.OPEN
    await client.stop()


async def test_tls_without_a_tls_server_is_retried(emulator):
    client = make_client(emulator, use_system_ca=True)
    heard = Heard(client)
    await client.start()
    failed = await heard.wait_for(ConnectFailed, 2)
    assert "TLS" in failed.reason
    engine_of(client).config.use_system_ca = False
    await client.wait_connected()
    await client.stop()


@pytest.mark.parametrize("version", [5, 4])
async def test_bad_credentials_are_retried_until_they_are_fixed(emulator, version, caplog):
    client = make_client(emulator, access_token="LATER", mqtt_version=version)
    heard = Heard(client)
    await client.start()
    [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    refused = await heard.wait_for(ConnectRefused, 2)
    assert refused.permanent
    assert refused.retry_in <= FAST["reconnect_delay_max"]
    assert refused.reason_code in {ReasonCode.BAD_USER_NAME_OR_PASSWORD, 4, 5}
    assert any(record.levelno == logging.WARNING and "credentials" in record.getMessage() for record in caplog.records)
    assert client.state is ClientState.CONNECTING
    emulator.add_device("LATER", "late")
    await client.wait_connected()
    assert (await delivery).is_successful()
    await client.stop()


@pytest.mark.parametrize("timeout", [0, 0.01])
async def test_stop_without_a_connection_resolves_all_futures(absent, timeout):
    _, client = absent
    heard = Heard(client)
    await client.start()
    deliveries = [(await client.send_timeseries({"a": number}, wait_for_publish=False))[0] for number in range(3)]
    await heard.wait_for(ConnectFailed)
    waiting = asyncio.ensure_future(client.wait_connected())
    await asyncio.sleep(0)
    await client.stop(timeout)
    assert [(await delivery).reason_code for delivery in deliveries] == [LocalReasonCode.NOT_DELIVERED] * 3
    assert client.statistics.undelivered == 3
    with pytest.raises(NotConnectedError, match="the client is stopped"):
        await waiting
    assert client.state is ClientState.STOPPED


async def test_disconnect_without_a_connection_keeps_the_queue(absent):
    emulator, client = absent
    heard = Heard(client)
    await client.start()
    [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    await heard.wait_for(ConnectFailed)
    waiting = asyncio.ensure_future(client.wait_connected())
    await asyncio.sleep(0)
    await client.disconnect()
    with pytest.raises(NotConnectedError, match="the client is disconnected"):
        await waiting
    assert client.state is ClientState.DISCONNECTED
    await asyncio.sleep(0)
    assert own_tasks() == set()
    await emulator.start()
    await client.start()
    assert (await delivery).is_successful()


async def test_a_started_client_starts_again_after_its_stop(absent):
    emulator, client = absent
    await client.start()
    await client.start()
    await client.stop(0)
    with pytest.raises(NotConnectedError, match=r"connect\(\) or start\(\) must be called again"):
        await client.send_timeseries({"a": 1})
    await emulator.start()
    await client.start()
    assert (await client.send_timeseries({"a": 1})).is_successful()


async def test_connect_still_raises_the_first_failure(absent):
    emulator, client = absent
    heard = Heard(client)
    with pytest.raises(ConnectionRefusedError):
        await client.connect()
    failed = await heard.wait_for(ConnectFailed)
    assert failed.retry_in is None
    assert isinstance(failed.error, ConnectionRefusedError)
    assert client.state is ClientState.DISCONNECTED
    await client.start()
    with pytest.raises(ConnectionRefusedError):
        await client.connect()
    # The client goes on.
    assert client.state is ClientState.CONNECTING
    await emulator.start()
    await client.wait_connected()
    await client.connect()


async def test_a_cancelled_connect_does_not_end_a_started_client(absent):
    emulator, client = absent
    await client.start()
    connecting = asyncio.ensure_future(client.connect())
    await asyncio.sleep(0)
    connecting.cancel()
    await asyncio.wait([connecting])
    await emulator.start()
    await client.wait_connected()


async def test_wait_connected_says_why_there_is_no_connection(absent):
    _, client = absent
    with pytest.raises(NotConnectedError, match=r"connect\(\) or start\(\) must be called before wait_connected\(\)"):
        await client.wait_connected()
    heard = Heard(client)
    await client.start()
    with pytest.raises(TimeoutError, match="the first attempt is still running"):
        await client.wait_connected(0)
    await heard.wait_for(ConnectFailed)
    with pytest.raises(TimeoutError, match=r"the client is not connected after 0.01 s: .*nothing listens"):
        await client.wait_connected(0.01)
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        await client.wait_connected("soon")
    # A caller that is cancelled leaves nothing.
    waiting = asyncio.ensure_future(client.wait_connected())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not engine_of(client).life._waiting


async def test_wait_connected_waits_for_the_next_session_after_a_loss(emulator, device):
    await device.wait_connected(0)
    heard = Heard(device)
    await emulator.stop()
    await heard.wait_for(ConnectionLost)
    waiting = asyncio.ensure_future(device.wait_connected())
    await emulator.start()
    await waiting
    assert device.state is ClientState.OPEN


async def test_a_client_without_a_host_does_not_start(monkeypatch):
    monkeypatch.delenv("TB_HOST", raising=False)
    client = DeviceClient({"access_token": "TOKEN"})
    with pytest.raises(ValueError, match="host must be set"):
        await client.start()
    assert client.state is ClientState.NEW


@pytest.mark.parametrize("cancelled_after", range(8))
async def test_start_may_be_cancelled_while_a_stop_is_running(emulator, device, cancelled_after):
    stopping = asyncio.ensure_future(device.stop())
    await asyncio.sleep(0)
    starting = asyncio.ensure_future(device.start())
    for _ in range(cancelled_after):
        await asyncio.sleep(0)
    starting.cancel()
    await stopping
    await asyncio.wait([starting])
    if starting.cancelled():
        assert device.state is ClientState.STOPPED
    else:
        await device.wait_connected()


@pytest.mark.parametrize("kind", KINDS)
async def test_async_with_starts_if_the_option_says_so(kind, monkeypatch):
    async with Emulator() as emulator:
        await emulator.stop()
        (emulator.add_device if kind == "device" else emulator.add_gateway)("TOKEN", "device")
        monkeypatch.setenv("TB_CONNECT_IN_BACKGROUND", "1")
        options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}
        async with KINDS[kind](options) as client:
            [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
            await emulator.start()
            assert (await delivery).is_successful()
        assert client.state is ClientState.STOPPED
        # An explicit value wins.
        assert not DeviceConfig({"connect_in_background": False}).connect_in_background


async def test_sub_devices_from_before_the_first_session_are_announced_after_it(make_gateway, emulator):
    await emulator.stop()
    gateway = make_gateway()
    with pytest.raises(NotConnectedError):
        await gateway.connect_device("meter")
    await gateway.start()
    meter, [announced] = await gateway.connect_device("meter", "meters")
    other, _ = await gateway.connect_device("other")
    deliveries = [await gateway.send_device_timeseries(one, {"a": 1}, wait_for_publish=False) for one in (meter, other)]
    deliveries.append(await gateway.send_device_attributes(meter, {"b": 1}, wait_for_publish=False))
    gone, _ = await gateway.connect_device("gone")
    await gateway.disconnect_device(gone)
    assert not meter.state.is_connected()
    await emulator.start()
    assert (await announced).is_successful()
    assert all(result.is_successful() for result in await asyncio.gather(*deliveries))
    assert meter.state.is_connected()
    assert emulator.device("meter").attributes == {"b": 1}
    assert [point.value for point in emulator.device("other").telemetry] == [1]
    await gateway.stop()


async def test_stop_resolves_announcements_of_a_gateway_that_never_connected(make_gateway, emulator):
    await emulator.stop()
    gateway = make_gateway()
    await gateway.start()
    session, [announced] = await gateway.connect_device("meter")
    delivery = await gateway.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)
    await gateway.stop(0)
    assert (await announced).reason_code == (await delivery).reason_code == LocalReasonCode.NOT_DELIVERED


async def test_requests_wait_for_the_first_session(emulator):
    await emulator.set_shared_attributes("device", {"a": 1})
    await emulator.stop()
    client = make_client(emulator)
    await client.start()
    asking = asyncio.ensure_future(client.request_attributes(shared_keys=["a"]))
    await asyncio.sleep(0)
    await emulator.start()
    assert {entry.key: entry.value for entry in (await asking).shared} == {"a": 1}
    await client.stop()


# Events of a connected client.


async def test_a_lost_connection_is_an_event_and_the_programs_own_end_is_not(emulator, device):
    heard = Heard(device)
    await emulator.disconnect_device("TOKEN", ReasonCode.SERVER_SHUTTING_DOWN)
    lost = await heard.wait_for(ConnectionLost)
    assert lost.reason_code == ReasonCode.SERVER_SHUTTING_DOWN
    assert str(emulator.port) in lost.reason
    assert (await heard.wait_for(Connected)).connections == 2
    await device.disconnect()
    await device.connect()
    await heard.wait_for(Connected, 2)
    await device.stop()
    await asyncio.sleep(0)
    assert [type(event) for event in heard.events] == [ConnectionLost, *[Connecting, Connected] * 2]


async def test_the_stream_of_events_ends_with_the_client(emulator):
    client = make_client(emulator)

    async def watch():
        return [type(event) async for event in client.connection_events()]

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    await client.start()
    await client.wait_connected()
    await client.stop()
    assert await watching == [Connecting, Connected]
    assert [event async for event in client.connection_events()] == []


@pytest.mark.parametrize("method", ["stop", "disconnect"])
async def test_a_listener_may_end_the_client(emulator, method):
    client, ended = make_client(emulator), asyncio.Event()

    async def end(event):
        if isinstance(event, Connected):
            await getattr(client, method)()
            ended.set()

    client.on_connection_event(end)
    await client.start()
    await ended.wait()
    assert client.state in {ClientState.STOPPED, ClientState.DISCONNECTED}
    await client.stop()


@pytest.mark.parametrize("method", ["stop", "disconnect", "connect"])
async def test_a_cancelled_listener_that_ends_the_client_does_not_wait_for_that(emulator, caplog, method):
    client, begun = make_client(emulator), asyncio.Event()

    async def hang(_event):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await getattr(client, method)()

    client.on_connection_event(hang)
    await client.start()
    await begun.wait()
    await client.stop()
    assert client.state is ClientState.STOPPED
    assert not any("did not end" in message for message in caplog.messages)


async def test_a_hanging_listener_delays_neither_the_client_nor_its_stop(emulator):
    client, begun = make_client(emulator), asyncio.Event()

    async def hang(_event):
        begun.set()
        await asyncio.Event().wait()

    client.on_connection_event(hang)
    await client.start()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await begun.wait()
    await client.stop()
    assert own_tasks() == set()


async def test_a_nearly_full_queue_is_an_event_until_it_is_low_again(absent):
    emulator, client = absent
    engine_of(client).message_service.capacity.__init__(10, 10_000)
    engine_of(client).message_service.capacity.on_fill_changed = engine_of(client)._fill_changed
    heard = Heard(client)
    await client.start()
    deliveries = []
    for number in range(10):
        deliveries += await client.send_timeseries({"a": number}, wait_for_publish=False)
    high = await heard.wait_for(QueueHigh)
    assert (high.messages, high.max_messages) == (8, 10)
    await emulator.start()
    await asyncio.gather(*deliveries)
    low = await heard.wait_for(QueueLow)
    assert low.messages <= 5


async def test_stop_reports_no_queue(absent):
    _, client = absent
    engine_of(client).config.max_queued_messages = 10
    heard = Heard(client)
    await client.start()
    for number in range(10):
        await client.send_timeseries({"a": number}, wait_for_publish=False)
    await client.stop(0)
    await asyncio.sleep(0)
    assert heard.of(QueueLow) == []


async def test_a_pause_is_an_event(emulator):
    client = make_client(emulator, backpressure_delay=0.02)
    heard = Heard(client)
    await client.start()
    refusals = [Verdict(store=False, reason_code=ReasonCode.QUOTA_EXCEEDED)]
    emulator.on_publish = lambda _: refusals.pop() if refusals else None
    assert (await client.send_timeseries({"a": 1})).is_successful()
    paused = await heard.wait_for(PublishingPaused)
    assert paused.seconds > 0
    assert paused.reason == "the server refused a message for its quota"
    assert paused.limit
    await client.stop()


async def test_a_failed_client_is_an_event(emulator):
    client = make_client(emulator)
    heard = Heard(client)
    await client.start()
    await client.wait_connected()
    waiting = asyncio.ensure_future(heard.wait_for(ClientFailed))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    [loop] = [task for task in own_tasks() if task.get_name().endswith("service queue")]
    loop.cancel()
    assert "service queue" in (await waiting).reason
    assert client.state is ClientState.FAILED
    with pytest.raises(NotConnectedError, match="service queue"):
        await client.wait_connected()
    await client.start()
    await client.wait_connected()
    await client.stop()
