"""Limits that the platform enforces without announcing them, and limits of the user, over real sockets."""

import asyncio
from collections import Counter

import pytest

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}
SOME_TIME = 30.0
"""Seconds that end a test which does not finish."""
QUICK = {"backpressure_delay": 1.0}
"""Options with a pause that is long enough for limits per second."""


@pytest.fixture
def config(emulator):
    def make(token, **options):
        return FAST | {"host": emulator.host, "port": emulator.port, "access_token": token} | options

    return make


def records(count, keys=10):
    return [{"ts": 1_700_000_000_000 + number, "values": {f"k{key}": key for key in range(keys)}} for number in range(count)]


@pytest.mark.parametrize("combine", [True, False])
async def test_gateway_messages_get_smaller_until_the_tenant_limit_allows_them(emulator, config, combine):
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="600:1"))
    async with GatewayClient(config("GATEWAY", **QUICK, combine_devices=combine)) as client:
        sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(10)]
        futures = [await client.send_device_timeseries(session, records(10), wait_for_publish=False) for session in sessions]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
        assert {(result.reason_code, result.datapoints_count) for result in results} == {(0, 100)}
        learned = {limit["limit"] for limit in client.health()["limits"]["learned"]}
        assert learned <= {"gateway telemetry datapoints", "gateway telemetry messages"}
        assert learned
    assert all({point.ts for point in emulator.device(f"device {number}").telemetry} == {
        1_700_000_000_000 + record for record in range(10)
    } for number in range(10))  # fmt: skip


class Publishes:
    """Keeps the telemetry messages of a gateway, and which of them the platform acknowledged as stored."""

    def __init__(self, emulator):
        self.messages = []
        self._by_id = {}
        emulator.on_publish, emulator.on_send = self._publish, self._send

    def _publish(self, publish):
        if publish.topic == "v1/gateway/telemetry":
            points = {
                (device, record["ts"], key)
                for device, sent in publish.json().items()
                for record in sent
                for key in record["values"]
            }
            self._by_id[publish.packet_id] = message = [points, False]
            self.messages.append(message)

    def _send(self, sending):
        message = self._by_id.pop(int.from_bytes(sending.packet[2:4]), None) if sending.kind == "PUBACK" else None
        if message is not None:
            message[1] = sending.packet[4:5] < b"\x80"


async def send_to_a_limited_tenant(emulator, config, **options):
    """Send 800 datapoints of 8 devices to a tenant with 500 per second. Return the datapoints that arrived more than once."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="500:1"))
    async with GatewayClient(config("GATEWAY", **QUICK, **options)) as client:
        sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(8)]
        futures = [await client.send_device_timeseries(session, records(10), wait_for_publish=False) for session in sessions]
        async with asyncio.timeout(SOME_TIME):
            await asyncio.gather(*futures)
    names = [f"device {number}" for number in range(8)]
    arrived = Counter((name, point.ts, point.key) for name in names for point in emulator.device(name).telemetry)
    assert len(arrived) == 800
    return {point for point, times in arrived.items() if times > 1}


@pytest.mark.parametrize("combine", [True, False])
async def test_only_data_that_the_platform_has_stored_without_acknowledging_it_arrives_twice(emulator, config, combine):
    """Messages of one device do not avoid it: what was accepted before a refusal is not acknowledged, either."""
    publishes = Publishes(emulator)
    doubled = await send_to_a_limited_tenant(emulator, config, combine_devices=combine)
    assert doubled
    acknowledged = set()
    for points, is_stored in publishes.messages:
        assert not points & acknowledged
        if is_stored:
            acknowledged |= points


async def test_nothing_arrives_twice_with_limits_of_the_user_below_those_of_the_tenant(emulator, config):
    assert not await send_to_a_limited_tenant(emulator, config, rate_limits={"telemetry_datapoints": "400:1"})
    assert not emulator.counters.refusals


@pytest.mark.parametrize("version", [5, 4])
async def test_device_messages_get_smaller_until_the_tenant_limit_allows_them(emulator, config, version):
    """With MQTT 3.1.1, the connection closes without a reason, as for a malformed message."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="300:1"))
    async with DeviceClient(config("TOKEN", **QUICK, mqtt_version=version)) as client:
        async with asyncio.timeout(SOME_TIME):
            result = await client.send_timeseries(records(60))
        assert (result.reason_code, result.datapoints_count) == (0, 600)


