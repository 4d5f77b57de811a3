"""Clients report their health and metrics, and their log does not grow with the number of messages."""

import asyncio
import json
import logging
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from tb_mqtt_client import AttributeRequest, ClientState, ConnectionRefusedByServer, DeviceClient, GatewayClient
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits, Verdict
from tb_mqtt_client.metrics import ClientMetrics
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES

MESSAGES = 1000


def config(emulator, token="TOKEN", **options):
    return {"host": emulator.host, "port": emulator.port, "access_token": token} | options


def loud(caplog):
    return [record for record in caplog.records if record.name.startswith("tb_mqtt_client") and record.levelno > logging.DEBUG]


async def test_health_shows_the_life_of_a_client(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits("10:1", None, "300:1"))
    client = DeviceClient(config(emulator, client_id="probe", reconnect_delay_min=0.001, reconnect_delay_max=0.01))
    before = client.health()
    assert (before["client_id"], before["host"], before["port"]) == ("probe", emulator.host, emulator.port)
    assert (before["started"], before["connected"], before["ready"], before["since"]) == (False, False, False, None)
    assert (client.state, before["state"]) == (ClientState.NEW, "new")
    await client.connect()
    await client.send_timeseries({"a": 1, "b": 2})
    connected = client.health()
    assert (client.state, connected["state"]) == (ClientState.OPEN, "open")
    assert (connected["started"], connected["connected"], connected["ready"], connected["mqtt_version"]) == (True, True, True, 5)
    assert (connected["acknowledged"], connected["reconnects"], connected["last_disconnect"]) == (2, 0, "")
    assert connected["limits"] == {
        "announced": True,
        "max_payload_size": 65507,
        "max_packet_size": 65536,
        "device": {"messages": "10:1", "telemetryMessages": None, "telemetryDataPoints": "300:1"},
        "gateway": {},
        "learned": [],
    }
    await emulator.disconnect_device("TOKEN", 0x8E)
    [delivery] = await client.send_timeseries({"a": 3}, wait_for_publish=False)
    await delivery
    again = client.health()
    assert (again["reconnects"], again["last_disconnect_code"]) == (1, 0x8E)
    assert "Session taken over" in again["last_disconnect"]
    assert again["since"] >= connected["since"]
    await client.stop()
    stopped = client.health()
    assert (client.state, stopped["state"]) == (ClientState.STOPPED, "stopped")
    assert (stopped["started"], stopped["connected"], stopped["ready"]) == (False, False, False)
    assert (stopped["last_disconnect"], stopped["last_disconnect_code"]) == ("closed by this client", None)
    assert stopped["accepted"] == sum(stopped[state] for state in DELIVERY_STATES) == 3
    assert json.loads(json.dumps(stopped)) == stopped


async def test_health_shows_that_a_limit_applies(emulator):
    emulator.limits = SessionLimits(rate_limits=RateLimits(None, None, "10:1,20:3600"))
    client = DeviceClient(config(emulator))
    await client.connect()
    assert not client.health()["limited"]
    # The first send takes 16 of 20 datapoints per hour, which is all that the client uses.
    first = asyncio.ensure_future(client.send_timeseries([{"ts": ts, "values": {"a": 1}} for ts in range(16)]))
    while not client.health()["limited"]:  # noqa: ASYNC110  # there is no event for this
        await asyncio.sleep(0)
    health = client.health()
    assert health["queued"] > 0
    assert health["paused_seconds"] == 0
    await client.stop(timeout=0)
    await first
    assert client.health()["undelivered"] == health["queued"]


async def test_health_of_a_gateway_has_the_number_of_devices(emulator):
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    assert client.health()["devices"] == 0
    await client.connect_device("sub-device", wait_for_publish=True)
    assert client.health()["devices"] == 1
    await client.stop()


async def test_health_shows_default_limits_if_the_server_announces_none():
    async with Emulator(limits=None) as emulator:
        emulator.add_device("TOKEN", "device")
        client = DeviceClient(config(emulator, limits_timeout=0.05))
        await client.connect()
        sizes = {"max_payload_size": 65507, "max_packet_size": 65536}
        limits = {"announced": False, "device": {}, "gateway": {}, "learned": []} | sizes
        assert client.health()["limits"] == limits
        await client.stop()


