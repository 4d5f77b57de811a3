"""Telemetry and attributes through a real broker: a subscriber receives the sent data, and every send gets its result."""

import asyncio
import json
import ssl
from collections import Counter

import pytest
from broker_client import BrokerClient

from engine_parts import engine_of
from tb_mqtt_client import Connected, DeviceClient, GatewayClient, NotConnectedError


class Subscriber(BrokerClient):
    """Keeps all received messages."""

    def __init__(self, broker):
        super().__init__(broker, "subscriber", qos=0)
        self.received = []

    def _on_message(self, _client, topic, payload, _qos, _properties):
        self.received.append((topic, json.loads(payload)))
        return 0

    def on(self, topic):
        return [payload for received, payload in self.received if received == topic]


def config(broker, **options):
    # Mosquitto does not respond to getSessionLimits.
    return {"host": broker.host, "port": broker.port, "access_token": "token", "limits_timeout": 0.1} | options


async def test_data_of_a_device_arrives_and_is_counted(mosquitto):
    async with Subscriber(mosquitto) as subscriber:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        result = await client.send_timeseries([{"ts": 1, "values": {"a": 1.5, "b": "x"}}, {"ts": 2, "values": {"a": 2}}])
        assert (result.reason_code, result.datapoints_count, result.topic) == (0, 3, "v1/devices/me/telemetry")
        attributes = await client.send_attributes({"serial": "é", "big": 2**70})
        assert (attributes.reason_code, attributes.datapoints_count) == (0, 2)
        await client.stop()
    assert subscriber.on("v1/devices/me/telemetry") == [[{"ts": 1, "values": {"a": 1.5, "b": "x"}}, {"ts": 2, "values": {"a": 2}}]]
    assert subscriber.on("v1/devices/me/attributes") == [{"serial": "é", "big": 2**70}]
    statistics = client.statistics
    assert (statistics.accepted, statistics.acknowledged, statistics.queued, statistics.in_flight) == (5, 5, 0, 0)


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("version", [4, 5])
async def test_telemetry_is_acknowledged_with_every_version_and_qos(mosquitto, qos, version):
    client = DeviceClient(config(mosquitto, qos=qos, mqtt_version=version))
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_defect_04_sends_are_packed_together_and_each_gets_its_own_result(mosquitto):
    async with Subscriber(mosquitto) as subscriber:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        futures = []
        for ts in range(2000):
            futures += await client.send_timeseries({"ts": ts, "values": {"a": ts, "b": -ts}}, wait_for_publish=False)
        results = await asyncio.gather(*futures)
        await client.stop()
    assert all(result.is_successful() and result.datapoints_count == 2 for result in results)
    records = [record for payload in subscriber.on("v1/devices/me/telemetry") for record in payload]
    assert [record["ts"] for record in records] == list(range(2000))
    assert len(subscriber.on("v1/devices/me/telemetry")) < 200


async def test_a_large_send_is_split_and_gets_one_result(mosquitto):
    async with Subscriber(mosquitto) as subscriber:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        result = await client.send_timeseries({"ts": 5, "values": {f"key_{index}": index for index in range(20_000)}})
        await client.stop()
    payloads = subscriber.on("v1/devices/me/telemetry")
    assert result.is_successful()
    assert result.datapoints_count == 20_000
    assert len(payloads) > 1
    values = Counter()
    for [record] in payloads:
        assert record["ts"] == 5
        values.update(record["values"])
    assert values == {f"key_{index}": index for index in range(20_000)}


async def test_defect_15_only_the_datapoint_that_is_too_large_is_rejected(mosquitto):
    async with Subscriber(mosquitto) as subscriber:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        result = await client.send_timeseries({"ts": 1, "values": {"a": 1, "big": "x" * 70_000, "b": 2}})
        await client.stop()
    assert result.reason_code == 0x95
    assert result.reason == "Packet too large"
    assert subscriber.on("v1/devices/me/telemetry") == [[{"ts": 1, "values": {"a": 1, "b": 2}}]]
    assert (client.statistics.acknowledged, client.statistics.rejected) == (2, 1)
    assert client.statistics.rejected_by_reason == {0x95: 1}