async def test_the_client_publishes_slower_after_closes_without_a_reason(emulator, config):
    """MQTT 3.1.1 has no reason codes. Without a learned limit, the client would lose every connection."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="2000:1"))
    received = []
    emulator.on_publish = lambda publish: received.append(publish.payload.count(b'"k'))
    async with DeviceClient(config("TOKEN", **QUICK, mqtt_version=4)) as client:
        futures = [(await client.send_timeseries(records(1)[0] | {"ts": ts}, wait_for_publish=False))[0] for ts in range(1, 601)]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
        assert {result.reason_code for result in results} == {0}
        assert [limit["limit"] for limit in client.health()["limits"]["learned"]]
        assert client.statistics.connections <= 10
    assert sum(received) <= 3 * 6000


@pytest.mark.parametrize("version", [5, 4])
async def test_a_limit_is_learned_with_qos_0(emulator, config, version):
    """With QoS 0 nothing is acknowledged or resent, so each message over the limit is lost."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="600:1"))
    async with DeviceClient(config("TOKEN", **QUICK, qos=0, mqtt_version=version)) as client:
        async with asyncio.timeout(SOME_TIME):
            while len(emulator.device("device").telemetry) < 1000:
                await client.send_timeseries(records(100), wait_for_publish=False)
                await asyncio.sleep(0.5)
        assert client.health()["limits"]["learned"]


async def test_a_single_close_without_a_reason_does_not_lead_to_a_limit(emulator, config):
    """A server that stops also closes without a reason."""
    async with DeviceClient(config("TOKEN", **QUICK, mqtt_version=4)) as client:
        closes = iter([Verdict.close()])
        emulator.on_publish = lambda _: next(closes, None)
        futures = [(await client.send_timeseries(records(1)[0] | {"ts": ts}, wait_for_publish=False))[0] for ts in range(1, 50)]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
        assert {result.reason_code for result in results} == {0}
        assert client.health()["limits"]["learned"] == []
        assert client.statistics.backpressure_pauses == 0


@pytest.mark.parametrize("emulator", ["4.2", "4.2.1"], indirect=True)
async def test_a_gateway_learns_from_the_refusals_of_each_version(config, emulator):
    """Servers before 4.2.1 send a notice about the sub-device and close; newer ones acknowledge with 0x97."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="600:1"))
    async with GatewayClient(config("GATEWAY", **QUICK, combine_devices=False)) as client:
        session, _ = await client.connect_device("device", wait_for_publish=True)
        futures = [await client.send_device_timeseries(session, record, wait_for_publish=False) for record in records(90)]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
        assert {result.reason_code for result in results} == {0}
        assert client.health()["limits"]["learned"]
        assert engine_of(client).message_service.suspects.is_empty()


async def test_messages_do_not_get_smaller_for_a_limit_of_messages_per_second(emulator, config):
    """Smaller messages would carry less data and be refused as often."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_messages="3:1"))
    async with DeviceClient(config("TOKEN", **QUICK)) as client:
        data = [{"ts": 1_700_000_000_000 + number, "values": {"k": "x" * 200}} for number in range(2000)]
        futures = [await client.send_timeseries(one, wait_for_publish=False) for one in data]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*(future for [future] in futures))
        assert {result.reason_code for result in results} == {0}
        assert [limit["limit"] for limit in client.health()["limits"]["learned"]] == ["device telemetry messages"]


async def test_announcements_keep_to_a_learned_limit(emulator, config):
    """The fifth new session within two seconds ends the connection, and each connection announces all devices again."""
    emulator.limits = SessionLimits(sub_sessions="4:2")
    async with GatewayClient(config("GATEWAY", **QUICK)) as client:
        sessions = [(await client.connect_device(f"device {number}"))[0] for number in range(8)]
        futures = [await client.send_device_timeseries(session, {"a": 1}, wait_for_publish=False) for session in sessions]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
        assert {result.reason_code for result in results} == {0}
        assert client.statistics.connections <= 6


async def test_limits_of_the_user_apply_to_all_messages(emulator, config):
    """No message is larger than the limit, and the client waits before the server could refuse one."""
    publishes = []
    emulator.on_publish = publishes.append
    own = {"telemetry_datapoints": "10:1", "telemetry_messages": "100:1"}
    async with GatewayClient(config("GATEWAY", rate_limits=own)) as client:
        session, _ = await client.connect_device("device", wait_for_publish=True)
        async with asyncio.timeout(SOME_TIME):
            await client.send_device_timeseries(session, {f"k{key}": key for key in range(8)})
            await client.send_timeseries({f"k{key}": key for key in range(8)})
        assert client.statistics.seconds_limited > 0
    counts = [publish.payload.count(b'"k') for publish in publishes if publish.topic.endswith("telemetry")]
    assert sum(counts) == 16
    assert max(counts) <= 10
