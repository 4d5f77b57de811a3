"""A float that the platform would store as text is rounded when an uplink is encoded, if six digits are left."""

import math
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_encoding import values
from test_entries import keys

import reference
from tb_mqtt_client import _native
from tb_mqtt_client._native import AttributeEntry, EncodedUplink, TimeseriesEntry
from tb_mqtt_client.emulator.payloads import decode_json
from tb_mqtt_client.emulator.values import ValueKind, stored

HALF_A_UNIT = Decimal("0.5e-16")
TS = 1

# Of all magnitudes, and many where something happens: below 1, ties, six digits left and one fewer, places 16 and 17.
floats = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1, 1)
    | st.builds(lambda digits, exponent: digits * 10.0**exponent, st.floats(-1, 1), st.integers(-20, 1))
    | st.floats(0.99999e-11, 1.00001e-11)
    | st.integers(0, 2**17).map(lambda numerator: numerator / 2**17)
    | st.integers(0, 10**16).map(lambda units: math.nextafter(units / 10**16, 1))
)
numbers = floats | st.integers() | st.integers(2**63 - 2, 2**63 + 1) | st.integers(-(2**63) - 2, -(2**63) + 1)


def encoded(value, **options):
    """Return the text of a value in an uplink, and the conversions."""
    uplink = EncodedUplink.attributes({"a": value}, **options)
    [payload] = _native.pack_attributes([uplink], gateway=False, max_size=10**6).payloads
    return payload.data.removeprefix(b'{"a":').removesuffix(b"}"), uplink.conversions


def places(text):
    """Return the decimal places in plain notation."""
    return -Decimal(text.decode()).as_tuple().exponent


@given(floats)
def test_every_float_that_can_be_a_number_is_one(value):
    """A float of at most 16 places is written as orjson does. A rounded one has at most 16, is no more than half a unit from
    the exact value and has six digits left. Anything else is written as orjson does, and counted.
    """
    shortest = orjson.dumps(value)
    text, conversions = encoded(value)
    if conversions == (1, 0):
        assert places(shortest) > 16 >= places(text)
        assert abs(Decimal(text.decode()) - Decimal(value)) <= HALF_A_UNIT
        assert abs(Decimal(text.decode())) >= Decimal("1e-11")
        assert text == orjson.dumps(round(value, 16))
    else:
        assert text == shortest
        if conversions == (0, 0):
            assert places(text) <= 16
        else:
            assert conversions == (0, 1)
            assert abs(value) < 1e-11 or abs(value) >= 2**63


@given(numbers, st.booleans())
def test_only_counted_numbers_are_stored_as_text(value, round_floats):
    """The platform, as emulated, stores a number as text exactly when it was counted as such."""
    text, (_, as_text) = encoded(value, round_floats=round_floats)
    assert (stored(decode_json(text)).kind is ValueKind.STRING) == (as_text == 1)


@given(floats)
def test_rounding_once_is_enough(value):
    text, _ = encoded(value)
    again, conversions = encoded(orjson.loads(text))
    assert again == text
    assert conversions in ((0, 0), (0, 1))


@given(floats)
def test_rounding_can_be_switched_off(value):
    """Without rounding, every float is written in its shortest form, and numbers stored as text are counted."""
    text, conversions = encoded(value, round_floats=False)
    assert text == orjson.dumps(value)
    assert conversions == (0, sum(encoded(value)[1]))


@pytest.mark.parametrize(
    ("value", "text", "conversions"),
    [
        (0.1 + 0.2, b"0.3", (1, 0)),
        (1 / 3, b"0.3333333333333333", (0, 0)),
        (-1 / 7, b"-0.1428571428571428", (1, 0)),
        (0.0, b"0.0", (0, 0)),
        (-0.0, b"-0.0", (0, 0)),
        (1e-7, b"1e-7", (0, 0)),
        (1.2345678901234e-6, b"1.2345678901e-6", (1, 0)),
        (2**-17, b"7.6293945312e-6", (1, 0)),
        (3 * 2**-17, b"0.0000228881835938", (1, 0)),
        (1.000001e-11, b"1e-11", (1, 0)),
        (9.999996e-12, b"1e-11", (1, 0)),
        (9.99994e-12, b"9.99994e-12", (0, 1)),
        (1e-16, b"1e-16", (0, 0)),
        (1e-20, b"1e-20", (0, 1)),
        (5e-324, b"5e-324", (0, 1)),
        (1e16, b"1e+16", (0, 0)),
        (2.0**63, b"9.223372036854776e+18", (0, 1)),
        (2**63 - 1, b"9223372036854775807", (0, 0)),
        (2**63, b"9223372036854775808", (0, 1)),
        (-(2**63), b"-9223372036854775808", (0, 0)),
        (True, b"true", (0, 0)),
        (None, b"null", (0, 0)),
        ("1e-20", b'"1e-20"', (0, 0)),
        ([1e-20], b"[1e-20]", (0, 0)),
        ({"a": 0.1 + 0.2, "b": 2**70}, b'{"a":0.30000000000000004,"b":1180591620717411303424}', (0, 0)),
    ],
)
def test_examples(value, text, conversions):
    assert encoded(value) == (text, conversions)
    entry = AttributeEntry("a", value)
    uplink = EncodedUplink.attributes(entry)
    assert (uplink.nbytes, uplink.conversions) == (len(b'"a":,') + len(text), conversions)


