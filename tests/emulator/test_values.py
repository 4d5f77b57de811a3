"""Clients round floats that the platform would store as text, and count the values."""

import pytest

from tb_mqtt_client import AttributeEntry, DeviceClient, GatewayClient, TimeseriesEntry
from tb_mqtt_client.emulator import Verdict

LONG_FLOAT = 0.1 + 0.2
TINY = 1.5e-20
VALUES = {"sum": LONG_FLOAT, "tiny": TINY, "nested": [LONG_FLOAT], "plain": 21.5}
SENT = VALUES | {"sum": 0.3}


def config(emulator, token="TOKEN", **options):
    return {"host": emulator.host, "port": emulator.port, "access_token": token} | options


def counts(client):
    return client.statistics.values_rounded, client.statistics.values_stored_as_text


def stored(device):
    return {point.key: point.value for point in device.telemetry}


@pytest.mark.parametrize(("round_floats", "sent", "counted"), [(True, SENT, (1, 1)), (False, VALUES, (0, 2))])
async def test_floats_of_a_device_are_rounded_and_counted(emulator, round_floats, sent, counted):
    client = DeviceClient(config(emulator, round_floats=round_floats))
    await client.connect()
    await client.send_timeseries(VALUES)
    assert stored(emulator.device("device")) == sent
    assert counts(client) == counted
    await client.send_attributes(VALUES)
    assert emulator.device("device").attributes == sent
    assert counts(client) == tuple(2 * count for count in counted)
    await client.stop()


@pytest.mark.parametrize(("round_floats", "sent", "counted"), [(True, SENT, (2, 2)), (False, VALUES, (0, 4))])
async def test_floats_of_a_sub_device_are_rounded_and_counted(emulator, round_floats, sent, counted):
    client = GatewayClient(config(emulator, "GATEWAY", round_floats=round_floats))
    await client.connect()
    meter, _ = await client.connect_device("meter")
    await client.send_device_timeseries(meter, VALUES)
    await client.send_device_attributes(meter, VALUES)
    await client.stop()
    assert stored(emulator.device("meter")) == emulator.device("meter").attributes == sent
    assert counts(client) == counted


async def test_an_entry_is_not_changed_by_the_setting_of_a_client(emulator):
    """One entry is sent by clients with both settings, and keeps its value and size."""
    entries = [TimeseriesEntry("sum", LONG_FLOAT, 1), TimeseriesEntry("tiny", TINY, 1)]
    attribute = AttributeEntry("sum", LONG_FLOAT)
    sizes = [entry.size for entry in entries]
    received = []
    for round_floats in (True, False):
        client = DeviceClient(config(emulator, round_floats=round_floats))
        await client.connect()
        await client.send_timeseries(entries)
        await client.send_attributes(attribute)
        await client.stop()
        received.append((stored(emulator.device("device")), emulator.device("device").attributes["sum"], counts(client)))
    assert received == [
        ({"sum": 0.3, "tiny": TINY}, 0.3, (2, 1)),
        ({"sum": LONG_FLOAT, "tiny": TINY}, LONG_FLOAT, (0, 3)),
    ]
    assert [entry.value for entry in entries] == [LONG_FLOAT, TINY]
    assert [entry.size for entry in entries] == sizes


async def test_resent_values_are_counted_once(emulator):
    verdicts = iter([Verdict.refuse(0x97), None])
    emulator.on_publish = lambda publish: next(verdicts) if publish.topic.endswith("/telemetry") else None
    client = DeviceClient(config(emulator, backpressure_delay=0.01))
    await client.connect()
    assert (await client.send_timeseries({"sum": LONG_FLOAT})).is_successful()
    assert client.statistics.messages_returned == 1
    assert counts(client) == (1, 0)
    await client.stop()
