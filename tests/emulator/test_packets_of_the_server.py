"""Surplus, malformed and large packets of the server."""

import asyncio
import logging

import pytest

from engine_parts import engine_of, take_ids_until
from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Verdict

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "limits_timeout": 2.0}
ATTRIBUTES = "v1/devices/me/attributes"


def make(emulator, **options):
    return DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"} | options)


@pytest.mark.parametrize("kind", [0x50, 0x62, 0x70, 0x90, 0xB0])
async def test_a_surplus_acknowledgement_does_not_free_the_id_of_a_publish(emulator, kind):
    """Otherwise another publish could get the id, and one PUBACK would count for both."""
    publishes = []
    emulator.on_publish = lambda publish: (
        publishes.append(publish) or Verdict.ignore(store=True) if publish.topic.endswith("/telemetry") else None
    )
    client = make(emulator)
    await client.connect()
    [first] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    while not publishes:  # noqa: ASYNC110
        await asyncio.sleep(0)
    session = emulator.device("device").session
    packet_id = publishes[0].packet_id
    session.write(bytes([kind, 4]) + packet_id.to_bytes(2, "big") + b"\x00\x00")
    await client.send_attributes({"a": 1})
    take_ids_until(engine_of(client).mqtt_manager.patches.packet_ids, packet_id - 1)
    [second] = await client.send_timeseries({"a": 2}, wait_for_publish=False)
    while len(publishes) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert publishes[1].packet_id != packet_id
    session.write(b"\x40\x02" + packet_id.to_bytes(2, "big"))
    assert (await first).is_successful()
    assert not second.done()
    session.write(b"\x40\x02" + publishes[1].packet_id.to_bytes(2, "big"))
    assert (await second).is_successful()
    await client.stop()
    assert (client.statistics.connections, client.statistics.acknowledged) == (1, 3)


async def test_a_thousand_malformed_packets_end_one_connection_and_leave_one_log_line(emulator, caplog):
    client = make(emulator)
    await client.connect()
    with caplog.at_level(logging.INFO):
        emulator.device("device").session.write(b"\x30\x02\x00\x09" * 1000)
        end = await engine_of(client).mqtt_manager.wait_lost()
        assert (await client.send_timeseries({"a": 1})).is_successful()
    assert "a PUBLISH ends too early" in end.cause
    assert client.statistics.reconnects == 1
    logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["a PUBLISH ends too early" in record.getMessage() for record in logged] == [True]
    assert not any(record.exc_info for record in caplog.records)
    await client.stop()


async def test_a_large_message_is_received_in_small_pieces(emulator):
    """The message has a megabyte, and its pieces have a kilobyte."""
    client = make(emulator)
    updates = asyncio.Queue()
    client.set_attribute_update_callback(updates.put_nowait)
    await client.connect()
    session = emulator.device("device").session
    whole = bytearray()
    session.write, real = whole.extend, session.write
    session.send(ATTRIBUTES, b'{"a":"' + b"x" * 2**20 + b'"}')
    del session.write
    for at in range(0, len(whole), 1024):
        real(bytes(whole[at : at + 1024]))
        if at % 65_536 == 0:
            await asyncio.sleep(0)
    assert len((await updates.get()).get("a")) == 2**20
    await client.stop()