async def test_metrics_of_two_clients_are_served_over_http(emulator):
    registry = CollectorRegistry()
    device, gateway = DeviceClient(config(emulator, client_id="d")), GatewayClient(config(emulator, "GATEWAY", client_id="g"))
    metrics = ClientMetrics(device, gateway, registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)

    async def scrape():
        def read():
            with urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as response:
                return response.read().decode().splitlines()

        return await asyncio.to_thread(read)

    try:
        await asyncio.gather(device.connect(), gateway.connect())
        await device.send_timeseries({"a": 1, "b": 2})
        labels = f'client_id="d",host="{emulator.host}",port="{emulator.port}"'
        lines = await scrape()
        assert f"tb_mqtt_client_acknowledged_datapoints_total{{{labels}}} 2.0" in lines
        assert f"tb_mqtt_client_connected{{{labels}}} 1.0" in lines
        metrics.remove(device)
        assert not [line for line in await scrape() if 'client_id="d"' in line]
    finally:
        await asyncio.gather(device.stop(), gateway.stop())
        server.shutdown()
        server.server_close()
        thread.join()


async def test_messages_are_not_logged_at_info(emulator, caplog):
    with caplog.at_level(logging.DEBUG, "tb_mqtt_client"):
        client = GatewayClient(config(emulator, "GATEWAY"))
        await client.connect()
        sessions = [(await client.connect_device(f"sub-device {number}"))[0] for number in range(20)]
        for number in range(MESSAGES):
            # One send at a time, so that each makes one message.
            await client.send_device_timeseries(sessions[number % 20], {"a": number})
            await client.send_attributes({"a": number})
        await client.stop()
    assert emulator.counters.data_publishes == 2 * MESSAGES
    assert [record.getMessage().split()[0] for record in loud(caplog)] == ["Connected", "Stopped:"]
    assert loud(caplog)[-1].getMessage() == f"Stopped: accepted={2 * MESSAGES} acknowledged={2 * MESSAGES}"


async def test_refused_messages_leave_one_log_line(emulator, caplog):
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if publish.topic.endswith("/telemetry") else None
    with caplog.at_level(logging.INFO, "tb_mqtt_client"):
        client = DeviceClient(config(emulator))
        await client.connect()
        for number in range(MESSAGES):
            await client.send_timeseries({"a": number})
        await client.stop()
    lines = [record.getMessage() for record in loud(caplog)]
    assert len(lines) == 3
    assert lines[1].startswith("The platform rejected")
    assert lines[2] == f"Stopped: accepted={MESSAGES} rejected={MESSAGES}"


async def test_temporarily_refused_messages_leave_few_log_lines(emulator, caplog):
    client = DeviceClient(config(emulator))
    await client.connect()
    # The window of a link grows with the acknowledgements.
    for _ in range(3):
        await asyncio.gather(*[client.send_timeseries({"ts": ts, "values": {"warm up": "x" * 40_000}}) for ts in range(16)])
    # Refuse all messages that are in flight at one moment.
    refused = []

    def judge(publish):
        if publish.topic.endswith("/telemetry") and client.statistics.messages_returned == 0:
            refused.append(publish)
            return Verdict.refuse(0x97)
        return None

    emulator.on_publish = judge
    with caplog.at_level(logging.INFO, "tb_mqtt_client"):
        await asyncio.gather(*[client.send_timeseries({"ts": ts, "values": {"a": "x" * 20_000}}) for ts in range(20)])
        await client.stop()
    assert client.statistics.messages_returned == len(refused) > 1
    # One line each for the learned limit, the refusals, the pause and the end.
    assert len(loud(caplog)) == 4, [record.getMessage() for record in loud(caplog)]


async def test_oversized_datapoints_leave_one_log_line(caplog):
    async with Emulator(max_payload_size=1000) as emulator:
        emulator.add_device("TOKEN", "device")
        with caplog.at_level(logging.INFO, "tb_mqtt_client"):
            client = DeviceClient(config(emulator))
            await client.connect()
            for number in range(100):
                assert (await client.send_timeseries({f"k{number}": "x" * 1000})).reason_code == 0x95
            await client.stop()
    assert [record.levelname for record in loud(caplog)] == ["INFO", "WARNING", "INFO"]