@pytest.mark.parametrize("combine", [True, False])
async def test_data_of_sub_devices_arrives(mosquitto, combine):
    async with Subscriber(mosquitto) as subscriber:
        client = GatewayClient(config(mosquitto, combine_devices=combine))
        await client.connect()
        first, connected = await client.connect_device("first", "profile", wait_for_publish=True)
        assert connected.is_successful()
        second, _ = await client.connect_device("second", wait_for_publish=True)
        futures = []
        for ts in range(100):
            for session in (first, second):
                data = {"ts": ts, "values": {"a": ts}}
                futures.append(await client.send_device_timeseries(session, data, wait_for_publish=False))
        results = await asyncio.gather(*futures)
        assert (await client.send_device_attributes(first, {"serial": 1})).is_successful()
        assert (await client.send_timeseries({"own": 1})).is_successful()
        _, disconnected = await client.disconnect_device(second, wait_for_publish=True)
        assert disconnected.is_successful()
        await client.stop()
    assert all(result.is_successful() for result in results)
    assert subscriber.on("v1/gateway/connect") == [
        {"device": "first", "type": "profile"},
        {"device": "second", "type": "default"},
    ]
    assert subscriber.on("v1/gateway/disconnect") == [{"device": "second"}]
    assert subscriber.on("v1/gateway/attributes") == [{"first": {"serial": 1}}]
    payloads = subscriber.on("v1/gateway/telemetry")
    for device in ("first", "second"):
        records = [record for payload in payloads for record in payload.get(device, [])]
        assert records == [{"ts": ts, "values": {"a": ts}} for ts in range(100)]
    assert any(len(payload) == 2 for payload in payloads) == combine


async def test_telemetry_is_published_after_the_announcement_of_its_device(mosquitto):
    """docs/platform_contract.md, section 9: telemetry before the announcement creates the device with the profile "default"."""
    async with Subscriber(mosquitto) as subscriber:
        client = GatewayClient(config(mosquitto))
        await client.connect()
        futures = []
        for number in range(50):
            session, _ = await client.connect_device(f"device {number}", "profile")
            futures.append(await client.send_device_timeseries(session, {"a": number}, wait_for_publish=False))
        await asyncio.gather(*futures)
        await client.stop()
    announced = set()
    for topic, payload in subscriber.received:
        if topic == "v1/gateway/connect":
            announced.add(payload["device"])
        elif topic == "v1/gateway/telemetry":
            assert set(payload) <= announced


@pytest.mark.parametrize("option", ["ca_cert", "client_cert"])
async def test_defect_23_telemetry_is_acknowledged_over_tls(mosquitto, option):
    certificates = mosquitto.certificates
    options = {"ca_cert": str(certificates.ca), "port": mosquitto.tls_port}
    if option == "client_cert":
        options |= {
            "port": mosquitto.mtls_port,
            "client_cert": str(certificates.client_cert),
            "private_key": str(certificates.client_key),
        }
    client = DeviceClient(config(mosquitto, **options))
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_a_certificate_of_an_authority_that_the_system_does_not_trust_is_refused(mosquitto):
    client = DeviceClient(config(mosquitto, port=mosquitto.tls_port, use_system_ca=True))
    with pytest.raises(ssl.SSLCertVerificationError):
        await client.connect()
    await client.stop()


async def test_a_certificate_of_an_authority_that_the_system_trusts_is_accepted(mosquitto, monkeypatch):
    """OpenSSL reads the authorities of the system from the file that SSL_CERT_FILE names."""
    monkeypatch.setenv("SSL_CERT_FILE", str(mosquitto.certificates.ca))
    client = DeviceClient(config(mosquitto, port=mosquitto.tls_port, use_system_ca=True))
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_connect_raises_if_the_broker_refuses_the_connection(mosquitto):
    mosquitto.stop()
    client = DeviceClient(config(mosquitto))
    with pytest.raises(ConnectionRefusedError):
        await client.connect()
    await client.stop()


