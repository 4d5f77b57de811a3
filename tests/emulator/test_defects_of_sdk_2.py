"""Defects of SDK 2.0 that have no test elsewhere."""

import asyncio
import itertools
import logging
import subprocess
import sys
import textwrap
import time

import pytest
from device_peer import make_client

from tb_mqtt_client import AttributeEntry, ClientState, DeviceClient, TimeseriesEntry
from tb_mqtt_client.common.exceptions import ExceptionHandler
from tb_mqtt_client.common.timing import now_ms


def tasks():
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_defect_05_each_send_has_its_own_time(emulator, device, monkeypatch):
    times = itertools.count(1, 1)
    monkeypatch.setattr(time, "time_ns", lambda: next(times) * 1_000_000_000)
    futures = [(await device.send_timeseries(TimeseriesEntry("t", value), wait_for_publish=False))[0] for value in range(3)]
    assert [(await future).datapoints_count for future in futures] == [1, 1, 1]
    telemetry = emulator.device("device").telemetry
    assert [point.value for point in telemetry] == [0, 1, 2]
    assert len({point.ts for point in telemetry}) == 3


async def test_defect_05_superseded_datapoints_are_counted(device):
    """Of two values with the same key and time in one payload, the last one is sent, and the other one is counted."""
    await device.send_timeseries([{"ts": 1, "values": {"t": 1}}, {"ts": 1, "values": {"t": 2}}])
    assert (device.statistics.acknowledged, device.statistics.superseded) == (2, 1)


async def test_defect_08_parts_of_a_split_send_have_the_time_of_the_send(emulator, make_gateway):
    emulator.max_payload_size = 440
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


async def test_defect_13_the_result_has_the_number_of_datapoints(device):
    assert (await device.send_timeseries({"a": 1, "b": 2})).datapoints_count == 2
    assert (await device.send_attributes([AttributeEntry("a", 1)])).datapoints_count == 1


async def test_defect_17_the_exception_handler_of_the_loop_is_not_changed(device):
    assert asyncio.get_running_loop().get_exception_handler() is None


async def test_defect_17_errors_without_a_callback_reach_the_default_handler_of_the_loop(caplog):
    loop, reported, handler = asyncio.get_running_loop(), [], ExceptionHandler()
    handler.install_asyncio_handler()
    try:
        handler.register(ValueError, lambda exc, context: reported.append((exc, context["message"])))
        value_error = ValueError("x")
        loop.call_exception_handler({"message": "m", "exception": value_error})
        loop.call_exception_handler({"message": "an unhandled error", "exception": KeyError("y")})
        loop.call_exception_handler({"message": "no exception at all"})
    finally:
        loop.set_exception_handler(None)
    assert reported == [(value_error, "m")]
    assert [record.message.splitlines()[0] for record in caplog.records] == [
        "an unhandled error",
        "no exception at all",
    ]


def test_callbacks_for_all_exceptions_are_called_if_no_type_matches():
    reported, handler = [], ExceptionHandler()
    for exc_type in (None, OSError, ConnectionError):
        handler.register(exc_type, lambda _exc, context, exc_type=exc_type: reported.append((exc_type, context)))
    handler.handle(ConnectionResetError(), {"a": 1})
    handler.handle(KeyError())
    assert reported == [(OSError, {"a": 1}), (ConnectionError, {"a": 1}), (None, None)]


async def test_defect_25_and_28_stop_ends_all_tasks_and_the_client_stays_stopped(emulator):
    before = tasks()
    client = make_client(emulator)
    await client.connect()
    assert client.state is ClientState.OPEN
    await client.stop()
    assert client.state is ClientState.STOPPED
    assert tasks() == before
    await asyncio.sleep(0)
    assert client.state is ClientState.STOPPED


def test_defect_26_a_process_ends_without_stop():
    """``asyncio.run`` ends while a client is connected, and cancels its tasks."""
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


async def test_defect_27_a_client_has_one_set_of_tasks_after_each_connect(emulator):
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


async def test_defect_38_messages_are_not_logged_at_info(device, caplog):
    with caplog.at_level(logging.INFO):
        for value in range(10):
            await device.send_timeseries({"t": value})
    assert caplog.records == []


async def test_sends_before_connect_raise_an_attribute_error():
    """SDK 2.0 raised them by accident, and programs catch them."""
    client = DeviceClient({"host": "localhost"})
    with pytest.raises(AttributeError):
        await client.send_timeseries({"a": 1})
    with pytest.raises(AttributeError):
        await client.send_attributes({"a": 1})
