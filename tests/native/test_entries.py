"""Entries and uplinks encode when they are made: sizes are exact, bad input raises, and arguments are not changed."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_encoding import texts, values

import reference
from tb_mqtt_client._native import AttributeEntry, DataEntry, DeviceIdentity, EncodedUplink, TimeseriesEntry, pack_attributes


def is_stored(key):
    try:
        reference.validate_key(key)
    except ValueError:
        return False
    return True


END_OF_TIME = 253402300800000
keys = texts.filter(is_stored)
timestamps = st.none() | st.integers(-(2**62), END_OF_TIME - 1)


@given(keys, values, timestamps)
def test_size_is_that_of_the_json(key, value, ts):
    """The size is the number of bytes of the compact JSON, including the timestamp if there is one."""
    document = {key: value} if ts is None else {"ts": ts, "values": {key: value}}
    entry = TimeseriesEntry(key, value, ts)
    assert entry.size == len(orjson.dumps(document)) == reference.TimeseriesEntry(key, value, ts).size


@given(keys, values, timestamps)
def test_values_are_read_back(key, value, ts):
    entry = TimeseriesEntry(key, value, ts)
    assert (entry.key, entry.value, entry.ts) == (key, value, ts)
    assert type(entry.value) is type(value)
    for twin in (copy.copy(entry), copy.deepcopy(entry), pickle.loads(pickle.dumps(entry))):
        assert twin == entry
        assert type(twin) is TimeseriesEntry


@pytest.mark.parametrize(("key", "value", "ts", "size"), [("a", 1, None, 7), ("a", 1, 5, 25), ("é", "é", None, 11)])
def test_published_sizes(key, value, ts, size):
    assert DataEntry(key, value, ts).size == size


def test_published_forms():
    entry = TimeseriesEntry("k", "v", 0)
    assert repr(entry) == "TimeseriesEntry(key=k, value=v, ts=0)"
    assert repr(AttributeEntry("k", None)) == "AttributeEntry(key=k, value=None)"
    assert repr(DataEntry("k", [1], 2)) == "DataEntry(key=k, value=[1], ts=2)"
    assert entry.as_dict() == {"key": "k", "value": "v", "ts": 0}
    assert TimeseriesEntry("k", "v").as_dict() == AttributeEntry("k", "v").as_dict() == {"key": "k", "value": "v"}
    assert isinstance(entry, DataEntry)


def test_equality():
    assert TimeseriesEntry("k", 1, 2) == TimeseriesEntry("k", True, 2)
    assert TimeseriesEntry("k", 1, 2) != TimeseriesEntry("k", 1, 3)
    assert TimeseriesEntry("k", 1) != AttributeEntry("k", 1)
    assert AttributeEntry("k", {"a": 1, "b": 2}) == AttributeEntry("k", {"b": 2, "a": 1})
    assert DataEntry("k", 1) != DataEntry("k", 1)
    assert hash(DataEntry("k", 1))
    for entry in (TimeseriesEntry("k", 1), AttributeEntry("k", 1)):
        with pytest.raises(TypeError, match="unhashable"):
            hash(entry)


def test_defect_59_setters_check_before_they_store():
    """SDK 2.0 stored the value before it failed."""
    entry = TimeseriesEntry("k", 1, 2)
    for name, wrong in [("key", ""), ("value", object()), ("ts", "x"), ("ts", True)]:
        with pytest.raises(ValueError, match="Invalid"):
            setattr(entry, name, wrong)
    assert entry == TimeseriesEntry("k", 1, 2)
    entry.key, entry.value, entry.ts = "key", [1], None
    assert entry.size == len(b'{"key":[1]}')


@pytest.mark.parametrize(
    ("key", "value", "ts", "message"),
    [
        ("temp", float("nan"), None, r"nan is not a JSON number.* \(value of key 'temp'\)$"),
        ("temp", {"x": [1, {"y": object}]}, None, r"^Invalid JSON value at \$\.x\[1\]\.y: unsupported.*'temp'"),
        ("", 1, None, "blank"),
        ("x" * 256, 1, None, "256 characters"),
        (1, 1, None, "expected str, got int"),
        ("temp", 1, "now", "Invalid ts 'now'"),
        ("temp", 1, float("nan"), "Invalid ts nan"),
        ("temp", 1, 2**63, "Invalid ts"),
        ("temp", 1, -(2**63), "Invalid ts"),
        ("temp", 1, -(2**62) - 1, "Invalid ts"),
        (
            "temp",
            1,
            END_OF_TIME,
            r"Invalid ts 253402300800000: the platform stores nothing from 253402300800000 \(the year 10000\) on",
        ),
        ("temp", 1, float(END_OF_TIME), "milliseconds since the epoch$"),
        ("temp", 1, 1_700_000_000_000_000, "and this looks like microseconds$"),
        ("temp", 1, 1_700_000_000_000_000_000, "and this looks like nanoseconds$"),
        ("temp", 1, 2**63 - 1, "milliseconds since the epoch$"),
        ("temp", 1, datetime(2026, 1, 31), r"Invalid ts datetime.datetime\(2026, 1, 31, 0, 0\): a datetime must have a timezone"),
        ("temp", 1, datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-1))), "the year 10000"),
    ],
)
def test_contract_9_nan_and_other_refused_entries(key, value, ts, message):
    with pytest.raises(ValueError, match=message) as raised:
        TimeseriesEntry(key, value, ts)
    assert isinstance(raised.value, TypeError) == any(text in message for text in ("unsupported", "expected str", "now"))


UNSUPPORTED = [pytest.param(object(), id="object()"), b"x", {1}, (1,), {1: 2}, {"a": [{"b": {1: 2}}]}, "\ud800"]


@pytest.mark.parametrize("value", UNSUPPORTED, ids=repr)
@pytest.mark.parametrize(
    "encode",
    [
        lambda value: DataEntry("a", value),
        lambda value: AttributeEntry("a", value),
        lambda value: TimeseriesEntry("a", value),
        lambda value: TimeseriesEntry("a", 1, value),
        lambda value: setattr(TimeseriesEntry("a", 1), "value", value),
        lambda value: EncodedUplink.timeseries({"good": 1, "a": value}, NOW),
        lambda value: EncodedUplink.timeseries([{"ts": 5, "values": {"a": value}}], NOW),
        lambda value: EncodedUplink.timeseries({"ts": value, "values": {"a": 1}}, NOW),
        lambda value: EncodedUplink.attributes({"good": 1, "a": value}),
    ],
)
def test_an_unsupported_value_is_a_value_error_and_a_type_error(encode, value):
    for error in (ValueError, TypeError):
        with pytest.raises(error, match="Invalid"):
            encode(value)


@pytest.mark.parametrize("key", [None, 1, b"x", ("x",), "\ud800"], ids=repr)
@pytest.mark.parametrize(
    "encode",
    [
        lambda key: TimeseriesEntry(key, 1),
        lambda key: AttributeEntry(key, 1),
        lambda key: setattr(TimeseriesEntry("a", 1), "key", key),
        lambda key: EncodedUplink.timeseries({key: 1}, NOW),
        lambda key: EncodedUplink.attributes({key: 1}),
    ],
)
def test_a_key_that_is_not_a_str_is_a_value_error_and_a_type_error(encode, key):
    for error in (ValueError, TypeError):
        with pytest.raises(error, match="Invalid"):
            encode(key)


ENCODERS_OF_KEYS = [
    lambda key: DataEntry(key, 1),
    lambda key: TimeseriesEntry(key, 1),
    lambda key: AttributeEntry(key, 1),
    lambda key: setattr(TimeseriesEntry("a", 1), "key", key),
    lambda key: EncodedUplink.timeseries({"good": 1, key: 1}, NOW),
    lambda key: EncodedUplink.timeseries({"ts": 5, "values": {"good": 1, key: 1}}, NOW),
    lambda key: EncodedUplink.timeseries([{"good": 1}, {key: 1}], NOW, DeviceIdentity("A")),
    lambda key: EncodedUplink.attributes({"good": 1, key: 1}),
    lambda key: EncodedUplink.attributes({key: 1}, DeviceIdentity("A")),
]


@pytest.mark.parametrize("encode", ENCODERS_OF_KEYS)
@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("CO2 <ppm>", "'<' followed by a letter"),
        ("a < b", "'<' followed by a letter"),
        ("{{x}}", "'{{' followed by '}}'"),
        ("a\x07b", r"the control character U\+0007"),
        ("a\x7f", r"the control character U\+007F"),
        ("\U0001f600" * 128, r"it has 256 characters.*UTF-16"),
        (" ", "it is blank"),
    ],
)
def test_a_key_that_the_platform_drops_with_its_record_is_refused_everywhere(encode, key, rule):
    """The platform acknowledges a record with such a key and drops all of it (docs/platform_contract.md, section 3)."""
    with pytest.raises(ValueError, match=rf'^Invalid key ".*": .*{rule}'):
        encode(key)


@given(keys)
def test_keys_are_written_as_json(key):
    [payload] = pack_attributes([EncodedUplink.attributes({key: 1})], gateway=False, max_size=10_000).payloads
    assert payload.data == orjson.dumps({key: 1})


@pytest.mark.parametrize(
    "timestamp_of",
    [
        lambda ts: TimeseriesEntry("k", 1, ts).ts,
        lambda ts: DataEntry("k", 1, ts).ts,
        lambda ts: EncodedUplink.timeseries({"ts": ts, "values": {"k": 1}}, NOW).timeseries_entries()[0].ts,
        lambda ts: EncodedUplink.timeseries([{"ts": ts, "values": {"k": 1}}], NOW).timeseries_entries()[0].ts,
        lambda ts: EncodedUplink.of_entries([], [], ts).main_ts,
        lambda ts: EncodedUplink.of_entries([], []).with_main_ts(ts).main_ts,
    ],
)
def test_a_datetime_with_a_timezone_is_a_timestamp_everywhere(timestamp_of):
    moment = datetime(2026, 1, 31, 12, 0, 0, 1999, tzinfo=UTC)
    assert timestamp_of(moment) == timestamp_of(moment.astimezone(timezone(timedelta(hours=5, minutes=45)))) == 1769860800001
    for wrong in (moment.replace(tzinfo=None), moment.date(), moment.isoformat()):
        with pytest.raises(ValueError, match=r"^Invalid ts .*timezone"):
            timestamp_of(wrong)


@given(st.datetimes(timezones=st.timezones()))
def test_a_datetime_is_its_whole_milliseconds(moment):
    """Milliseconds are exact, before 1970 too: a float of seconds would sometimes be off by one."""
    assert TimeseriesEntry("k", 1, moment).ts == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_a_decimal_timestamp_is_cut():
    assert TimeseriesEntry("k", 1, 1700000000000.9).ts == 1700000000000


def points(uplink):
    return [(entry.ts, entry.key, entry.value) for entry in uplink.timeseries_entries()]


NOW = 99


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TimeseriesEntry("a", 1), [(NOW, "a", 1)]),
        (TimeseriesEntry("a", 1, 5), [(5, "a", 1)]),
        ({"a": 1, "b": None}, [(NOW, "a", 1), (NOW, "b", None)]),
        ({"ts": 5, "values": {"a": 1}}, [(5, "a", 1)]),
        ({"ts": None, "values": {"a": 1}}, [(NOW, "a", 1)]),
        ({"values": {"a": 1}}, [(NOW, "values", {"a": 1})]),
        ([{"a": 1}, TimeseriesEntry("a", 2), {"ts": 5, "values": {"a": 3}}], [(NOW, "a", 1), (NOW, "a", 2), (5, "a", 3)]),
    ],
)
def test_forms_of_timeseries(data, expected):
    before = repr(data)
    uplink = EncodedUplink.timeseries(data, NOW)
    assert points(uplink) == expected
    assert uplink.timeseries_count == len(expected)
    assert repr(data) == before


def test_defect_07_the_callers_dict_is_not_changed():
    """Defect 7 of SDK 2.0: a second send of the same dict sent nothing."""
    data = {"ts": 5, "values": {"a": 1}}
    assert points(EncodedUplink.timeseries(data, NOW)) == points(EncodedUplink.timeseries(data, NOW))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "without a datapoint"),
        ([], "^Unsupported payload type for telemetry: list"),
        ([{}], "without a datapoint"),
        ({"ts": 1}, "must have 'values'"),
        ({"ts": 1, "values": {}}, "at least one datapoint"),
        ({"ts": 1, "values": {"a": 1}, "b": 2}, "no other keys"),
        ({"ts": 1, "values": [1]}, "^Expected values to be a dict, got list"),
        ({"ts": "x", "values": {"a": 1}}, "Invalid ts 'x'"),
        ("text", "^Unsupported payload type for telemetry: str"),
        (None, "^Unsupported payload type for telemetry: NoneType"),
        ((1,), "^Unsupported payload type for telemetry: tuple"),
        ([1], "^Unsupported item type in telemetry list: int"),
        (AttributeEntry("a", 1), "^Unsupported payload type for telemetry: AttributeEntry"),
        ({"good": 1, "bad": float("inf")}, r"inf is not a JSON number.* \(value of key 'bad'\)$"),
        ({" ": 1}, "blank"),
        ({1: 1}, "expected str, got int"),
    ],
)
def test_defect_12_contract_9_refused_timeseries(data, message):
    with pytest.raises(ValueError, match=message):
        EncodedUplink.timeseries(data, NOW)


@pytest.mark.parametrize("data", [{"a": 1, "b": [2]}, AttributeEntry("a", 1), [AttributeEntry("a", 1), AttributeEntry("b", [2])]])
def test_forms_of_attributes(data):
    uplink = EncodedUplink.attributes(data)
    entries = [(entry.key, entry.value) for entry in uplink.attribute_entries()]
    assert entries == [("a", 1), ("b", [2])][: len(entries)]
    assert uplink.attribute_count == len(entries)


@pytest.mark.parametrize("data", [{}, [], [{"a": 1}], [TimeseriesEntry("a", 1)], TimeseriesEntry("a", 1), "x", None])
def test_refused_attributes(data):
    with pytest.raises(ValueError, match="Unsupported"):
        EncodedUplink.attributes(data)


@given(st.lists(st.tuples(keys, values, timestamps), max_size=6), st.lists(st.tuples(keys, values), max_size=6), timestamps)
def test_of_entries(series, attributes, main_ts):
    """Entries are kept in order, their sizes add up, and timestamps stay as given."""
    uplink = EncodedUplink.of_entries(
        [AttributeEntry(*entry) for entry in attributes], [TimeseriesEntry(*entry) for entry in series], main_ts
    )
    assert [(entry.key, entry.value, entry.ts) for entry in uplink.timeseries_entries()] == series
    assert [(entry.key, entry.value) for entry in uplink.attribute_entries()] == attributes
    assert uplink.main_ts == main_ts
    sizes = [TimeseriesEntry(*entry).size for entry in series] + [AttributeEntry(*entry).size for entry in attributes]
    assert uplink.entries_size == sum(sizes)


def test_of_entries_refuses_other_classes():
    with pytest.raises(TypeError, match=r"^timeseries\[0\] must be of type TimeseriesEntry, not AttributeEntry$"):
        EncodedUplink.of_entries([], [AttributeEntry("a", 1)])


def test_identity():
    identity = DeviceIdentity("é", "meter")
    assert (identity.name, identity.profile, DeviceIdentity("é").profile) == ("é", "meter", "default")
    assert identity == DeviceIdentity("é", "meter") != DeviceIdentity("é")
    assert hash(identity) == hash(pickle.loads(pickle.dumps(identity)))
    for wrong in ("", "\ud800"):
        with pytest.raises(ValueError, match=r"ame must not"):
            DeviceIdentity(wrong)
    with pytest.raises(TypeError):
        DeviceIdentity(1)


@given(st.dictionaries(keys, values, min_size=1))
def test_nbytes_counts_the_encoded_datapoints(data):
    """The datapoints are counted as in a payload, each with its comma."""
    assert EncodedUplink.attributes(data, round_floats=False).nbytes == len(orjson.dumps(data)) - 1


def test_a_repr_may_use_the_entry_that_refuses_its_value():
    """An entry is not locked while Python code runs: the repr of a refused value reads the entry and changes it."""

    class Unsupported:
        def __repr__(self):
            entry.key = "renamed"
            return f"Unsupported in {entry.key}"

    entry = TimeseriesEntry("key", 1)
    with pytest.raises(ValueError, match="Unsupported in renamed"):
        entry.value = Unsupported()
    assert (entry.key, entry.value) == ("renamed", 1)


@pytest.fixture
def eager_threads():
    """Let threads take turns as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_share_an_entry(eager_threads):
    """Setters of one entry neither undo nor refuse each other, and it can be read meanwhile."""
    entry, last = TimeseriesEntry("key 0", "value 0", 0), 2_000

    def change(name, value_of):
        for number in range(1, last + 1):
            setattr(entry, name, value_of(number))
            assert getattr(entry, name) == value_of(number)
            assert pickle.loads(pickle.dumps(entry)).key.startswith("key ")

    with ThreadPoolExecutor() as threads:
        changes = [
            threads.submit(change, "key", "key {}".format),
            threads.submit(change, "value", "value {}".format),
            threads.submit(change, "ts", int),
        ]
    for done in changes:
        done.result()
    assert (entry.key, entry.value, entry.ts) == (f"key {last}", f"value {last}", last)
