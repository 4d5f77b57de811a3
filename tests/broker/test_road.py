"""The road of a datapoint through a real broker: what a subscriber hears is what was sent, and every call is answered."""

import asyncio
import json
import ssl
from collections import Counter

import pytest
from broker_client import BrokerClient

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, GatewayClient, NotConnectedError


class Listener(BrokerClient):
    """Keeps all that it hears."""

    def __init__(self, broker):
        super().__init__(broker, "listener", qos=0)
        self.heard = []

    def _on_message(self, _client, topic, payload, _qos, _properties):
        self.heard.append((topic, json.loads(payload)))
        return 0

    def on(self, topic):
        return [payload for heard, payload in self.heard if heard == topic]


def config(broker, **options):
    # Mosquitto never answers getSessionLimits.
    return {"host": broker.host, "port": broker.port, "access_token": "token", "limits_timeout": 0.1} | options


async def test_device(mosquitto):
    async with Listener(mosquitto) as listener:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        result = await client.send_timeseries([{"ts": 1, "values": {"a": 1.5, "b": "x"}}, {"ts": 2, "values": {"a": 2}}])
        assert (result.reason_code, result.datapoints_count, result.topic) == (0, 3, "v1/devices/me/telemetry")
        attributes = await client.send_attributes({"serial": "é", "big": 2**70})
        assert (attributes.reason_code, attributes.datapoints_count) == (0, 2)
        await client.stop()
    assert listener.on("v1/devices/me/telemetry") == [[{"ts": 1, "values": {"a": 1.5, "b": "x"}}, {"ts": 2, "values": {"a": 2}}]]
    assert listener.on("v1/devices/me/attributes") == [{"serial": "é", "big": 2**70}]
    statistics = client.statistics
    assert (statistics.accepted, statistics.acknowledged, statistics.queued, statistics.in_flight) == (5, 5, 0, 0)


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("version", [4, 5])
async def test_qos_and_versions(mosquitto, qos, version):
    client = DeviceClient(config(mosquitto, qos=qos, mqtt_version=version))
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_defect_04_calls_are_merged_and_each_gets_its_own_answer(mosquitto):
    async with Listener(mosquitto) as listener:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        futures = []
        for ts in range(2000):
            futures += await client.send_timeseries({"ts": ts, "values": {"a": ts, "b": -ts}}, wait_for_publish=False)
        results = await asyncio.gather(*futures)
        await client.stop()
    assert all(result.is_successful() and result.datapoints_count == 2 for result in results)
    records = [record for payload in listener.on("v1/devices/me/telemetry") for record in payload]
    assert [record["ts"] for record in records] == list(range(2000))
    assert len(listener.on("v1/devices/me/telemetry")) < 200


async def test_a_large_call_is_split_and_answered_once(mosquitto):
    async with Listener(mosquitto) as listener:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        result = await client.send_timeseries({"ts": 5, "values": {f"key_{index}": index for index in range(20_000)}})
        await client.stop()
    payloads = listener.on("v1/devices/me/telemetry")
    assert result.is_successful()
    assert result.datapoints_count == 20_000
    assert len(payloads) > 1
    values = Counter()
    for [record] in payloads:
        assert record["ts"] == 5
        values.update(record["values"])
    assert values == {f"key_{index}": index for index in range(20_000)}


async def test_defect_15_a_datapoint_that_fits_nowhere_fails_alone(mosquitto):
    async with Listener(mosquitto) as listener:
        client = DeviceClient(config(mosquitto))
        await client.connect()
        result = await client.send_timeseries({"ts": 1, "values": {"a": 1, "big": "x" * 70_000, "b": 2}})
        await client.stop()
    assert result.reason_code == 0x95
    assert result.reason == "Packet too large"
    assert listener.on("v1/devices/me/telemetry") == [[{"ts": 1, "values": {"a": 1, "b": 2}}]]
    assert (client.statistics.acknowledged, client.statistics.rejected) == (2, 1)
    assert client.statistics.rejected_by_reason == {0x95: 1}


@pytest.mark.parametrize("combine", [True, False])
async def test_gateway(mosquitto, combine):
    async with Listener(mosquitto) as listener:
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
    assert listener.on("v1/gateway/connect") == [
        {"device": "first", "type": "profile"},
        {"device": "second", "type": "default"},
    ]
    assert listener.on("v1/gateway/disconnect") == [{"device": "second"}]
    assert listener.on("v1/gateway/attributes") == [{"first": {"serial": 1}}]
    payloads = listener.on("v1/gateway/telemetry")
    for device in ("first", "second"):
        records = [record for payload in payloads for record in payload.get(device, [])]
        assert records == [{"ts": ts, "values": {"a": ts}} for ts in range(100)]
    assert any(len(payload) == 2 for payload in payloads) == combine


