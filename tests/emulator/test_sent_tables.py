"""Tables through clients and the emulator: every row arrives once, and the result is the sum of all parts."""

import asyncio
import threading

import pyarrow as pa
import pytest

from tb_mqtt_client import DeviceClient, NotConnectedError, QueueFullError, sync
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.service.delivery import tables

TS = 1_700_000_000_000
SMALL_PARTS = 8


@pytest.fixture
def small_parts(monkeypatch):
    """Read few rows at a time, so that a small table has many parts."""
    monkeypatch.setattr(tables, "DATAPOINTS_A_PART", SMALL_PARTS)


class Arrived(list):
    """Datapoints that arrived: device, key, time and value."""

    def __init__(self):
        super().__init__()
        self.more = asyncio.Event()

    def note(self, publish):
        if publish.topic.endswith("/telemetry"):
            payload = publish.json()
            for name, records in (payload if publish.topic == "v1/gateway/telemetry" else {None: payload}).items():
                self.extend((name, key, one["ts"], value) for one in records for key, value in one["values"].items())
            self.more.set()

    async def wait_for(self, number):
        while len(self) < number:
            self.more.clear()
            await self.more.wait()


@pytest.fixture
def arrived(emulator):
    arrived = Arrived()
    emulator.on_publish = arrived.note
    return arrived


def numbers(rows, first=0):
    return pa.table({"time": [TS + row for row in range(first, first + rows)], "a": list(range(rows)), "b": [0.5] * rows})


def of_numbers(rows):
    return [(None, key, TS + row, value) for row in range(rows) for key, value in (("a", row), ("b", 0.5))]


@pytest.mark.usefixtures("small_parts")
async def test_a_table_of_a_device(device, arrived):
    result = await device.send_table(numbers(100), ts="time")
    assert (result.is_successful(), result.datapoints_count, result.topic) == (True, 200, "v1/devices/me/telemetry")
    assert arrived == of_numbers(100)
    assert device.statistics.accepted == device.statistics.acknowledged == 200


@pytest.mark.usefixtures("small_parts")
async def test_the_future_of_a_table(device, arrived):
    [delivery] = await device.send_table(numbers(20), ts="time", wait_for_publish=False)
    assert (await delivery).datapoints_count == 40
    assert arrived == of_numbers(20)


async def test_a_table_without_values_is_a_success(device):
    result = await device.send_table(numbers(0), ts="time")
    assert (result.is_successful(), result.datapoints_count) == (True, 0)


async def test_a_long_table(device, arrived):
    table = pa.table({"t": [TS, TS, TS + 1], "k": ["a", "b", "a"], "v": [1, 2, None]})
    assert (await device.send_table(table, ts="t", key="k", value="v")).datapoints_count == 2
    assert arrived == [(None, "a", TS, 1), (None, "b", TS, 2)]


@pytest.mark.usefixtures("small_parts")
async def test_a_table_of_sub_devices(emulator, start_gateway, arrived):
    gateway = await start_gateway()
    rows = 60
    table = pa.table(
        {
            "time": [TS + row for row in range(rows)],
            "meter": [f"m{row % 3}" for row in range(rows)],
            "type": [f"profile {row % 3}" for row in range(rows)],
            "volume": list(range(rows)),
        }
    )
    result = await gateway.send_table(table, ts="time", device="meter", profile="type")
    assert (result.is_successful(), result.datapoints_count, result.topic) == (True, rows, "v1/gateway/telemetry")
    assert sorted(arrived) == sorted((f"m{row % 3}", "volume", TS + row, row) for row in range(rows))
    profiles = {session.device_info.device_name: session.device_info.device_profile for session in gateway.device_manager.all()}
    assert profiles == {f"m{number}": f"profile {number}" for number in range(3)}


async def test_memory_stays_flat_in_a_table_of_many_batches(emulator, device, monkeypatch):
    """Neither the source's batches nor accepted datapoints without a result pile up, however many batches there are."""
    batch_rows, batches, most_bytes = 500, 200, 100_000
    monkeypatch.setattr(tables, "MAX_PENDING_BYTES", most_bytes)
    batch = numbers(batch_rows).to_batches()[0]
    datapoints, nbytes = [], []

    def note(_publish):
        counted = device.statistics
        datapoints.append(counted.queued + counted.in_flight)
        nbytes.append(pa.total_allocated_bytes())

    emulator.on_publish = note
    before = pa.total_allocated_bytes()
    made = (
        pa.record_batch([pa.array(column.to_pylist()) for column in batch.columns], schema=batch.schema) for _ in range(batches)
    )
    result = await device.send_table(pa.RecordBatchReader.from_batches(batch.schema, made), ts="time")
    assert result.datapoints_count == 2 * batch_rows * batches
    # A datapoint has at least six bytes, `"a":0,`, and the last part may exceed the bound.
    assert max(datapoints) <= most_bytes / 6 + 2 * batch_rows
    assert max(nbytes) - before < 8 * batch.nbytes


async def test_a_table_of_the_gateway_itself(start_gateway, arrived):
    gateway = await start_gateway()
    assert (await gateway.send_table(numbers(3), ts="time")).datapoints_count == 6
    assert arrived == of_numbers(3)