@given(values)
def test_only_numbers_are_converted(value):
    """Floats in lists and dicts are not rounded, because the platform stores those as JSON."""
    value = value if type(value) in (list, dict) else [value]
    assert encoded(value) == (orjson.dumps(value), (0, 0))


@given(keys, numbers, st.none() | st.integers(0, 2))
def test_an_entry_keeps_its_value(key, value, ts):
    """Value, size and equality of an entry do not depend on rounding."""
    entry = TimeseriesEntry(key, value, ts)
    before = repr(entry), entry.size
    for round_floats in (True, False):
        EncodedUplink.timeseries(entry, TS, None, round_floats)
    assert (entry.value, type(entry.value)) == (value, type(value))
    assert math.copysign(1, entry.value) == math.copysign(1, value)
    assert (repr(entry), entry.size) == before
    assert entry.size == reference.TimeseriesEntry(key, value, ts).size
    kept = EncodedUplink.of_entries([], [entry])
    assert kept.timeseries_entries() == (entry,)
    assert kept.conversions == (0, 0)
    assert kept.entries_size == entry.size


calls = st.lists(st.tuples(st.sampled_from("ab"), numbers | values, st.none() | st.integers(2, 3)), min_size=1, max_size=5)


@given(calls, st.booleans(), st.booleans(), st.integers(40, 400))
def test_all_forms_as_the_reference(given_calls, round_floats, as_entries, max_size):
    """A dict, entries and a list of both become the bytes and the counts of the reference, in payloads of the size counted."""
    uplinks = []
    for implementation in (_native, reference):
        data = [
            implementation.TimeseriesEntry(key, value, ts) if as_entries else {"ts": ts, "values": {key: value}}
            for key, value, ts in given_calls
        ]
        data.append({key: value for key, value, _ in given_calls})
        uplinks.append(implementation.EncodedUplink.timeseries(data, TS, None, round_floats))
    packed, expected = (
        implementation.pack_timeseries([uplink], gateway=False, max_size=max_size)
        for implementation, uplink in zip((_native, reference), uplinks, strict=True)
    )
    assert [payload.data for payload in packed.payloads] == [payload.data for payload in expected.payloads]
    assert packed.oversized == expected.oversized
    assert all(len(payload.data) <= max_size for payload in packed.payloads)
    assert packed.conversions == uplinks[0].conversions == uplinks[1].conversions
    assert uplinks[0].entries_size == uplinks[1].entries_size
    assert uplinks[0].datapoints == len(given_calls) + len({key for key, _, _ in given_calls})


@given(st.dictionaries(keys, numbers, min_size=1))
def test_attributes_as_the_reference(data):
    native, expected = EncodedUplink.attributes(data), reference.EncodedUplink.attributes(data)
    assert native.conversions == expected.conversions
    assert [entry.value for entry in native.attribute_entries()] == [
        orjson.loads(point.value) if "." in point.value or "e" in point.value else int(point.value)
        for point in expected.attribute_points
    ]


def test_a_batch_is_summed_by_kind():
    given_calls = [
        EncodedUplink.timeseries({"a": 0.1 + 0.2, "b": 1e-20}, TS),
        EncodedUplink.attributes({"a": 2**70, "b": 0.1 + 0.2}),
    ]
    given_calls += given_calls
    assert _native.pack_timeseries(given_calls, gateway=False, max_size=1000).conversions == (2, 2)
    assert _native.pack_attributes(given_calls[:2], gateway=False, max_size=1000).conversions == (1, 1)
