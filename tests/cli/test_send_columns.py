"""``tb-mqtt send --file`` with Parquet and Arrow files."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet
import pytest

from tb_mqtt_client.emulator import Verdict

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
MILLIS = int(MOMENT.timestamp() * 1000)


def write(table, path):
    if path.suffix.lower() == ".parquet":
        pa.parquet.write_table(table, path)
        return
    new = pa.ipc.new_stream if path.name.startswith("stream") else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def points(device):
    return [(point.ts, point.key, point.value) for point in device.telemetry]


@pytest.mark.parametrize("name", ["history.arrow", "stream.feather", "HISTORY.PARQUET"])
async def test_rows_of_a_device(tb_mqtt, emulator, device, tmp_path, name):
    table = pa.table({"Time": pa.array([MOMENT] * 3, pa.timestamp("us", tz="UTC")), "a": [1, 2, None], "b": [None, "x", None]})
    write(table, tmp_path / name)
    done = await tb_mqtt("send", "--file", name, "--json", env=device, cwd=tmp_path)
    assert done.err == ""
    assert (done.json["accepted"], done.json["acknowledged"], done.json["records"]) == (3, 3, 3)
    # Both values of "a" have one time, so that one is not stored.
    assert (done.code, done.json["superseded"]) == (5, 1)
    assert points(emulator.device("device"))[-2:] == [(MILLIS, "a", 2), (MILLIS, "b", "x")]


async def test_rows_of_sub_devices_with_a_unit(tb_mqtt, emulator, gateway, tmp_path):
    seconds = [MILLIS // 1000 + row for row in range(100)]
    write(pa.table({"at": seconds, "meter": [f"m{row % 4}" for row in range(100)], "kwh": seconds}), tmp_path / "x.parquet")
    arguments = ("--gateway", "--device-field", "meter", "--device-profile", "meter", "--ts-field", "at", "--ts-unit", "s")
    done = await tb_mqtt("send", "--file", "x.parquet", *arguments, "--json", env=gateway, cwd=tmp_path)
    assert (done.code, done.err, done.json["acknowledged"]) == (0, "", 100)
    assert emulator.device("m3").profile == "meter"
    assert points(emulator.device("m0"))[:2] == [(MILLIS, "kwh", seconds[0]), (MILLIS + 4000, "kwh", seconds[4])]


@pytest.mark.parametrize(
    ("columns", "arguments", "text"),
    [
        ({"a": [1]}, (), 'the table has no column "ts"; its columns: a'),
        ({"ts": [MILLIS], "a": [float("nan")]}, (), 'column "a", row 0: Invalid JSON value'),
        ({"ts": [MILLIS], "a": [1]}, ("--attributes",), "--attributes is not available for files of the format parquet"),
        ({"ts": [MILLIS], "a": [1]}, ("--format", "arrow"), "x.parquet cannot be read"),
    ],
)
async def test_what_cannot_be_sent(tb_mqtt, emulator, device, tmp_path, columns, arguments, text):
    write(pa.table(columns), tmp_path / "x.parquet")
    done = await tb_mqtt("send", "--file", "x.parquet", *arguments, env=device, cwd=tmp_path)
    assert done.code == 2
    assert text in done.err
    assert emulator.counters.telemetry_datapoints == 0


async def test_files_that_are_missing_or_broken(tb_mqtt, device, tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("broken.parquet", "missing.arrow"):
        done = await tb_mqtt("send", "--file", name, env=device, cwd=tmp_path)
        assert done.code == 2
        assert f"{name} cannot be read" in done.err


async def test_no_acknowledgement(tb_mqtt, emulator, device, tmp_path):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    write(pa.table({"ts": [MILLIS], "a": [1]}), tmp_path / "x.arrow")
    done = await tb_mqtt("send", "--file", "x.arrow", "--timeout", "0.5", env=device, cwd=tmp_path)
    assert done.code == 4
    assert "No acknowledgement for 0.5 s" in done.err
