"""Tables in Arrow's columns become the datapoints that the same rows have as Python objects."""

import json
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import tables
from tb_mqtt_client import UnsupportedValueError
from tb_mqtt_client._native import TableReader, pack_timeseries

TS = 1_700_000_000_000
LAST_TS = 253_402_300_799_999
UTC_MS = pa.timestamp("ms", tz="UTC")

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
short_floats = st.floats(allow_nan=False, allow_infinity=False, width=32).map(tables.ShortFloat)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
COLUMNS = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 2**8 - 1),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): short_floats,
    pa.float64(): floats,
    pa.string(): texts,
    pa.large_string(): texts,
    pa.string_view(): texts,
    pa.null(): st.none(),
    pa.decimal128(30, 4): st.decimals(-(10**20), 10**20, places=4),
    pa.decimal128(38, 25): st.decimals(-(10**9), 10**9, places=25),
    pa.decimal256(60, 3): st.decimals(-(10**50), 10**50, places=3),
    pa.date32(): st.dates(),
    pa.date64(): st.dates(),
    pa.time32("s"): st.times().map(lambda one: one.replace(microsecond=0)),
    pa.time64("us"): st.times(),
    pa.timestamp("us"): moments,
    pa.timestamp("us", tz="+02:00"): moments.map(lambda one: one.replace(tzinfo=timezone(timedelta(hours=2)))),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["on", "off", "ü"]),
    pa.dictionary(pa.uint16(), pa.float64()): st.sampled_from([0.5, 1.25]),
    pa.list_(pa.int64()): st.lists(st.none() | st.integers(-5, 5)),
    pa.large_list(pa.string()): st.lists(texts),
    pa.list_(pa.float64(), 2): st.lists(floats, min_size=2, max_size=2),
    pa.struct([("x", pa.float64()), ("y", pa.list_(pa.date32()))]): st.fixed_dictionaries(
        {"x": st.none() | floats, "y": st.none() | st.lists(st.dates())}
    ),
}
instants = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
TIMES = {
    pa.int64(): st.integers(-(2**50), LAST_TS),
    pa.uint64(): st.integers(0, LAST_TS),
    pa.float64(): st.floats(-1e12, 2e12),
    **{
        pa.timestamp(unit, tz=zone): st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
            lambda one, unit=unit: (
                one.replace(microsecond=0) if unit == "s" else one.replace(microsecond=one.microsecond // 1000 * 1000)
            )
        )
        for unit, zone in [("s", "UTC"), ("ms", "Europe/Berlin"), ("us", "UTC"), ("ns", "-05:00")]
    },
}


@st.composite
def wide_tables(draw):
    """Return a table with names for its columns, and its rows as dicts."""
    rows = draw(st.integers(0, 12))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    ts_kind = draw(st.sampled_from(list(TIMES)))
    columns = {"t": (ts_kind, draw(st.lists(TIMES[ts_kind], min_size=rows, max_size=rows)))}
    for number, kind in enumerate(kinds):
        columns[f"k{number}"] = kind, draw(st.lists(st.none() | COLUMNS[kind], min_size=rows, max_size=rows))
    return columns


def made(columns, cuts=()):
    """Return a table of columns with their types, in chunks that end at these rows."""
    arrays = [pa.array(values, kind) for kind, values in columns.values()]
    table = pa.table(arrays, schema=pa.schema([(name, kind) for name, (kind, _) in columns.items()]))
    ends = sorted({*cuts, len(table)})
    return pa.concat_tables([table.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)])


