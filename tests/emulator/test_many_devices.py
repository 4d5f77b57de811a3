"""Timeseries of many sub-devices in one call: a result for each of them, and nothing is sent if the call raises."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import DeviceNotConnectedError, NoDeviceSessionError, QueueFullError, UnsupportedValueError
from tb_mqtt_client.emulator import Verdict


async def sessions(gateway, count):
    return [(await gateway.connect_device(f"meter {number}", "meter"))[0] for number in range(count)]


def telemetry(emulator, name):
    return [(point.key, point.value) for point in emulator.device(name).telemetry]


async def test_each_device_gets_its_data_and_has_its_result(emulator, gateway):
    meters = await sessions(gateway, 20)
    data = {meter: {"number": number, "voltage": 230} for number, meter in enumerate(meters)}
    data[meters[3]] = [{"ts": ts, "values": {"energy": ts}} for ts in range(5)]
    results = await gateway.send_timeseries_of_devices(data)
    assert list(results) == meters
    assert {result.reason_code for result in results.values()} == {0}
    assert [result.datapoints_count for result in results.values()] == [2] * 3 + [5] + [2] * 16
    assert telemetry(emulator, "meter 7") == [("number", 7), ("voltage", 230)]
    assert telemetry(emulator, "meter 3") == [("energy", ts) for ts in range(5)]
    assert gateway.statistics.acknowledged == 19 * 2 + 5


async def test_without_waiting_there_is_a_future_for_each_device(gateway):
    meters = await sessions(gateway, 3)
    futures = await gateway.send_timeseries_of_devices({meter: {"a": 1} for meter in meters}, wait_for_publish=False)
    assert list(futures) == meters
    assert all([(await future).is_successful() for future in futures.values()])


async def test_names_are_accepted_with_the_option(emulator, start_gateway):
    gateway = await start_gateway(announce_unknown_devices=True)
    results = await gateway.send_timeseries_of_devices({"A": {"a": 1}, "B": {"b": 1}})
    assert {name: result.reason_code for name, result in results.items()} == {"A": 0, "B": 0}
    assert telemetry(emulator, "B") == [("b", 1)]


async def test_results_of_refused_devices_differ_from_those_of_others(emulator, start_gateway):
    gateway = await start_gateway()
    meters = await sessions(gateway, 3)
    emulator.on_publish = lambda publish: Verdict.refuse(0x87) if b'"meter 1"' in publish.payload else None
    results = await gateway.send_timeseries_of_devices({meter: {"a": 1} for meter in meters})
    assert [result.reason_code for result in results.values()] == [0, 0x87, 0]


async def test_after_the_time_limit_the_results_are_pending(emulator, start_gateway, monkeypatch):
    gateway = await start_gateway()
    meters = await sessions(gateway, 3)
    await asyncio.sleep(0.05)
    monkeypatch.setattr(gateway, "OPERATIONAL_TIMEOUT", 0.05)
    emulator.on_publish = lambda publish: Verdict.delay(1) if publish.topic.endswith("telemetry") else None
    results = await gateway.send_timeseries_of_devices({meter: {"a": 1} for meter in meters})
    assert {(result.reason_code, result.certainty) for result in results.values()} == {(-1, "pending")}


async def test_invalid_data_of_one_device_is_named_and_nothing_is_sent(gateway):
    meters = await sessions(gateway, 3)
    with pytest.raises(UnsupportedValueError) as raised:
        await gateway.send_timeseries_of_devices({meters[0]: {"a": 1}, meters[1]: {"a": object()}, meters[2]: {"a": 1}})
    assert raised.value.__notes__ == ['In the data of device "meter 1".']
    for wrong in ({}, [meters[0]], None):
        with pytest.raises(ValueError, match="data must be a dict of at least one device"):
            await gateway.send_timeseries_of_devices(wrong)
    with pytest.raises(NoDeviceSessionError):
        await gateway.send_timeseries_of_devices({meters[0]: {"a": 1}, "meter 1": {"a": 1}})
    await gateway.disconnect_device(meters[1])
    with pytest.raises(DeviceNotConnectedError, match="meter 1"):
        await gateway.send_timeseries_of_devices({meters[0]: {"a": 1}, meters[1]: {"a": 1}})
    assert gateway.statistics.accepted == 0


@pytest.mark.parametrize("policy", ["wait", "raise", "drop_oldest", "drop_newest"])
async def test_a_full_queue_follows_the_policy(emulator, start_gateway, policy):
    gateway = await start_gateway(queue_policy=policy, max_queued_messages=10)
    meters = await sessions(gateway, 6)
    await asyncio.sleep(0.05)
    await emulator.stop()
    first = await gateway.send_timeseries_of_devices({meter: {"a": 1} for meter in meters}, wait_for_publish=False)
    sending = asyncio.ensure_future(
        gateway.send_timeseries_of_devices({meter: {"b": 1} for meter in meters}, wait_for_publish=False)
    )
    if policy == "raise":
        with pytest.raises(QueueFullError):
            await sending
        assert gateway.statistics.accepted == 6
    await asyncio.sleep(0.01)
    assert sending.done() is (policy != "wait")
    await emulator.start()
    second = {} if policy == "raise" else await sending
    codes = [(await future).reason_code for future in [*first.values(), *second.values()]]
    assert codes.count(-2) == (2 if policy.startswith("drop") else 0)
    assert set(codes) <= {0, -2}
    assert len(engine_of(gateway).futures) == 0


@pytest.mark.parametrize("durability", ["group", "always"])
async def test_with_a_store(emulator, start_gateway, tmp_path, durability):
    store = {"path": str(tmp_path / "queue"), "min_free": 0, "durability": durability}
    gateway = await start_gateway(store=store)
    meters = await sessions(gateway, 5)
    results = await gateway.send_timeseries_of_devices({meter: {"a": 1} for meter in meters})
    assert {result.reason_code for result in results.values()} == {0}
