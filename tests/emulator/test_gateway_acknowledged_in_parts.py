"""Servers before 4.2.1 send one PUBACK for each device of a message (docs/platform_contract.md, fact 10)."""

import asyncio

import pytest

from tb_mqtt_client import GatewayClient
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "backpressure_delay": 0.02}
COUNT = 5


async def send_to_all(client, sessions, ts):
    """Send data of all devices at the same time. Return the results."""
    data = {"ts": ts, "values": {"a": ts}}
    futures = [await client.send_device_timeseries(session, data, wait_for_publish=False) for session in sessions]
    return await asyncio.gather(*futures)


@pytest.mark.parametrize(("version", "combined_again"), [("4.2", False), ("4.2.1", True)])
async def test_data_of_devices_is_not_combined_after_separate_acknowledgements(version, combined_again, caplog):
    async with Emulator(version=version) as emulator:
        emulator.add_gateway("GATEWAY", "gateway")
        devices = []
        options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY"}
        async with GatewayClient(options) as client:
            sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(COUNT)]
            emulator.on_publish = lambda publish: devices.append(len(publish.json())) if "telemetry" in publish.topic else None
            assert {result.reason_code for result in await send_to_all(client, sessions, 1)} == {0}
            assert max(devices) > 1
            # Wait for the PUBACKs of the other devices.
            await asyncio.sleep(0.05)
            devices.clear()
            await send_to_all(client, sessions, 2)
            assert (max(devices) > 1) is combined_again
            await emulator.disconnect_device("gateway")
            await send_to_all(client, sessions, 3)
            devices.clear()
            await send_to_all(client, sessions, 4)
            assert (max(devices) > 1) is combined_again
    warnings = [record for record in caplog.records if "acknowledges each device" in record.getMessage()]
    assert len(warnings) == (0 if combined_again else 1)


async def test_refused_data_of_such_a_server_does_not_count_as_acknowledged():
    """If a message with several devices exceeds a limit, the server acknowledges the first device and refuses the others."""
    limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="200:1"))
    async with Emulator(version="4.2") as emulator:
        emulator.add_gateway("GATEWAY", "gateway")
        options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY", "backpressure_delay": 1.0}
        async with GatewayClient(options) as client:
            sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(COUNT)]
            await send_to_all(client, sessions, 1)
            await asyncio.sleep(0.05)
            emulator.limits = limits
            async with asyncio.timeout(30):
                for ts in range(2, 102):
                    await send_to_all(client, sessions, ts)
            acknowledged = client.statistics.acknowledged
    stored = sum(len({point.ts for point in emulator.device(f"device {number}").telemetry}) for number in range(COUNT))
    assert acknowledged == stored == COUNT * 101
