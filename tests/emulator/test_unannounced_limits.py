"""Limits that the platform enforces and does not announce, and limits of the user, over real sockets."""

import asyncio

import pytest

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import RateLimits, SessionLimits

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


async def test_a_device_s_message_larger_than_the_tenant_s_limit_is_cut_until_it_passes(emulator, config):
    emulator.limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="300:1"))
    async with DeviceClient(config("TOKEN", **QUICK)) as client:
        async with asyncio.timeout(SOME_TIME):
            result = await client.send_timeseries(records(60))
        assert (result.reason_code, result.datapoints_count) == (0, 600)


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
