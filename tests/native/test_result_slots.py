"""A `ResultSlot` is filled once; `settle` and `settle_each` fill many, and leave everything else to their caller."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client._native import ResultSlot, settle, settle_each


class Slot(ResultSlot):
    __slots__ = ("__weakref__", "further")


KINDS = ["empty", "watched", "full", "other"]


def receipt_of(kind):
    if kind == "other":
        return object()
    slot = Slot()
    if kind == "watched":
        assert slot.watch()
    if kind == "full":
        assert slot.put("old")
    return slot


def test_a_slot_is_filled_once():
    slot = ResultSlot()
    assert (slot.done(), slot.outcome) == (False, None)
    assert slot.put("first")
    assert not slot.put("second")
    assert (slot.done(), slot.outcome) == (True, "first")


def test_a_slot_may_have_none():
    slot = ResultSlot()
    assert settle([slot], None) == []
    assert (slot.done(), slot.outcome) == (True, None)


def test_watching_is_noted_once():
    slot = ResultSlot()
    assert not slot.is_watched
    assert [slot.watch(), slot.watch(), slot.is_watched] == [True, False, True]
    assert slot.put("result")


@given(kinds=st.lists(st.sampled_from(KINDS)))
def test_what_is_empty_and_not_watched_is_settled(kinds):
    receipts = [receipt_of(kind) for kind in kinds]
    left = settle(receipts, "result")
    assert left == [one for one, kind in zip(receipts, kinds, strict=True) if kind != "empty"]
    outcomes = {"empty": "result", "watched": None, "full": "old"}
    assert all(one.outcome == outcomes[kind] for one, kind in zip(receipts, kinds, strict=True) if kind != "other")


@given(sends=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3))))
def test_each_gets_the_result_for_its_datapoints(sends):
    receipts, counts = [receipt_of(kind) for kind, _ in sends], [count for _, count in sends]
    results = {count: f"result of {count}" for count in counts}
    left = settle_each(receipts, counts, results)
    assert left == [(one, results[count]) for one, (kind, count) in zip(receipts, sends, strict=True) if kind != "empty"]
    settled = [(one.outcome, results[count]) for one, (kind, count) in zip(receipts, sends, strict=True) if kind == "empty"]
    assert all(outcome is result for outcome, result in settled)


def test_a_missing_result_raises():
    slot = ResultSlot()
    with pytest.raises(KeyError):
        settle_each([slot], [2], {1: "result"})
    assert not slot.done()


def test_a_cycle_through_a_result_is_collected():
    slot, result = Slot(), Slot()
    slot.put(result)
    result.further = slot
    gone = weakref.ref(slot)
    del slot, result
    gc.collect()
    assert gone() is None