def rows_of(columns):
    lists = [values for _, values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def read(table, max_datapoints=10_000, **columns):
    """Return the points of a table by device and profile, with their values as JSON and floats as decimals."""
    reader = TableReader(table, **columns)
    found = {}
    while (parts := reader.read(max_datapoints)) is not None:
        for device, profile, uplink in parts:
            [payload] = pack_timeseries([uplink], gateway=False, max_size=10**9).payloads
            known = found.setdefault(device, (profile, []))
            assert uplink.timeseries_count > 0
            for record in exactly(payload.data):
                known[1].extend((record["ts"], key, value) for key, value in record["values"].items())
    return [(device, profile, points) for device, (profile, points) in found.items()]


def exactly(text):
    # pyarrow's decimals have more digits than a float.
    return json.loads(text, parse_float=Decimal)


def expected(rows, **columns):
    """Return what ``read`` should: records with one timestamp are one, in which the last value of a key wins."""
    result = []
    for device, profile, points in tables.rows_by_device(rows, **columns):
        records = {}
        for ts, key, value in points:
            records.setdefault(ts, {}).pop(key, None)
            records[ts][key] = value
        result.append(
            (device, profile, [(ts, exactly(key), exactly(value)) for ts, one in records.items() for key, value in one.items()])
        )
    return result


def by_time(result):
    return [(device, profile, sorted(points, key=lambda point: point[:2])) for device, profile, points in result]


@given(wide_tables(), st.booleans())
def test_wide_tables(columns, round_floats):
    given_rows = rows_of(columns)
    found = read(made(columns), ts="t", round_floats=round_floats)
    assert by_time(found) == by_time(expected(given_rows, ts="t", round_floats=round_floats))


@given(st.lists(st.integers(0, 50)), st.integers(1, 30))
def test_chunks_and_parts_lose_no_row(cuts, max_datapoints):
    rows = 50
    columns = {
        "t": (pa.int64(), [TS + row for row in range(rows)]),
        "a": (pa.int64(), list(range(rows))),
        "b": (pa.int8(), [7] * rows),
    }
    [(_, _, points)] = read(made(columns, cuts), max_datapoints, ts="t")
    assert points == [(TS + row, key, value) for row in range(rows) for key, value in (("a", row), ("b", 7))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["m1", "m2", "ü"]), st.sampled_from(["a", "b", "c"]), st.none() | st.integers(-9, 9), st.integers(0, 3)
        )
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_long_tables_of_devices(rows, max_datapoints, as_dictionary):
    text = pa.dictionary(pa.int32(), pa.string()) if as_dictionary else pa.string()
    columns = {
        "meter": (text, [row[0] for row in rows]),
        "name": (text, [row[1] for row in rows]),
        "reading": (pa.int64(), [row[2] for row in rows]),
        "t": (UTC_MS, [datetime.fromtimestamp(TS / 1000, UTC) + timedelta(milliseconds=row[3]) for row in rows]),
    }
    roles = {"ts": "t", "key": "name", "value": "reading", "device": "meter"}
    # In one part, since a key with the same time in two parts is in two records.
    assert by_time(read(made(columns), **roles)) == by_time(expected(rows_of(columns), **roles))
    parts = read(made(columns), max_datapoints, **roles)
    assert sum(len(points) for _, _, points in parts) >= sum(len(points) for _, _, points in expected(rows_of(columns), **roles))


def test_devices_have_the_profile_of_their_first_row():
    table = pa.table({"t": [TS, TS, TS], "d": ["a", "b", "a"], "p": ["x", None, "y"], "k": [1, 2, 3]})
    assert read(table, ts="t", device="d", profile="p") == [("a", "x", [(TS, "k", 3)]), ("b", None, [(TS, "k", 2)])]


def test_rows_without_values_are_left_out():
    table = pa.table({"t": [TS, TS + 1], "d": ["a", "b"], "k": pa.array([None, 1], pa.int64())})
    assert read(table, ts="t", device="d") == [("b", None, [(TS + 1, "k", 1)])]
    assert read(table.slice(0, 1), ts="t", device="d") == []
    assert read(table.slice(0, 0), ts="t", device="d") == []


