"""Values of types that JSON does not have: times, decimals, enums, UUIDs, and numpy's numbers and arrays."""

import enum
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client import UnsupportedValueError
from tb_mqtt_client._native import AttributeEntry, EncodedUplink, TimeseriesEntry, dumps

TS = 1_700_000_000_000


class Mode(enum.Enum):
    ON = "on"
    LEVELS = dict(low=1)  # noqa: C408, RUF012  # a member
    NOTHING = None


class Level(enum.IntEnum):
    HIGH = 3


class Color(enum.StrEnum):
    RED = "red"


class Inner(enum.Enum):
    MODE = Mode.ON


ONE_UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
CASES = [
    (datetime(2026, 1, 31, 12, 0, 0, 5000), '"2026-01-31T12:00:00.005000"'),
    (datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))), '"2026-01-31T12:00:00+02:00"'),
    (date(2026, 1, 31), '"2026-01-31"'),
    (time(1, 2, 3), '"01:02:03"'),
    (Decimal("12.50"), "12.50"),
    (Decimal("1E+3"), "1000"),
    (Decimal("-0.0001"), "-0.0001"),
    (Mode.ON, '"on"'),
    (Mode.LEVELS, '{"low":1}'),
    (Mode.NOTHING, "null"),
    (Level.HIGH, "3"),
    (Color.RED, '"red"'),
    (Inner.MODE, '"on"'),
    (ONE_UUID, '"00112233-4455-6677-8899-aabbccddeeff"'),
    (np.float64(21.5), "21.5"),
    (np.float32(0.1), "0.1"),
    (np.int16(-7), "-7"),
    (np.uint64(2**64 - 1), "18446744073709551615"),
    (np.bool_(True), "true"),
    (np.str_("x"), '"x"'),
    (np.array([1.5, 2.0]), "[1.5,2.0]"),
    (np.array([[1, 2], [3, 4]], dtype="int8"), "[[1,2],[3,4]]"),
    (np.array([0.1, 0.25], dtype="float32"), "[0.1,0.25]"),
    (np.array(5), "5"),
    (np.array([]), "[]"),
    (np.array(["a", "b"]), '["a","b"]'),
    (np.array([Decimal("1.0"), None], dtype=object), "[1.0,null]"),
    (np.array([True, False]), "[true,false]"),
]


@pytest.mark.parametrize(("value", "text"), CASES, ids=lambda one: repr(one)[:40])
def test_a_value_has_its_usual_form(value, text):
    assert dumps(value).decode() == text
    assert dumps([value, {"x": value}]).decode() == f'[{text},{{"x":{text}}}]'


@pytest.mark.parametrize(("value", "text"), CASES, ids=lambda one: repr(one)[:40])
def test_all_ways_of_sending_accept_it(value, text):
    expected = json.loads(text, parse_float=float)
    for uplink in (
        EncodedUplink.timeseries({"k": value}, TS),
        EncodedUplink.timeseries([{"ts": TS, "values": {"k": value}}], TS),
        EncodedUplink.timeseries(TimeseriesEntry("k", value), TS),
    ):
        assert [(entry.key, entry.value) for entry in uplink.timeseries_entries()] == [("k", expected)]
    for data in ({"k": value}, AttributeEntry("k", value)):
        assert [entry.value for entry in EncodedUplink.attributes(data).attribute_entries()] == [expected]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_decimals_keep_their_digits(value):
    text = dumps([value]).decode()
    assert Decimal(json.loads(text, parse_float=str, parse_int=str)[0]) == value


@given(st.integers(-(10**15), 10**15), st.integers(0, 5))
def test_floats_with_few_decimal_places_are_orjsons(units, places):
    value = units / 10**places
    assert dumps(value) == orjson.dumps(value)


def test_a_decimal_that_the_platform_would_store_as_text_is_rounded():
    value = Decimal("0.12345678901234567891")
    assert EncodedUplink.timeseries({"k": value}, TS).conversions == (1, 0)
    assert EncodedUplink.timeseries({"k": value}, TS).timeseries_entries()[0].value == round(float(value), 16)
    assert EncodedUplink.timeseries({"k": Decimal(2**64)}, TS).conversions == (0, 1)
    assert EncodedUplink.timeseries({"k": Decimal("0.5")}, TS).conversions == (0, 0)


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("2026-01-31"),
        np.array(["2026-01-31"], dtype="datetime64[ns]"),
        np.timedelta64(1, "s"),
        np.complex64(1),
        np.bytes_(b"x"),
        np.array([(1, 2)], dtype=[("a", int), ("b", int)]),
        timedelta(seconds=1),
        (1, 2),
        {1, 2},
        b"x",
        Decimal,
        enum.Enum("One", {"TUPLE": (1, 2)}).TUPLE,
    ],
    ids=repr,
)
def test_other_types_are_refused(value):
    with pytest.raises(UnsupportedValueError, match=r"Invalid JSON value at \$(\[0\])?: unsupported"):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Decimal("NaN"), "nan"), (Decimal("sNaN"), "nan"), (Decimal("-Infinity"), "-inf"), (np.float32("inf"), "inf"),
        (np.float64("nan"), "nan"),
    ],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_refused(value, name):
    with pytest.raises(ValueError, match=f"{name} is not a JSON number") as refusal:
        dumps(value)
    assert not isinstance(refusal.value, UnsupportedValueError)


def test_a_value_whose_conversion_fails_is_refused_with_its_type():
    class Broken(datetime):
        def isoformat(self, *_):
            raise RuntimeError("broken")

    with pytest.raises(UnsupportedValueError, match="unsupported - Broken"):
        dumps(Broken(2026, 1, 1, tzinfo=UTC))