async def test_telemetry_never_overtakes_its_devices_connect(mosquitto):
    """docs/platform_contract.md, section 9: telemetry that comes first creates the device with the profile "default"."""
    async with Listener(mosquitto) as listener:
        client = GatewayClient(config(mosquitto))
        await client.connect()
        futures = []
        for number in range(50):
            session, _ = await client.connect_device(f"device {number}", "profile")
            futures.append(await client.send_device_timeseries(session, {"a": number}, wait_for_publish=False))
        await asyncio.gather(*futures)
        await client.stop()
    announced = set()
    for topic, payload in listener.heard:
        if topic == "v1/gateway/connect":
            announced.add(payload["device"])
        elif topic == "v1/gateway/telemetry":
            assert set(payload) <= announced


@pytest.mark.parametrize("option", ["ca_cert", "client_cert"])
async def test_defect_23_tls(mosquitto, option):
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


async def test_tls_with_the_systems_authorities_refuses_a_stranger(mosquitto):
    client = DeviceClient(config(mosquitto, port=mosquitto.tls_port, use_system_ca=True))
    with pytest.raises(ssl.SSLCertVerificationError):
        await client.connect()
    await client.stop()


async def test_tls_with_the_systems_authorities(mosquitto, monkeypatch):
    """OpenSSL reads the system's authorities from where SSL_CERT_FILE points."""
    monkeypatch.setenv("SSL_CERT_FILE", str(mosquitto.certificates.ca))
    client = DeviceClient(config(mosquitto, port=mosquitto.tls_port, use_system_ca=True))
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    await client.stop()


async def test_connection_refused(mosquitto):
    mosquitto.stop()
    client = DeviceClient(config(mosquitto))
    with pytest.raises(ConnectionRefusedError):
        await client.connect()
    await client.stop()


async def test_sending_before_connect_and_after_stop(mosquitto):
    client = DeviceClient(config(mosquitto))
    with pytest.raises(NotConnectedError, match=r"connect\(\)"):
        await client.send_timeseries({"a": 1})
    await client.connect()
    await client.stop()
    with pytest.raises(AttributeError):
        await client.send_timeseries({"a": 1})


async def test_stop_leaves_nothing_and_the_client_connects_again(mosquitto):
    client = DeviceClient(config(mosquitto))
    for _ in range(2):
        await client.connect()
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert client.statistics.acknowledged == 2


async def test_stop_answers_what_cannot_be_delivered(mosquitto):
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


async def test_what_is_queued_while_the_broker_is_away_arrives(mosquitto):
    client = GatewayClient(config(mosquitto))
    engine_of(client).keeper._backoff._first = 0.01
    await client.connect()
    session, _ = await client.connect_device("device", wait_for_publish=True)
    mosquitto.stop()
    futures = [
        await client.send_device_timeseries(session, {"ts": ts, "values": {"a": ts}}, wait_for_publish=False) for ts in range(100)
    ]
    mosquitto.start()
    async with Listener(mosquitto) as listener:
        results = await asyncio.gather(*futures)
        await client.stop()
    assert all(result.is_successful() for result in results)
    records = [record for payload in listener.on("v1/gateway/telemetry") for record in payload["device"]]
    assert {record["ts"] for record in records} <= set(range(100))
    assert client.statistics.acknowledged == 100


async def test_broker_killed_and_restarted_during_a_stream(mosquitto):
    """50,000 datapoints: each is acknowledged, whatever happens to the broker meanwhile."""
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

    async def kill():
        for _ in range(3):
            await asyncio.sleep(0.05)
            mosquitto.kill()
            await asyncio.to_thread(mosquitto.start)

    await asyncio.gather(send(), kill())
    results = await asyncio.gather(*futures)
    await client.stop()
    assert {(result.reason_code, result.datapoints_count) for result in results} == {(0, 2)}
    statistics = client.statistics
    assert (statistics.accepted, statistics.acknowledged) == (50_000, 50_000)
    assert statistics.reconnects >= 3


async def test_defect_34_mosquittos_receive_maximum_is_obeyed(mosquitto):
    """MQTT 5, section 3.2.2.3.3: never more unacknowledged publishes than the server takes."""
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