def test_maps_and_nanoseconds():
    nanoseconds = pa.array([TS * 1_000_000 + 1], pa.int64()).cast(pa.timestamp("ns"))
    readings = pa.array([[("a", 1.5), ("b", None)]], pa.map_(pa.string(), pa.float64()))
    table = pa.table({"t": [TS], "at": nanoseconds, "m": readings})
    assert read(table, ts="t") == [(None, None, [(TS, "at", "2023-11-14T22:13:20.000000001"), (TS, "m", {"a": 1.5, "b": None})])]


def test_float16_is_written_in_its_shortest_form():
    halves = pa.array([struct.unpack("e", struct.pack("e", 0.1))[0]], pa.float16())
    [(_, _, [(_, _, value)])] = read(pa.table({"t": [TS], "k": halves}), ts="t")
    assert float(value) == pytest.approx(0.1, abs=1e-4)


ONE = pa.array([1], pa.int64())
NAIVE = pa.array([datetime(2026, 1, 1)])


@pytest.mark.parametrize(
    ("table", "roles", "text"),
    [
        (pa.table({"t": [TS], "k": ONE}), {"ts": "time"}, r"^ts: the table has no column \"time\"; its columns: t, k$"),
        (pa.table([ONE, ONE, ONE], names=["t", "k", "k"]), {"ts": "t"}, 'several columns "k"'),
        (pa.table([ONE, ONE, ONE], names=["t", "t", "k"]), {"ts": "t"}, 'ts: the table has several columns "t"'),
        (pa.table({"t": [TS]}), {"ts": "t"}, "no column with values"),
        (pa.table({"t": NAIVE, "k": ONE}), {"ts": "t"}, 'column "t" has times without a timezone'),
        (pa.table({"t": ["x"], "k": ONE}), {"ts": "t"}, 'column "t" has the type Utf8, allowed are timestamps with a timezone'),
        (pa.table({"t": [TS], " ": ONE}), {"ts": "t"}, 'Invalid key " ": it is blank'),
        (pa.table({"t": [TS], "k": [b"x"]}), {"ts": "t"}, 'column "k" has the type Binary, allowed are numbers'),
        (pa.table({"t": [TS], "k": [[b"x"]]}), {"ts": "t"}, 'column "k" has the type Binary'),
        (pa.table({"t": [TS], "k": [1], "d": [2]}), {"ts": "t", "device": "d"}, 'device: column "d" has the type Int64, allowed'),
        (
            pa.table({"t": [TS], "k": [1], "v": [2]}),
            {"ts": "t", "key": "k", "value": "v"},
            'column "k" has the type Int64, allowed are text',
        ),
        (pa.table({"t": [TS], "k": [1]}), {"ts": "t", "key": "k"}, "key and value: give both"),
        (pa.table({"t": [TS], "k": [1]}), {"ts": "t", "profile": "k"}, "profile: needs the column with the devices"),
    ],
)
def test_bad_columns_are_refused_when_the_table_is_opened(table, roles, text):
    with pytest.raises(ValueError, match=text):
        TableReader(table, **roles)