async def test_errors_of_callbacks_leave_one_log_line(emulator, caplog):
    def fail(_update):
        raise ValueError("not today")

    client = DeviceClient(config(emulator))
    client.set_attribute_update_callback(fail)
    await client.connect()
    with caplog.at_level(logging.INFO, "tb_mqtt_client"):
        for number in range(100):
            await emulator.set_shared_attributes("device", {"a": number})
        while client.statistics.callback_errors < 100:  # noqa: ASYNC110  # there is no event for this
            await asyncio.sleep(0)
        await client.stop()
    assert [record.levelname for record in loud(caplog)] == ["ERROR", "INFO"]
    assert "not today" in caplog.text


async def test_requests_without_a_response_leave_one_log_line(emulator, caplog):
    emulator.on_publish = lambda publish: Verdict.refuse(0) if "attributes/request" in publish.topic else None
    client = DeviceClient(config(emulator))
    await client.connect()
    failed = asyncio.Queue()
    with caplog.at_level(logging.INFO, "tb_mqtt_client"):
        for _ in range(100):
            request = await AttributeRequest.build(["a"])
            await client.send_attribute_request(request, failed.put_nowait, timeout=0.01, on_error=failed.put_nowait)
        assert all([isinstance(await failed.get(), TimeoutError) for _ in range(100)])
        await client.stop()
    assert [record.levelname for record in loud(caplog)] == ["WARNING", "INFO"]


async def test_stop_warns_about_undelivered_data(emulator, caplog):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    client = DeviceClient(config(emulator))
    await client.connect()
    [delivery] = await client.send_timeseries({"a": 1, "b": 2}, wait_for_publish=False)
    with caplog.at_level(logging.INFO, "tb_mqtt_client"):
        await client.stop(timeout=0.01)
    assert not (await delivery).is_successful()
    last = loud(caplog)[-1]
    assert (last.levelname, last.getMessage()) == ("WARNING", "Stopped: accepted=2 undelivered=2")


async def test_secrets_are_not_logged(emulator, caplog):
    with caplog.at_level(logging.NOTSET, "tb_mqtt_client"):
        client = DeviceClient(config(emulator, "wrong-secret-token"))
        with pytest.raises(ConnectionRefusedByServer):
            await client.connect()
        await client.stop()
    assert "wrong-secret-token" not in caplog.text
    assert "wrong-secret-token" not in repr(client.health())


async def test_notices_about_many_devices_leave_one_log_line(emulator, caplog):
    """If a limit is exceeded, the platform sends the gateway a notice for each of its devices."""
    client = GatewayClient(config(emulator, "GATEWAY"))
    await client.connect()
    for number in range(50):
        await client.connect_device(f"sub-device {number}", wait_for_publish=True)
    with caplog.at_level(logging.INFO, "tb_mqtt_client"):
        before = client.statistics.inbound_messages
        for number in range(50):
            assert await emulator.send_disconnect_notice(f"sub-device {number}", 128)
        while client.statistics.inbound_messages < before + 50:  # noqa: ASYNC110  # that a message came has no event
            await asyncio.sleep(0)
        await client.stop()
    assert len([record for record in loud(caplog) if "is disconnected" in record.getMessage()]) == 1


async def test_the_age_of_waiting_data_is_known_until_it_is_published(emulator):
    async with asyncio.timeout(30):
        client = DeviceClient(config(emulator))
        await client.connect()
        await emulator.stop()
        assert client.health()["oldest_seconds"] is None
        deliveries = [client.enqueue_timeseries({"a": 1}, priority=name) for name in ("low", "high", "normal") * 2]
        first = client.health()["oldest_seconds"]
        assert first >= 0
        await asyncio.sleep(0.1)
        deliveries.append(client.enqueue_timeseries({"a": 3}))
        assert first + 0.05 < client.health()["oldest_seconds"]
        await emulator.start()
        for delivery in deliveries:
            assert (await delivery).is_successful()
        health = client.health()
        assert health["oldest_seconds"] is None
        delays = health["delays"]
        assert delays["queue"]["count"] == delays["puback"]["count"] == health["messages_acknowledged"]
        assert delays["queue"]["seconds"] > 0.1
        await client.stop()
