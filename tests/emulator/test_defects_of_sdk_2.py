"""Defects of SDK 2.0 that no other test is about."""

import asyncio
import logging
import subprocess
import sys
import textwrap

import pytest
from device_peer import make_client

from engine_parts import engine_of
from tb_mqtt_client import AttributeEntry, DeviceClient, TimeseriesEntry
from tb_mqtt_client.common.exceptions import ExceptionHandler
from tb_mqtt_client.common.timing import now_ms


def tasks():
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_defect_05_each_call_has_its_own_time(emulator, device, monkeypatch):
    times = iter([1000, 2000, 3000])
    monkeypatch.setattr("tb_mqtt_client.service.engine.now_ms", lambda: next(times))
    futures = [(await device.send_timeseries(TimeseriesEntry("t", value), wait_for_publish=False))[0] for value in range(3)]
    assert [(await future).datapoints_count for future in futures] == [1, 1, 1]
    assert [(point.ts, point.value) for point in emulator.device("device").telemetry] == [(1000, 0), (2000, 1), (3000, 2)]


async def test_defect_05_no_point_is_dropped_in_silence(device):
    """Two values of one key and one millisecond in one payload: the last one wins, and the other is counted."""
    await device.send_timeseries([{"ts": 1, "values": {"t": 1}}, {"ts": 1, "values": {"t": 2}}])
    assert (device.statistics.acknowledged, device.statistics.superseded) == (2, 1)


async def test_defect_08_split_data_of_sub_devices_keep_the_calls_time(emulator, make_gateway):
    emulator._platform.max_payload_size = 440
    gateway = make_gateway()
    await gateway.connect()
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    before = now_ms()
    result = await gateway.send_device_timeseries(session, {f"key {index}": "x" * 50 for index in range(20)})
    assert result.is_successful()
    points = emulator.device("D1").telemetry
    assert len(points) == 20
    [ts] = {point.ts for point in points}
    assert before <= ts <= now_ms()
    assert emulator.counters.publishes > 1
    await gateway.stop()


async def test_defect_13_the_result_counts_the_datapoints(device):
    assert (await device.send_timeseries({"a": 1, "b": 2})).datapoints_count == 2
    assert (await device.send_attributes([AttributeEntry("a", 1)])).datapoints_count == 1


async def test_defect_17_the_loops_handler_is_left_alone(device):
    assert asyncio.get_running_loop().get_exception_handler() is None


async def test_defect_17_what_nothing_is_registered_for_reaches_the_loops_own_handler(caplog):
    loop, told, handler = asyncio.get_running_loop(), [], ExceptionHandler()
    handler.install_asyncio_handler()
    try:
        handler.register(ValueError, lambda exc, context: told.append((exc, context["message"])))
        value_error = ValueError("x")
        loop.call_exception_handler({"message": "m", "exception": value_error})
        loop.call_exception_handler({"message": "an error that nobody waits for", "exception": KeyError("y")})
        loop.call_exception_handler({"message": "no exception at all"})
    finally:
        loop.set_exception_handler(None)
    assert told == [(value_error, "m")]
    assert [record.message.splitlines()[0] for record in caplog.records] == [
        "an error that nobody waits for",
        "no exception at all",
    ]


def test_callbacks_for_any_exception_are_called_when_no_type_matches():
    told, handler = [], ExceptionHandler()
    for exc_type in (None, OSError, ConnectionError):
        handler.register(exc_type, lambda _exc, context, exc_type=exc_type: told.append((exc_type, context)))
    handler.handle(ConnectionResetError(), {"a": 1})
    handler.handle(KeyError())
    assert told == [(OSError, {"a": 1}), (ConnectionError, {"a": 1}), (None, None)]


async def test_defect_25_and_28_stop_ends_everything_and_the_stop_event_stays(emulator):
    before = tasks()
    client = make_client(emulator)
    await client.connect()
    assert not engine_of(client).stop_event.is_set()
    await client.stop()
    assert engine_of(client).stop_event.is_set()
    assert tasks() == before


def test_defect_26_leaving_at_once_ends_the_process():
    """A client is connected, and ``asyncio.run`` is left without ``stop``: its end cancels everything that waits."""
    program = """
        import asyncio
        from tb_mqtt_client import DeviceClient
        from tb_mqtt_client.emulator import Emulator

        async def main():
            emulator = Emulator()
            await emulator.start()
            emulator.add_device("TOKEN", "device")
            await DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}).connect()

        asyncio.run(main())
        print("left")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "left\n"


async def test_defect_27_disconnected_clients_have_no_connection_and_one_set_of_queues(emulator):
    client = make_client(emulator)
    names = []
    for _ in range(2):
        await client.connect()
        await client.connect()
        names.append(sorted(task.get_name() for task in tasks() if "tb-mqtt-client" in task.get_name()))
        await client.disconnect()
        left = {task.get_name() for task in tasks()}
        assert not {name for name in left if "acknowledgements" in name or "connection" in name}
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0])
    await client.stop()


async def test_defect_38_no_line_a_message(device, caplog):
    with caplog.at_level(logging.INFO):
        for value in range(10):
            await device.send_timeseries({"t": value})
    assert caplog.records == []


async def test_the_published_errors_before_connect():
    """They were accidents of SDK 2.0, and programs catch them."""
    client = DeviceClient({"host": "localhost"})
    with pytest.raises(AttributeError):
        await client.send_timeseries({"a": 1})
    with pytest.raises(AttributeError):
        await client.send_attributes({"a": 1})
