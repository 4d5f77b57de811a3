"""Telemetry that a program cuts with ``_split_message``: all of it is there, within the limits, in the records that it was in."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_device_mqtt import TBDeviceMqttClient

split = TBDeviceMqttClient._split_message
VALUES = st.one_of(st.integers(-9, 10**9), st.text(max_size=30), st.booleans(), st.lists(st.integers(0, 9), max_size=4))
RECORDS = st.lists(
    st.builds(
        lambda ts, values, metadata: {"ts": ts, "values": values} | ({"metadata": metadata} if metadata else {}),
        st.integers(0, 5),
        st.dictionaries(st.text("abcdé", min_size=1, max_size=3), VALUES, max_size=6),
        st.sampled_from([None, None, {"connector": "a"}, {"connector": "b"}]),
    ),
    max_size=12,
)


def size(message):
    return len(json.dumps(message["data"], separators=(",", ":"), ensure_ascii=False).encode())


def points(records):
    return {
        (record["ts"], str(record.get("metadata")), key): value for record in records for key, value in record["values"].items()
    }


@given(RECORDS, st.integers(0, 7), st.integers(60, 300))
def test_messages_have_all_datapoints_and_keep_to_the_limits(records, most, largest):
    messages = split(records, most, largest)
    assert points([record for message in messages for record in message["data"]]) == points(records)
    for message in messages:
        count = sum(len(record["values"]) for record in message["data"])
        assert message["datapoints"] == count > 0
        assert not most or count <= most
        assert size(message) <= largest or count == 1
    for first, second in itertools.pairwise(messages):
        # The next datapoint did not fit, or its record was not to be torn.
        record = second["data"][0]
        key = next(iter(record["values"]))
        fuller = {"data": [*first["data"], record | {"values": {key: record["values"][key]}}]}
        whole = {"data": [*first["data"], record]}
        assert size(fuller) > largest or first["datapoints"] == most or size(whole) > largest or len(record["values"]) > 1


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        ({"a": 1, "b": 2}, [[{"a": 1, "b": 2}]]),
        ({"a": 1, "b": 2, "c": 3}, [[{"a": 1, "b": 2}], [{"c": 3}]]),
        ({"ts": 1, "values": {"a": 1, "b": 2, "c": 3}}, [[{"ts": 1, "values": {"a": 1, "b": 2}}], [{"ts": 1, "values": {"c": 3}}]]),
        ([{"ts": 1, "values": {"a": 1}}, {"ts": 1, "values": {"b": 2}}], [[{"ts": 1, "values": {"a": 1, "b": 2}}]]),
        ([{"a": 1}, {"ts": 5, "values": {"b": 2}}], [[{"a": 1}, {"ts": 5, "values": {"b": 2}}]]),
        ([{"a": 1}, {"ts": 5, "values": {"b": 2, "c": 3}}], [[{"a": 1}], [{"ts": 5, "values": {"b": 2, "c": 3}}]]),
        ({"ts": 1, "values": {"a": 1}, "x": 2}, [[{"ts": 1, "values": {"a": 1}}]]),
        ({"ts": 1, "values": {}}, []),
        ([1, "x"], []),
        (None, []),
    ],
)
def test_forms_of_telemetry(pack, expected):
    """As SDK 1.13 cut them, with two datapoints in a message."""
    assert [message["data"] for message in split(pack, 2, 1000)] == expected


def test_a_datapoint_that_is_too_large_has_a_message_of_its_own():
    messages = split({"ts": 1, "values": {"a": 1, "b": "x" * 300, "c": 2}}, 0, 100)
    assert [list(message["data"][0]["values"]) for message in messages] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    "records",
    [
        [{"a": 1, "b": 2}],
        [{"ts": 1, "values": {"aé": 1, "b": "x"}}],
        [{"ts": 1, "values": {"a": 1}}, {"ts": 2, "values": {"a": 1}}],
        [{"a": 1}, {"ts": 1, "values": {"a": 1}}],
    ],
)
def test_a_message_may_be_as_large_as_the_limit(records):
    largest = size({"data": records})
    assert [message["data"] for message in split(records, 0, largest)] == [records]
    assert len(split(records, 0, largest - 1)) == 2


def test_the_data_of_the_caller_is_not_changed():
    pack = [{"ts": 1, "values": {"a": 1}}, {"ts": 1, "values": {"b": 2}}]
    split(pack, 1, 100)
    assert pack == [{"ts": 1, "values": {"a": 1}}, {"ts": 1, "values": {"b": 2}}]
