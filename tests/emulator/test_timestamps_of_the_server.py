"""With ``timestamps="server"``, telemetry without ``ts`` is sent without one, and no two values of a key share a message."""

import asyncio

import pytest
from device_peer import FAST, make_client

from tb_mqtt_client import GatewayClient, TelemetryMetadata, TimeseriesEntry
from tb_mqtt_client.common.timing import now_ms

TS = 1_700_000_000_000


@pytest.fixture
async def unstamped(emulator):
    """Connect a device client that leaves timestamps to the server, and record its telemetry messages."""
    emulator.received = received = []
    emulator.on_publish = lambda publish: received.append(publish) if publish.topic.endswith("/telemetry") else None
    client = make_client(emulator, timestamps="server")
    await client.connect()
    yield client
    await client.stop()


@pytest.fixture
async def unstamped_gateway(emulator):
    """Connect a gateway that leaves timestamps to the server, and record its telemetry messages."""
    emulator.received = received = []
    emulator.on_publish = lambda publish: received.append(publish) if publish.topic.endswith("/telemetry") else None
    options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY", "timestamps": "server"}
    client = GatewayClient(options)
    await client.connect()
    yield client
    await client.stop()


def documents(emulator):
    return [publish.json() for publish in emulator.received]


FORMS = {
    "dict": {"a": 1},
    "without a ts": {"ts": None, "values": {"a": 1}},
    "entry": TimeseriesEntry("a", 1),
    "list": [{"a": 1}],
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
async def test_telemetry_without_ts_is_sent_without_a_timestamp(unstamped, emulator, data):
    before = now_ms()
    assert (await unstamped.send_timeseries(data)).is_successful()
    assert documents(emulator) == [[{"a": 1}]]
    [point] = emulator.device("device").telemetry
    assert (point.key, point.value) == ("a", 1)
    assert before <= point.ts <= now_ms()


async def test_a_ts_of_its_own_is_kept(unstamped, emulator):
    await unstamped.send_timeseries([{"ts": TS, "values": {"a": 1}}, TimeseriesEntry("a", 2, TS + 1), {"b": 3}])
    assert documents(emulator) == [[{"ts": TS, "values": {"a": 1}}, {"ts": TS + 1, "values": {"a": 2}}, {"b": 3}]]


async def test_values_of_one_key_are_sent_in_messages_of_their_own_and_in_order(unstamped, emulator):
    deliveries = []
    for number in range(50):
        deliveries += await unstamped.send_timeseries({"a": number}, wait_for_publish=False)
    deliveries += await unstamped.send_timeseries([{"a": 50}, {"b": 0}, {"a": 51}], wait_for_publish=False)
    results = await asyncio.gather(*deliveries)
    assert all(result.is_successful() for result in results)
    assert documents(emulator) == [*([{"a": number}] for number in range(50)), [{"a": 50, "b": 0}], [{"a": 51}]]
    statistics = unstamped.statistics
    assert (statistics.acknowledged, statistics.superseded) == (53, 0)


async def test_a_backlog_of_one_key_is_complete(emulator, unstamped):
    """More sends than are packed at a time, each with a message of its own."""
    await unstamped.disconnect()
    for number in range(2500):
        await unstamped.send_timeseries({"a": number}, wait_for_publish=False)
    await unstamped.connect()
    await unstamped.send_timeseries({"a": 2500})
    assert [record["a"] for [record] in documents(emulator)] == list(range(2501))


async def test_sub_devices_share_messages(unstamped_gateway, emulator):
    sessions = [(await unstamped_gateway.connect_device(f"d{number}", wait_for_publish=True))[0] for number in range(3)]
    sends = [
        unstamped_gateway.send_device_timeseries(session, {"a": round_number}, wait_for_publish=False)
        for round_number in range(3)
        for session in sessions
    ]
    results = await asyncio.gather(*[await send for send in sends])
    assert all(result.is_successful() for result in results)
    assert documents(emulator) == [{f"d{number}": [{"a": round_number}] for number in range(3)} for round_number in range(3)]


async def test_metadata_without_a_timestamp(unstamped_gateway, emulator):
    session, _ = await unstamped_gateway.connect_device("d", wait_for_publish=True)
    metadata = TelemetryMetadata("modbus", 5)
    assert (await unstamped_gateway.send_device_timeseries(session, {"a": 1}, metadata=metadata)).is_successful()
    [document] = documents(emulator)
    [record] = document["d"]
    assert record == {
        "a": 1,
        "metadata": {"connector": "modbus", "receivedTs": 5, "publishedTs": record["metadata"]["publishedTs"]},
    }
    assert [(point.key, point.value) for point in emulator.device("d").telemetry] == [("a", 1)]


@pytest.mark.parametrize("key", ["ts", "values"])
async def test_a_key_that_needs_a_timestamp_is_refused_at_the_call(unstamped, emulator, key):
    with pytest.raises(ValueError, match=rf"^Invalid key '{key}': telemetry with this key must have a ts"):
        await unstamped.send_timeseries([{"a": 1}, TimeseriesEntry(key, 1)])
    assert unstamped.statistics.accepted == 0
    await unstamped.send_timeseries(TimeseriesEntry(key, 1, TS))
    await unstamped.send_timeseries({"metadata": 2})
    assert [(point.key, point.value) for point in emulator.device("device").telemetry] == [(key, 1), ("metadata", 2)]


async def test_metadata_as_a_key_of_a_sub_device_needs_a_timestamp(unstamped_gateway, emulator):
    session, _ = await unstamped_gateway.connect_device("d", wait_for_publish=True)
    with pytest.raises(ValueError, match=r"^Invalid key 'metadata'"):
        await unstamped_gateway.send_device_timeseries(session, {"metadata": 1})
    result = await unstamped_gateway.send_device_timeseries(session, {"ts": TS, "values": {"metadata": 1}})
    assert result.is_successful()
    assert [(point.key, point.value) for point in emulator.device("d").telemetry] == [("metadata", 1)]


async def test_a_message_that_is_refused_for_its_size_is_split_without_timestamps(unstamped, emulator):
    values = {f"k{number}": "x" * 5000 for number in range(30)}
    assert (await unstamped.send_timeseries(values)).is_successful()
    assert len(emulator.received) > 1
    assert {key: value for [record] in documents(emulator) for key, value in record.items()} == values
