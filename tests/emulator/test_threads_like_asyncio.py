"""Sends of threads take a shorter way to the queues than those of asyncio: both deliver the same data, results and errors."""

import asyncio
import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from device_peer import FAST

import tb_device_mqtt
from tb_mqtt_client import TimeseriesEntry, sync

AT = 1_700_000_000_000
DATA = {
    "one value": {"ts": AT, "values": {"a": 1}},
    "values of each type": {"ts": AT, "values": {"i": -5, "f": 1.25, "b": True, "s": 'tex"t ü', "j": {"x": [1, {"y": None}]}}},
    "floats are rounded": {"ts": AT, "values": {"a": 0.1 + 0.2, "b": 1e300, "c": -0.0}},
    "several records": [{"ts": AT + index, "values": {"a": index, "b": index / 4}} for index in range(50)],
    "a time that is a float": {"ts": float(AT), "values": {"a": 1}},
    "a time with a zone": {"ts": datetime(2024, 1, 1, tzinfo=UTC), "values": {"a": 1}},
    "entries": [TimeseriesEntry("a", 1, AT), TimeseriesEntry("b", "x", AT + 1)],
    "decimals": {"ts": AT, "values": {"a": Decimal("1.5")}},
    "a key that looks like a record": {"ts": AT, "values": {"ts": 1, "values": 2}},
}
BAD = {
    "no data": {},
    "no values": {"ts": AT, "values": {}},
    "NaN": {"ts": AT, "values": {"a": math.nan}},
    "a blank key": {"ts": AT, "values": {" ": 1}},
    "an object": {"ts": AT, "values": {"a": object()}},
    "a time that is text": {"ts": "yesterday", "values": {"a": 1}},
    "text": "a=1",
}


@pytest.fixture
async def threads(emulator):
    """Return a synchronous client of another device."""
    emulator.add_device("THREADS", "by threads")
    client = sync.DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "THREADS"})
    await asyncio.to_thread(client.connect)
    yield client
    await asyncio.to_thread(client.stop, 0)


def told(result):
    return (result.reason_code, result.datapoints_count, result.topic, result.payload_size, result.certainty)


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
async def test_the_same_data_arrives_with_the_same_result(emulator, device, threads, data):
    awaited = await device.send_timeseries(data)
    waited = await asyncio.to_thread(threads.send_timeseries, data)
    later = await asyncio.to_thread(lambda: threads.send_timeseries(data, wait=False).result(30))
    assert told(awaited) == told(waited) == told(later)
    arrived = emulator.device("TOKEN").stored_telemetry
    assert arrived
    assert emulator.device("THREADS").stored_telemetry == [*arrived, *arrived]
    assert threads.statistics.acknowledged == 2 * device.statistics.acknowledged


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
async def test_the_same_errors_are_raised(emulator, device, threads, data):
    with pytest.raises((ValueError, TypeError)) as awaited:
        await device.send_timeseries(data)
    with pytest.raises((ValueError, TypeError)) as waited:
        await asyncio.to_thread(threads.send_timeseries, data)
    assert (type(waited.value), str(waited.value)) == (type(awaited.value), str(awaited.value))
    assert threads.statistics.accepted == device.statistics.accepted == 0


@pytest.mark.parametrize("data", [*(data for data in DATA.values() if isinstance(data, dict)), DATA["several records"]])
async def test_records_of_sdk_1_arrive_as_those_of_asyncio(emulator, device, data):
    emulator.add_device("ONE", "by SDK 1.x")
    client = tb_device_mqtt.TBDeviceMqttClient(emulator.host, emulator.port, "ONE")
    await asyncio.to_thread(client.connect)
    try:
        result = await device.send_timeseries(data)
        info = await asyncio.to_thread(client.send_telemetry, data)
        assert await asyncio.to_thread(info.get) == result.reason_code == 0
        assert (info.rc(), info.is_settled()) == (0, True)
        assert len(info.mid()) == 1
        assert emulator.device("ONE").stored_telemetry == emulator.device("TOKEN").stored_telemetry
    finally:
        await asyncio.to_thread(client.disconnect)


async def test_many_devices_in_one_call(emulator, gateway):
    emulator.add_gateway("THREADS", "gateway of threads")
    options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "THREADS"}
    threads = sync.GatewayClient(options | {"announce_unknown_devices": True})
    await asyncio.to_thread(threads.connect)
    try:
        meters = [(await gateway.connect_device(f"meter {number}", "meter"))[0] for number in range(3)]
        data = {number: [{"ts": AT + ts, "values": {"a": ts, "b": number}} for ts in range(number + 1)] for number in range(3)}
        awaited = await gateway.send_timeseries_of_devices({meters[number]: one for number, one in data.items()})
        names = {f"of threads {number}": one for number, one in data.items()}
        waited = await asyncio.to_thread(threads.send_timeseries_of_devices, names)
        assert list(waited) == list(names)
        # The payloads differ in size, as the names do.
        assert [told(one)[:3] for one in waited.values()] == [told(one)[:3] for one in awaited.values()]
        session = threads.session_of("of threads 1")
        later = await asyncio.to_thread(
            threads.send_timeseries_of_devices, {session: {"c": 1}, "of threads 2": {"c": 2}}, wait=False
        )
        results = {device: await asyncio.to_thread(delivery.result, 30) for device, delivery in later.items()}
        assert {device: result.reason_code for device, result in results.items()} == {session: 0, "of threads 2": 0}
        for number in range(3):
            arrived = emulator.device(f"of threads {number}").stored_telemetry
            assert [point for point in arrived if point.key != "c"] == emulator.device(f"meter {number}").stored_telemetry
    finally:
        await asyncio.to_thread(threads.stop, 0)


async def test_many_devices_are_all_refused_with_a_wrong_one(emulator, gateway):
    emulator.add_gateway("THREADS", "gateway of threads")
    options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "THREADS"}
    threads = sync.GatewayClient(options | {"announce_unknown_devices": True})
    await asyncio.to_thread(threads.connect)
    try:
        for wrong in ({}, [], {"A": {"a": 1}, "B": {" ": 1}}, {"A": {"a": 1}, 5: {"a": 1}}):
            with pytest.raises((ValueError, TypeError)):
                await asyncio.to_thread(threads.send_timeseries_of_devices, wrong)
        assert threads.statistics.accepted == 0
    finally:
        await asyncio.to_thread(threads.stop, 0)
