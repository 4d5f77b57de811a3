"""Times of records are exact, never in the wrong unit, and guessed only if there is no doubt."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.cli.reading import numbered_lines
from tb_mqtt_client.cli.records import BadLine, Fields, Record, from_csv, from_ndjson
from tb_mqtt_client.cli.times import Guess, Unit, candidates_for_time, guess, parse_ts

GUESSING = Fields(guess_ts=True)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = 1769860800000
"""2026-01-31T12:00:00Z"""


def parsed(text, fields=GUESSING, parse=from_ndjson):
    chunks = iter([text.encode(), b""])
    return list(parse(numbered_lines(lambda: next(chunks)), fields))


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (0, 0), (-1, -1), (5, 5), (1.7e12, 1700000000000), ("1700000000000", 1700000000000), (" 5 ", 5),
        ("1970-01-01T00:00:00.001Z", 1), ("1969-12-31T23:59:59.999+00:00", -1), ("2026-01-31 14:00:00+02:00", NOON),
        ("20260131T120000Z", NOON),
    ],
)  # fmt: skip
def test_time_is_parsed(value, milliseconds):
    assert parse_ts(value) == milliseconds
    assert type(parse_ts(value)) is int


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (1700000000, "s"), (1700000000.25, "s"), ("1700000000", "s"), ("1700000000.25", "s"), (10**8, "s"), (10**11 - 1, "s"),
        (1700000000000000, "us"), ("1700000000000000", "us"), (10**14, "us"),
        (1700000000000000000, "ns"), (10**17, "ns"), (10**30, "ns"),
    ],
)  # fmt: skip
def test_time_in_another_unit_is_refused_and_the_unit_is_reported(value, unit):
    with pytest.raises(ValueError, match=rf"{value!r} looks like {Unit(unit).words}, .*--ts-unit {unit} converts it"):
        parse_ts(value)


@pytest.mark.parametrize(
    ("value", "unit", "milliseconds"),
    [
        (1700000000, Unit.SECONDS, 1700000000000), ("1700000000.25", Unit.SECONDS, 1700000000250),
        (1700000000000001, Unit.MICROSECONDS, 1700000000000), (1700000000123456789, Unit.NANOSECONDS, 1700000000123),
        (1700000000, Unit.MILLISECONDS, 1700000000), (10**15, Unit.MILLISECONDS, 10**15),
        ("2026-01-31T12:00:00Z", Unit.SECONDS, NOON),
    ],
)  # fmt: skip
def test_time_in_a_given_unit_is_converted(value, unit, milliseconds):
    assert parse_ts(value, unit) == milliseconds


@pytest.mark.parametrize(
    "value", [True, None, [], {}, "", "soon", "2026-01-31T12:00:00", "2026-01-31", float("inf"), float("nan"), 1.5, "1.5"]
)
def test_value_that_is_not_a_time_is_refused(value):
    with pytest.raises(ValueError, match=r"not a valid time|no offset from UTC|not a whole number"):
        parse_ts(value)


@given(
    st.datetimes(
        datetime(1971, 1, 1), datetime(9999, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])
    )
)
def test_iso_8601_time_is_exact(moment):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert EPOCH + timedelta(milliseconds=parse_ts(moment.isoformat())) == moment


@pytest.mark.parametrize("name", ["time", "timestamp", "datetime", "date", "Time", "TIMESTAMP"])
@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1769860800000", Unit.MILLISECONDS), ("1769860800", Unit.SECONDS), ("1769860800.0", Unit.SECONDS),
        ("1769860800000000", Unit.MICROSECONDS), ("1769860800000000000", Unit.NANOSECONDS),
        ('"2026-01-31T12:00:00Z"', None), ('"2026-01-31 13:00:00+01:00"', None),
    ],
)  # fmt: skip
def test_field_with_the_time_is_guessed(name, text, unit):
    expected = [Guess(name, unit), Record(1, None, NOON, {"a": 1})]
    assert parsed(f'{{"{name}":{text},"a":1}}') == expected
    assert parsed(f"{name},a\n{text},1\n", parse=from_csv)[:1] == expected[:1]
    assert parsed(f'{{"{name}":{text},"values":{{"a":1}}}}') == expected


@pytest.mark.parametrize(
    "value", [12.5, 0, -1, 20260131, 150000000, True, None, "noon", "2026-01-31", "12:00:00", [1769860800], "", 1e300]
)
def test_field_that_may_be_a_value_is_not_guessed(value):
    assert guess(candidates_for_time({"time": value, "a": 1})) is None


def test_guessed_time_without_an_offset_is_refused():
    [found, bad] = parsed('{"time":"2026-01-31T12:00:00","a":1}')
    assert found == Guess("time", None)
    assert isinstance(bad, BadLine)
    assert "has no offset from UTC" in bad.reason
    assert "--no-guess-ts sends this field as a value" in bad.reason


def test_first_record_with_a_candidate_decides_the_guess():
    lines = '{"a":1}\n{"time":12.5,"a":2}\n{"time":1769860800,"a":3}\n'
    assert [item.values for item in parsed(lines)] == [{"a": 1}, {"time": 12.5, "a": 2}, {"time": 1769860800, "a": 3}]
    lines = '{"time":1769860800,"a":1}\n{"time":12.5,"a":2}\n{"ts":5,"time":6,"a":3}\n{"a":4}\n'
    [_, first, second, third, fourth] = parsed(lines)
    assert (first.ts, second.ts) == (NOON, 12500)
    assert third == Record(3, None, 5, {"time": 6, "a": 3})
    assert fourth == Record(4, None, None, {"a": 4})


def test_more_likely_field_name_is_preferred():
    assert parsed('{"date":1769860800000,"timestamp":1769860800,"a":1}')[0] == Guess("timestamp", Unit.SECONDS)
    assert parsed('{"timestamp":7,"date":1769860800000,"a":1}')[0] == Guess("date", Unit.MILLISECONDS)


@pytest.mark.parametrize(
    "fields", [Fields(), Fields(ts="ts", guess_ts=True), Fields(ts="when", guess_ts=True), Fields(guess_ts=True, timeless=True)]
)
def test_guessing_can_be_switched_off(fields):
    assert parsed('{"time":1769860800000,"a":1}', fields) == [Record(1, None, None, {"time": 1769860800000, "a": 1})]


def test_record_with_ts_keeps_its_other_fields():
    [record] = parsed('{"ts":5,"time":1769860800000,"a":1}')
    assert record == Record(1, None, 5, {"time": 1769860800000, "a": 1})


def test_only_field_of_a_record_is_a_value():
    assert parsed('{"time":1769860800000}') == [Record(1, None, None, {"time": 1769860800000})]


def test_given_unit_applies_to_a_guessed_field():
    assert parsed('{"time":1769860800000,"a":1}', Fields(ts_unit=Unit.MILLISECONDS, guess_ts=True))[1].ts == NOON