async def test_sends_before_connect_and_after_stop_raise(mosquitto):
    client = DeviceClient(config(mosquitto))
    with pytest.raises(NotConnectedError, match=r"connect\(\)"):
        await client.send_timeseries({"a": 1})
    await client.connect()
    await client.stop()
    with pytest.raises(AttributeError):
        await client.send_timeseries({"a": 1})


async def test_stop_leaves_no_task_and_the_client_can_connect_again(mosquitto):
    client = DeviceClient(config(mosquitto))
    for _ in range(2):
        await client.connect()
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert client.statistics.acknowledged == 2


async def test_stop_resolves_undelivered_sends(mosquitto):
    client = DeviceClient(config(mosquitto))
    await client.connect()
    mosquitto.stop()
    [future] = await client.send_timeseries({"a": 1, "b": 2}, wait_for_publish=False)
    result = await client.send_timeseries({"a": 1}, timeout=0.01)
    assert (result.reason_code, future.done()) == (-1, False)
    await client.stop(timeout=0.01)
    assert (await future).reason_code == -1
    statistics = client.statistics
    assert (statistics.accepted, statistics.undelivered, statistics.queued, statistics.in_flight) == (3, 3, 0, 0)


async def test_data_queued_while_the_broker_is_down_arrives(mosquitto):
    client = GatewayClient(config(mosquitto, reconnect_delay_min=0.01))
    await client.connect()
    session, _ = await client.connect_device("device", wait_for_publish=True)
    mosquitto.stop()
    futures = [
        await client.send_device_timeseries(session, {"ts": ts, "values": {"a": ts}}, wait_for_publish=False) for ts in range(100)
    ]
    mosquitto.start()
    async with Subscriber(mosquitto) as subscriber:
        results = await asyncio.gather(*futures)
        await client.stop()
    assert all(result.is_successful() for result in results)
    records = [record for payload in subscriber.on("v1/gateway/telemetry") for record in payload["device"]]
    assert {record["ts"] for record in records} <= set(range(100))
    assert client.statistics.acknowledged == 100


async def test_all_data_is_acknowledged_although_the_broker_is_killed_three_times(mosquitto):
    client = GatewayClient(config(mosquitto, reconnect_delay_min=0.001, reconnect_delay_max=0.01))
    await client.connect()
    sessions = [(await client.connect_device(f"device {number}"))[0] for number in range(5)]
    futures = []

    async def send():
        for ts in range(25_000):
            data = {"ts": ts, "values": {"a": ts, "b": -ts}}
            futures.append(await client.send_device_timeseries(sessions[ts % 5], data, wait_for_publish=False))
            if ts % 100 == 0:
                await asyncio.sleep(0.001)

    connected = asyncio.Queue()
    client.on_connection_event(lambda event: connected.put_nowait(event) if isinstance(event, Connected) else None)

    async def kill():
        for _ in range(3):
            await asyncio.sleep(0.05)
            mosquitto.kill()
            await asyncio.to_thread(mosquitto.start)
            await connected.get()

    await asyncio.gather(send(), kill())
    results = await asyncio.gather(*futures)
    await client.stop()
    assert {(result.reason_code, result.datapoints_count) for result in results} == {(0, 2)}
    statistics = client.statistics
    assert (statistics.accepted, statistics.acknowledged) == (50_000, 50_000)
    assert statistics.reconnects >= 3


async def test_defect_34_mosquittos_receive_maximum_is_obeyed(mosquitto):
    """MQTT 5, section 3.2.2.3.3: at most as many unacknowledged PUBLISH packets as the server accepts."""
    mosquitto.stop()
    mosquitto.options = "max_inflight_messages 3\n"
    mosquitto.start()
    client = DeviceClient(config(mosquitto))
    await client.connect()
    manager = engine_of(client).mqtt_manager
    most = 0
    publish = manager.publish_now

    def counted(message):
        nonlocal most
        publish(message)
        most = max(most, manager.in_flight)

    manager.publish_now = counted
    futures = []
    for ts in range(500):
        futures += await client.send_timeseries({"ts": ts, "values": {"text": "x" * 40_000}}, wait_for_publish=False)
    assert {(await future).reason_code for future in futures} == {0}
    assert 1 <= most <= 3
    await client.stop()
