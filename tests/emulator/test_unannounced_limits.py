"""Limits that the platform enforces and does not announce, and limits of the user, over real sockets."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}
SOME_TIME = 30.0
"""Seconds that nothing here needs; a guard against hanging."""
QUICK = {"backpressure_delay": 1.0}
"""A pause in which the limits of these tests, all per second, recover."""


@pytest.fixture
def config(emulator):
    def make(token, **options):
        return FAST | {"host": emulator.host, "port": emulator.port, "access_token": token} | options

    return make


def records(count, keys=10):
    return [{"ts": 1_700_000_000_000 + number, "values": {f"k{key}": key for key in range(keys)}} for number in range(count)]


@pytest.mark.parametrize("combine", [True, False])
async def test_a_gateway_s_message_larger_than_the_tenant_s_limit_is_cut_until_it_passes(emulator, config, combine):
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


@pytest.mark.parametrize("version", [5, 4])
async def test_a_device_s_message_larger_than_the_tenant_s_limit_is_cut_until_it_passes(emulator, config, version):
    """With MQTT 3.1.1 the connection just closes, as for a message that the platform cannot read."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="300:1"))
    async with DeviceClient(config("TOKEN", **QUICK, mqtt_version=version)) as client:
        async with asyncio.timeout(SOME_TIME):
            result = await client.send_timeseries(records(60))
        assert (result.reason_code, result.datapoints_count) == (0, 600)


async def test_closes_without_a_reason_make_the_client_publish_slower(emulator, config):
    """MQTT 3.1.1 has no reason codes. A client that goes on as before loses one connection after the other."""
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
async def test_a_limit_is_learned_at_qos_0_too(emulator, config, version):
    """Nothing is acknowledged there, and nothing sent again: a message over the limit is lost each time."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="600:1"))
    async with DeviceClient(config("TOKEN", **QUICK, qos=0, mqtt_version=version)) as client:
        async with asyncio.timeout(SOME_TIME):
            while len(emulator.device("device").telemetry) < 1000:
                await client.send_timeseries(records(100), wait_for_publish=False)
                await asyncio.sleep(0.5)
        assert client.health()["limits"]["learned"]


async def test_one_close_without_a_reason_limits_nothing(emulator, config):
    """A server that stops just closes, too."""
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
async def test_a_gateway_learns_from_each_version_s_way_to_refuse(config, emulator):
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


async def test_messages_do_not_get_smaller_for_a_limit_of_messages(emulator, config):
    """Smaller ones carried less and less, and were refused all the same: three datapoints a second in the end."""
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_messages="3:1"))
    async with DeviceClient(config("TOKEN", **QUICK)) as client:
        data = [{"ts": 1_700_000_000_000 + number, "values": {"k": "x" * 200}} for number in range(2000)]
        futures = [await client.send_timeseries(one, wait_for_publish=False) for one in data]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*(future for [future] in futures))
        assert {result.reason_code for result in results} == {0}
        assert [limit["limit"] for limit in client.health()["limits"]["learned"]] == ["device telemetry messages"]


async def test_new_sub_device_sessions_are_paced_by_what_was_learned(emulator, config):
    """The fifth new session in two seconds costs the connection, and each connection announces all devices again."""
    emulator.limits = SessionLimits(sub_sessions="4:2")
    async with GatewayClient(config("GATEWAY", **QUICK)) as client:
        sessions = [(await client.connect_device(f"device {number}"))[0] for number in range(8)]
        futures = [await client.send_device_timeseries(session, {"a": 1}, wait_for_publish=False) for session in sessions]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
        assert {result.reason_code for result in results} == {0}
        assert client.statistics.connections <= 6


async def test_limits_of_the_user_hold_for_all_that_is_published(emulator, config):
    """No message is larger than the limit, and the limit makes the client wait, not the server refuse."""
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
