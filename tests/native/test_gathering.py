"""A `Gathering` is a queue of encoded sends: the same datapoints as `EncodedUplink`, without an object for each send."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client._native import EncodedUplink, GatheredSends, Gathering, UnsupportedValueError, pack_attributes, pack_timeseries

NOW = 1_700_000_000_000
LIMIT = {"gateway": False, "max_size": 10**6}
values = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5) | st.booleans()
records = st.dictionaries(st.sampled_from(["a", "b", 'c"', "é"]), values, min_size=1)
sends = st.lists(records | st.builds(lambda ts, record: {"ts": ts, "values": record}, st.integers(0, 3), records), max_size=8)


def opened(round_floats=True):
    gathering = Gathering(round_floats)
    gathering.allow(10**6, 10**9)
    return gathering


def taken(gathering):
    return gathering.take(10**9, 10**9, 10**9)


@given(data=sends, round_floats=st.booleans(), max_size=st.integers(30, 200))
def test_the_datapoints_are_those_of_encoded_uplinks(data, round_floats, max_size):
    gathering = opened(round_floats)
    lengths = [gathering.push(one, NOW, number) for number, one in enumerate(data)]
    assert lengths == list(range(1, len(data) + 1))
    expected = [EncodedUplink.timeseries(one, NOW, None, round_floats) for one in data]
    sums = len(data), sum(one.nbytes for one in expected), sum(one.datapoints for one in expected)
    assert gathering.take_added() == sums
    assert gathering.take_added() == (0, 0, 0)
    gathered = taken(gathering)
    assert (len(gathered), gathered.nbytes, gathered.receipts) == (*sums[:2], list(range(len(data))))
    assert [one.timeseries_entries() for one in gathered.encoded()] == [one.timeseries_entries() for one in expected]
    for limits in (LIMIT, LIMIT | {"max_size": max_size}):
        ours, theirs = pack_timeseries(gathered, **limits), pack_timeseries(expected, **limits)
        assert [(one.data, one.sources) for one in ours.payloads] == [(one.data, one.sources) for one in theirs.payloads]
        assert (ours.oversized, ours.conversions, ours.suspicious_ts) == (
            theirs.oversized,
            theirs.conversions,
            theirs.suspicious_ts,
        )
    assert not pack_attributes(gathered, **LIMIT).payloads


def test_a_closed_gathering_does_not_read_the_data():
    gathering = Gathering()
    assert gathering.push(object(), NOW, None) == 0
    assert len(gathering) == 0


def test_what_exceeds_the_allowance_is_not_queued():
    gathering = Gathering()
    small, large = {"a": 1}, {"a": "x" * 50}
    gathering.allow(2, EncodedUplink.timeseries(small, NOW).nbytes * 2)
    assert [gathering.push(data, NOW, data["a"]) for data in (large, small, large, small, small)] == [0, 1, 0, 2, 0]
    assert gathering.sends_allowed == 0
    assert taken(gathering).receipts == [1, 1]


@pytest.mark.parametrize(
    ("data", "error"),
    [({"a": {1, 2}}, UnsupportedValueError), ({}, ValueError), ([], ValueError), (5, ValueError), (None, ValueError)],
)
def test_invalid_data_raises_and_is_not_queued(data, error):
    gathering = opened()
    with pytest.raises(error):
        gathering.push(data, NOW, None)
    with pytest.raises(ValueError, match="now_ms"):
        gathering.push({"a": 1}, 10**15, None)
    assert (len(gathering), gathering.take_added()) == (0, (0, 0, 0))


def test_data_that_sends_while_it_is_refused_queues_that_send():
    gathering = opened()

    class Sending:
        def __repr__(self):
            gathering.push({"inner": 1}, NOW, "inner")
            return "Sending()"

    with pytest.raises(UnsupportedValueError):
        gathering.push({"a": Sending()}, NOW, "outer")
    assert set(taken(gathering).receipts) == {"inner"}


@pytest.mark.parametrize(
    ("bounds", "count"),
    [((1, 999, 999), 1), ((2, 999, 999), 2), ((999, 1, 999), 1), ((999, 999, 3), 2), ((999, 999, 4), 2), ((999, 999, 5), 3)],
)
def test_the_oldest_are_taken_until_a_bound_is_reached(bounds, count):
    gathering = opened()
    for number in range(5):
        gathering.push({"a": number, "b": number}, NOW, number)
    assert gathering.take(*bounds).receipts == list(range(count))
    assert len(gathering) == 5 - count
    assert taken(gathering).receipts == list(range(count, 5))
    assert taken(gathering).receipts == []


def test_a_cycle_through_a_receipt_is_collected():
    class Receipt:
        pass

    gathering, receipt = opened(), Receipt()
    receipt.gathering = gathering
    gathering.push({"a": 1}, NOW, receipt)
    gone = weakref.ref(receipt)
    del gathering, receipt
    gc.collect()
    assert gone() is None


def test_gathered_sends_are_made_by_a_gathering_only():
    with pytest.raises(TypeError):
        GatheredSends()
