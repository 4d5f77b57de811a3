"""Values that SDK 1.x accepted are sent as it sent them: it wrote JSON with orjson, which is the oracle here."""

import dataclasses
import datetime
import enum
import json
import uuid
from decimal import Decimal

import numpy
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client import DeviceClient  # noqa: F401  # the import of one_x must not depend on the order of imports
from tb_mqtt_client._native import DeviceIdentity, dumps
from tb_mqtt_client.one_x.uplinks import encode_attributes, encode_timeseries
from tb_mqtt_client.one_x.values import plain_value

METER = DeviceIdentity("meter", "default")
NOW = 1_700_000_000_000


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Table(dict):
    pass


class Rows(list):
    pass


class Mode(enum.Enum):
    AUTO = "auto"
    OFF = 0


@dataclasses.dataclass
class Reading:
    value: object
    _private: int = 1


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.datetimes(timezones=st.just(datetime.UTC) | st.none(), min_value=datetime.datetime(1, 1, 2))
    | st.dates()
    # orjson writes the microseconds of a time without leading zeros.
    | st.times().map(lambda time: time.replace(microsecond=0))
    | st.uuids()
    | st.sampled_from(Mode)
    | st.text(st.characters(exclude_categories=["Cs"])).map(Text)
    | st.integers(-1000, 1000).map(Number)
)
KEYS = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(-1000, 1000)
    | st.booleans()
    | st.none()
    | st.dates()
    | st.uuids()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(Rows)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(Table)
        | inner.map(Reading)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_is_written_as_orjson_writes_it(value):
    expected = json.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    assert json.loads(dumps(plain_value(value))) == expected


@pytest.mark.parametrize("value", [{1}, b"bytes", object(), Reading, 1j, {"a": [{"b": {2}}]}, {(1, 2): 3}])
def test_a_value_that_orjson_refuses_is_a_type_error(value):
    with pytest.raises(TypeError):
        orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        plain_value(value)


def test_a_value_that_contains_itself_is_a_type_error():
    value = []
    value.append(value)
    with pytest.raises(TypeError, match="nested"):
        plain_value(value)


def datapoints(encoded):
    return [[(one.ts, one.key, one.value) for one in uplink.timeseries_entries()] for uplink in encoded.uplinks]


def test_unusual_forms_of_telemetry_have_their_datapoints():
    data = ({Text("a"): (1, 2)}, Table({"ts": "1000", "values": Table({1: Mode.AUTO}), "more": 1}), {"ts": 5, "b": float("nan")})
    encoded = encode_timeseries(data, NOW)
    assert datapoints(encoded) == [[(NOW, "a", [1, 2]), (1000, "1", "auto"), (NOW, "ts", 5), (NOW, "b", None)]]
    assert encoded.refused == []


@pytest.mark.parametrize("data", [{}, [], None, [1, "a"], "text", 7, {"ts": 1, "values": {}}, [{}]])
def test_data_without_a_datapoint_is_sent_as_nothing(data):
    for encoded in (encode_timeseries(data, NOW), encode_attributes({} if isinstance(data, dict) else data)):
        assert (encoded.uplinks, encoded.refused) == ([], [])


def test_the_data_of_the_caller_is_not_changed():
    values = {"a": (1, float("nan"))}
    data = [{"ts": 1, "values": values, "metadata": {"connector": "c", "receivedTs": 1}}]
    encode_timeseries(data, NOW, METER)
    assert repr(data) == "[{'ts': 1, 'values': {'a': (1, nan)}, 'metadata': {'connector': 'c', 'receivedTs': 1}}]"
    assert data[0]["values"] is values


def test_records_with_the_same_metadata_share_an_uplink():
    first, second = {"connector": "opc", "receivedTs": 5, "publishedTs": 6}, {"connector": "opc", "receivedTs": 7}
    given = [first, second, first, {"connector": 1, "receivedTs": 5}, "text", None]
    data = [{"ts": ts, "values": {"a": ts}, "metadata": one} for ts, one in enumerate(given)]
    assert [[ts for ts, _, _ in one] for one in datapoints(encode_timeseries(data, NOW, METER))] == [[0, 2], [1], [3, 4, 5]]
    # The platform evaluates the metadata of sub-devices only.
    assert len(encode_timeseries(data, NOW).uplinks) == 1


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"bad\n": 1}, "control character"),
        ({"": 1}, "blank"),
        ({"ts": 10**15, "values": {"bad": 1}}, "year 10000"),
        ({"ts": "yesterday", "values": {"bad": 1}}, "milliseconds"),
        ({"ts": datetime.datetime(2024, 1, 1), "values": {"bad": 1}}, "timezone"),
        ({"bad": "\ud800"}, "surrogate"),
    ],
)
def test_a_datapoint_that_the_platform_loses_is_left_out_and_reported(record, reason):
    encoded = encode_timeseries([record, {"good": 1}], NOW, METER)
    assert datapoints(encoded) == [[(NOW, "good", 1)]]
    [text] = encoded.refused
    assert reason in text


def test_a_type_that_sdk_1_refused_raises():
    for encode in (encode_timeseries, encode_attributes):
        with pytest.raises(TypeError, match="set cannot be written"):
            encode({"good": 1, "bad": {1}}, *([NOW] if encode is encode_timeseries else []))


def test_attributes_are_one_uplink_for_each_dict():
    encoded = encode_attributes([{"a": 1}, 5, {"b": (1,), "": 2}, {"": 3}])
    assert [[(one.key, one.value) for one in uplink.attribute_entries()] for uplink in encoded.uplinks] == [
        [("a", 1)],
        [("b", [1])],
    ]
    assert len(encoded.refused) == 2


def test_keys_of_all_types_become_text():
    key = uuid.UUID(int=5)
    encoded = encode_attributes({7: 1, 2.5: 2, True: 3, None: 4, key: 5, Mode.OFF: 6})
    [uplink] = encoded.uplinks
    assert [one.key for one in uplink.attribute_entries()] == ["7", "2.5", "true", "null", str(key), "0"]


@pytest.mark.parametrize("beside", [1, (1, 2), {1: 2}, float("nan")], ids=["nothing", "a tuple", "a key", "NaN"])
@pytest.mark.parametrize("value", [Decimal("1.50"), Decimal("-1E+3"), numpy.float32(0.5), numpy.int64(7), numpy.array([1, 2])])
def test_types_that_only_the_core_knows(value, beside):
    """They are sent as by the other clients, whatever is sent with them."""
    assert json.loads(dumps(plain_value({"a": value, "b": beside})))["a"] == json.loads(dumps(value))
    [[(_, key, sent), _]] = datapoints(encode_timeseries({"a": value, "b": beside}, NOW))
    assert (key, sent) == ("a", json.loads(dumps(value)))


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("-Infinity")])
def test_decimals_that_are_not_numbers_become_null(value):
    """As floats do."""
    assert plain_value([value]) == [None]


def test_a_decimal_is_not_a_key():
    with pytest.raises(TypeError, match="type Decimal cannot be written as JSON"):
        plain_value({Decimal(1): 1})
