"""Slow links. Rates are twenty times those of links in the field, and times are shorter by the same factor."""

import asyncio
import logging
import sys

import pytest

from engine_parts import engine_of
from faulty_link import FaultyLink
from tb_mqtt_client import DeviceClient

RATE = 40_000
"""2 kB/s in the field."""
ACK_TIMEOUT = 1.5
"""30 s in the field."""


def make(link, **options):
    fast = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "limits_timeout": 2.0}
    return DeviceClient(
        fast | {"host": link.host, "port": link.port, "access_token": "TOKEN", "ack_timeout": ACK_TIMEOUT} | options
    )


@pytest.mark.parametrize("hidden_buffers", [False, True])
async def test_everything_arrives_once_over_a_slow_link(emulator, hidden_buffers, caplog):
    """A connection whose bytes are still being sent must not be ended because of a missing PUBACK."""
    sizes = []
    emulator.on_publish = lambda publish: sizes.append(publish.remaining_length) if publish.topic.endswith("/telemetry") else None
    async with asyncio.timeout(30), FaultyLink(emulator.host, emulator.port, rate=RATE, hidden_buffers=hidden_buffers) as link:
        client = make(link)
        await client.connect()
        with caplog.at_level(logging.INFO):
            futures = []
            for ts in range(1, 76):
                futures += await client.send_timeseries({"ts": ts, "values": {"text": "x" * 1000}}, wait_for_publish=False)
            results = await asyncio.gather(*futures)
        assert {result.reason_code for result in results} == {0}
        # A busy machine forwards bytes later than the rate, not earlier.
        assert engine_of(client).mqtt_manager.bytes_per_second <= 1.5 * RATE
        await client.stop()
    assert client.statistics.connections == 1
    assert link.bytes_up <= 1.2 * 75_000
    # A message may have half of the in-flight window, which takes a few seconds in the field.
    assert max(sizes[2:]) <= RATE * ACK_TIMEOUT / 4
    assert sum("bytes per second" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the unacknowledged bytes of a socket")
async def test_a_large_message_is_not_overdue_while_its_bytes_are_sent(emulator):
    """Sending the bytes of the message takes twice the time for a PUBACK."""
    async with asyncio.timeout(30), FaultyLink(emulator.host, emulator.port, rate=RATE) as link:
        client = make(link, ack_timeout=0.4)
        await client.connect()
        assert (await client.send_timeseries({"text": "x" * 60_000})).is_successful()
        await client.stop()
    assert client.statistics.connections == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the unacknowledged bytes of a socket")
async def test_a_pingreq_behind_unsent_bytes_does_not_end_the_connection(emulator):
    """With QoS 0, the server sends nothing in this time."""
    async with asyncio.timeout(30), FaultyLink(emulator.host, emulator.port, rate=RATE) as link:
        client = make(link, qos=0, keepalive=1)
        await client.connect()
        for ts in range(1, 101):
            await client.send_timeseries({"ts": ts, "values": {"text": "x" * 1000}}, wait_for_publish=False)
        while len(emulator.device("device").telemetry) < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await client.stop()
    assert client.statistics.connections == 1


@pytest.mark.parametrize("by_server", [False, True])
async def test_messages_with_qos_0_are_full_from_the_beginning(emulator, by_server):
    """Without acknowledgements, the rate cannot be measured. The user or the server chooses QoS 0."""
    sizes = []
    emulator.on_publish = lambda publish: sizes.append(publish.remaining_length) if publish.topic.endswith("/telemetry") else None
    connack = b"\x20\x05\x00\x00\x02\x24\x00" if by_server else None
    async with asyncio.timeout(30), FaultyLink(emulator.host, emulator.port, connack=connack) as link:
        client = make(link, qos=1 if by_server else 0)
        await client.connect()
        futures = []
        for ts in range(1, 501):
            futures += await client.send_timeseries({"ts": ts, "values": {"text": "x" * 1000}}, wait_for_publish=False)
        await asyncio.gather(*futures)
        await client.stop()
    assert len(sizes) < 12


async def test_a_fast_link_gets_full_messages(emulator):
    sizes = []
    emulator.on_publish = lambda publish: sizes.append(publish.remaining_length) if publish.topic.endswith("/telemetry") else None
    async with asyncio.timeout(30), FaultyLink(emulator.host, emulator.port) as link:
        client = make(link)
        await client.connect()
        for _ in range(4):
            futures = []
            for ts in range(1, 501):
                futures += await client.send_timeseries({"ts": ts, "values": {"text": "x" * 1000}}, wait_for_publish=False)
            await asyncio.gather(*futures)
        await client.stop()
    # The first acknowledgements open the window; after them, messages are as large as the server allows.
    assert sum(size > 60_000 for size in sizes) > 20
    assert len(sizes) < 45