async def test_a_known_device_keeps_its_session(start_gateway, arrived):
    gateway = await start_gateway()
    session, _ = await gateway.connect_device("m", "first")
    table = pa.table({"t": [TS], "d": ["m"], "p": ["second"], "v": [1]})
    await gateway.send_table(table, ts="t", device="d", profile="p")
    assert list(gateway.device_manager.all()) == [session]
    assert session.device_info.device_profile == "first"
    assert arrived == [("m", "v", TS, 1)]


@pytest.mark.usefixtures("small_parts")
async def test_a_refused_part_is_in_the_result(emulator, device):
    def refuse(publish):
        return Verdict.refuse(0x99) if b"17" in publish.payload else None

    emulator.on_publish = refuse
    result = await device.send_table(numbers(40), ts="time")
    assert result.reason_code == 0x99
    assert result.datapoints_count == 80
    assert device.statistics.rejected > 0
    assert device.statistics.acknowledged + device.statistics.rejected == 80


@pytest.mark.usefixtures("small_parts")
async def test_a_bad_row_raises_with_a_note_about_the_rows_before(device, arrived):
    table = pa.table({"time": [TS + row for row in range(20)], "a": [0.5] * 19 + [float("nan")]})
    with pytest.raises(ValueError, match=r'column "a", row 19: .* nan is not a JSON number') as refusal:
        await device.send_table(table, ts="time")
    assert refusal.value.__notes__ == ["The first 16 datapoints of the table were accepted before, and are delivered."]
    await device.stop()
    assert len(arrived) == 16


async def test_bad_columns_raise_before_anything_is_sent(device):
    for wrong in ({"ts": "no"}, {"ts": "a", "key": "b"}):
        with pytest.raises(ValueError, match="column"):
            await device.send_table(numbers(3), **wrong)
    with pytest.raises(TypeError, match="ts must be the name of a column, not 1"):
        await device.send_table(numbers(3), ts=1)
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        await device.send_table([{"a": 1}])
    with pytest.raises(ValueError, match="priority"):
        await device.send_table(numbers(3), ts="time", priority="no")
    assert device.statistics.accepted == 0


async def test_a_table_needs_a_connected_client(emulator):
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    with pytest.raises(NotConnectedError, match="connect"):
        await client.send_table(numbers(1), ts="time")


@pytest.mark.usefixtures("small_parts")
async def test_the_queue_policy_applies(emulator):
    emulator.on_publish = lambda _: Verdict.ignore()
    options = {"max_queued_messages": 2, "max_inflight_messages": 1, "queue_policy": "raise"}
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"} | options)
    await client.connect()
    with pytest.raises(QueueFullError) as full:
        await client.send_table(numbers(2000), ts="time", wait_for_publish=False)
    assert "datapoints of the table were accepted" in full.value.__notes__[0]
    await client.stop(timeout=0)
    assert client.statistics.accepted == client.statistics.undelivered < 4000


@pytest.mark.usefixtures("small_parts")
async def test_a_table_waits_for_results_before_it_fills_the_queue(emulator, device, monkeypatch):
    monkeypatch.setattr(tables, "MAX_PENDING_BYTES", 500)
    most = 0

    def note(_):
        nonlocal most
        most = max(most, device.statistics.queued + device.statistics.in_flight)

    emulator.on_publish = note
    result = await device.send_table(numbers(500), ts="time")
    assert result.datapoints_count == 1000
    assert 0 < most <= 100


@pytest.mark.usefixtures("small_parts")
async def test_a_cancelled_table_delivers_what_was_accepted(device, arrived):
    pause = threading.Event()
    schema = pa.schema([("time", pa.int64()), ("a", pa.int64())])

    def batches():
        yield pa.record_batch([[TS, TS + 1], [0, 1]], schema=schema)
        pause.wait()
        yield pa.record_batch([[TS + 2], [2]], schema=schema)

    task = asyncio.create_task(device.send_table(pa.RecordBatchReader.from_batches(schema, batches()), ts="time"))
    await arrived.wait_for(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pause.set()
    await device.stop()
    assert [key_and_time[1:3] for key_and_time in arrived] == [("a", TS), ("a", TS + 1)]


@pytest.mark.usefixtures("small_parts")
async def test_rows_survive_lost_connections(emulator, make_gateway, arrived):
    published = 0

    def cut_once(publish):
        nonlocal published
        arrived.note(publish)
        published += 1
        return Verdict.cut(store=True) if published == 5 else None

    emulator.on_publish = cut_once
    async with make_gateway() as gateway:
        result = await gateway.send_table(numbers(3000), ts="time")
        assert (result.is_successful(), result.datapoints_count) == (True, 6000)
        assert gateway.statistics.reconnects == 1
    assert set(arrived) == set(of_numbers(3000))


async def test_the_synchronous_clients_send_tables(emulator, arrived):
    options = {"host": emulator.host, "port": emulator.port}

    def send():
        with sync.DeviceClient(options | {"access_token": "TOKEN"}) as client:
            assert client.send_table(numbers(3), ts="time").datapoints_count == 6
            assert client.send_table(numbers(3, first=3), ts="time", wait=False).result(10).datapoints_count == 6
            with pytest.raises(ValueError, match="no column"):
                client.send_table(numbers(3), ts="no")
        with sync.GatewayClient(options | {"access_token": "GATEWAY"}) as gateway:
            table = pa.table({"t": [TS], "d": ["m"], "v": [1]})
            assert gateway.send_table(table, ts="t", device="d").is_successful()

    await asyncio.to_thread(send)
    assert len(arrived) == 13