@pytest.mark.parametrize(
    ("columns", "roles", "text"),
    [
        ({"t": [TS, None], "k": [1, 2]}, {}, r'^ts: column "t", row 1: null, a time is needed'),
        (
            {"t": [TS, 2**62], "k": [1, 2]},
            {},
            r'^ts: column "t", row 1: Invalid ts 4611686018427387904: the platform stores nothing',
        ),
        ({"t": [TS, TS * 1000], "k": [1, 2]}, {}, "this looks like microseconds"),
        ({"t": [TS, TS], "k": [1.5, float("nan")]}, {}, r'^column "k", row 1: Invalid JSON value at \$: nan is not a JSON number'),
        ({"t": [TS, TS], "k": [[1.5], [0.5, float("inf")]]}, {}, r'^column "k", row 1: Invalid JSON value at \$\[1\]: inf'),
        ({"t": [TS, TS], "k": [1, 2], "d": ["a", None]}, {"device": "d"}, r'^column "d", row 1 has null: a device'),
        ({"t": [TS, TS], "k": [1, 2], "d": ["a", ""]}, {"device": "d"}, r'^column "d", row 1 has an empty text'),
        (
            {"t": [TS, TS], "k": ["a", None], "v": [1, 2]},
            {"key": "k", "value": "v"},
            r'^column "k", row 1 has null: a key is needed',
        ),
        ({"t": [TS, TS], "k": ["a", "<b"], "v": [1, 2]}, {"key": "k", "value": "v"}, r'row 1 has the invalid key "<b": it has'),
    ],
)
@pytest.mark.parametrize("max_datapoints", [1, 1000])
def test_bad_rows_are_refused_with_their_column_and_row(columns, roles, text, max_datapoints):
    reader = TableReader(pa.table(columns), ts="t", **roles)

    def read_all():
        while reader.read(max_datapoints) is not None:
            pass

    with pytest.raises(ValueError, match=text):
        read_all()
    assert reader.read(1) is None


def test_a_time_that_python_cannot_express_is_not_supported():
    far = pa.array([2**40], pa.int64()).cast(pa.timestamp("s"))
    reader = TableReader(pa.table({"t": [TS], "k": far}), ts="t")
    with pytest.raises(UnsupportedValueError, match=r'column "k", row 0: .* outside of the years 1 to 9999'):
        reader.read(1)


def test_what_is_not_a_table_is_a_type_error():
    with pytest.raises(TypeError, match=r"table must have the method __arrow_c_stream__, .* not dict"):
        TableReader({"t": [TS]}, ts="t")


def test_a_column_alone_is_refused():
    with pytest.raises(ValueError, match=r"."):
        TableReader(pa.chunked_array([[1, 2]]), ts="t")


def test_a_stream_that_fails_names_its_error():
    schema = pa.schema([("t", pa.int64()), ("k", pa.int64())])

    def batches():
        yield pa.record_batch([[TS], [1]], schema=schema)
        raise OSError("the disk is gone")

    reader = TableReader(pa.RecordBatchReader.from_batches(schema, batches()), ts="t")
    assert len(reader.read(10)) == 1
    with pytest.raises(ValueError, match=r"table: its next rows cannot be read: .*the disk is gone"):
        reader.read(10)


def test_a_reader_is_not_read_twice_at_once():
    schema = pa.schema([("t", pa.int64()), ("k", pa.int64())])
    inner = []

    def batches():
        with pytest.raises(RuntimeError, match=r"another call") as refusal:
            reader.read(1)
        inner.append(refusal)
        yield pa.record_batch([[TS], [1]], schema=schema)

    reader = TableReader(pa.RecordBatchReader.from_batches(schema, batches()), ts="t")
    assert len(reader.read(10)) == 1
    assert inner
    assert reader.read(10) is None


def test_uuid_of_arrow_is_binary():
    table = pa.table({"t": [TS], "k": pa.array([uuid.UUID(int=1).bytes], pa.binary(16))})
    with pytest.raises(UnsupportedValueError, match=r"FixedSizeBinary"):
        TableReader(table, ts="t")


def test_dates_of_all_years():
    days = [
        date(1, 1, 1),
        date(4, 2, 29),
        date(1600, 2, 29),
        date(1900, 3, 1),
        date(1969, 12, 31),
        date(2000, 2, 29),
        date(9999, 12, 31),
    ]
    numbers = [TS + number for number in range(len(days))]
    table = pa.table({"t": numbers, "k": days, "at": [time(23, 59, 59, 999_999)] * len(days)})
    [(_, _, points)] = read(table, ts="t")
    assert [value for _, key, value in points if key == "k"] == [day.isoformat() for day in days]
    assert {value for _, key, value in points if key == "at"} == {"23:59:59.999999"}
