"""Batches are divided among the lanes of a queue: by priority, with a share for every lane, and exact to one send."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.service.delivery.lanes import LEAST_SHARE, BatchBounds, HeldSends, LaneQueue
from tb_mqtt_client.service.delivery.terms import BACKLOG_TERMS, HIGH_TERMS, LOW_TERMS, Lane, SendTerms
from tb_mqtt_client.service.delivery.work_item import ENCODED, NUMBER, TERMS

BATCH = 100
"""Datapoints of a batch."""
BOUNDS = BatchBounds(math.inf, BATCH)
NORMAL_TERMS = None
numbers = itertools.count(1)


def send(terms, datapoints=1, number=None):
    encoded = EncodedUplink.timeseries({f"key {index}": index for index in range(datapoints)}, 0)
    return encoded, None, next(numbers) if number is None else number, terms


def attributes(terms=None):
    return EncodedUplink.attributes({"a": 1}), None, next(numbers), terms


def filled(queue, **lanes):
    """Put sends of one datapoint into lanes, by the number of sends."""
    terms = {"high": HIGH_TERMS, "normal": NORMAL_TERMS, "backlog": BACKLOG_TERMS, "low": LOW_TERMS}
    for name, count in lanes.items():
        queue.append_all([send(terms[name]) for _ in range(count)])
    return queue


def lanes_of(uplinks):
    return [Lane.NORMAL if uplink[TERMS] is None else uplink[TERMS].lane for uplink in uplinks]


def taken_from(queue, bounds=BOUNDS):
    """Take a batch; return the datapoints of each lane."""
    uplinks = queue.take_batch(bounds, 0).uplinks
    counts = dict.fromkeys(Lane, 0)
    for lane, uplink in zip(lanes_of(uplinks), uplinks, strict=True):
        counts[lane] += uplink[ENCODED].datapoints
    return counts


def test_a_queue_without_terms_has_no_lanes():
    queue = LaneQueue()
    sends = [send(None) for _ in range(5)]
    queue.append(sends[0])
    queue.append_all(sends[1:])
    assert not queue.has_lanes
    assert len(queue) == 5
    assert queue.pop_now(2) == sends[:2]
    queue.prepend_all(sends[:2])
    assert queue.items_now() == sends
    assert queue.pop_now(9) == sends
    assert queue.is_empty()
    assert not queue.filled.is_set()


def test_a_batch_takes_high_then_normal_then_low_priority():
    queue = filled(LaneQueue(), low=2, normal=2, high=2)
    lanes = [Lane.HIGH, Lane.HIGH, Lane.NORMAL, Lane.NORMAL, Lane.LOW, Lane.LOW]
    assert lanes_of(queue.take_batch(BOUNDS, 0).uplinks) == lanes
    assert queue.is_empty()
    assert not queue.filled.is_set()


def test_sends_of_one_priority_keep_their_order():
    queue = LaneQueue()
    sends = [send(terms) for _ in range(20) for terms in (LOW_TERMS, NORMAL_TERMS, HIGH_TERMS)]
    queue.append_all(sends)
    taken = queue.take_batch(BOUNDS, 0).uplinks
    for terms in (LOW_TERMS, NORMAL_TERMS, HIGH_TERMS):
        numbers_of = [uplink[NUMBER] for uplink in taken if uplink[TERMS] is terms]
        assert numbers_of == sorted(numbers_of)
        assert len(numbers_of) == 20


def test_live_data_goes_first_and_the_backlog_gets_what_it_leaves():
    queue = filled(LaneQueue(), backlog=1000, normal=7)
    assert lanes_of(queue.take_batch(BOUNDS, 0).uplinks) == [Lane.NORMAL] * 7 + [Lane.BACKLOG] * 93


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_backlog_gets_its_share_while_live_data_could_use_everything(share):
    queue = filled(LaneQueue(backlog_share=share), backlog=2000, normal=2000)
    for _ in range(10):
        counts = taken_from(queue)
        assert (counts[Lane.BACKLOG], counts[Lane.NORMAL]) == (round(BATCH * share), BATCH - round(BATCH * share))


def test_the_lowest_priority_is_not_starved():
    queue = filled(LaneQueue(), high=5000, normal=5000, low=5000)
    batches = [taken_from(queue) for _ in range(40)]
    rest = BATCH * 40 * LEAST_SHARE
    totals = {lane: sum(counts[lane] for counts in batches) for lane in Lane}
    assert totals[Lane.HIGH] == BATCH * 40 - rest
    assert abs(totals[Lane.LOW] - rest * LEAST_SHARE) <= 1
    assert totals[Lane.NORMAL] > totals[Lane.LOW] * 10


def test_in_order_takes_the_backlog_first():
    queue = filled(LaneQueue(backlog_first=True), high=5, normal=5, backlog=150, low=5)
    assert lanes_of(queue.take_batch(BOUNDS, 0).uplinks) == [Lane.BACKLOG] * 100
    lanes = [Lane.BACKLOG] * 50 + [Lane.HIGH] * 5 + [Lane.NORMAL] * 5 + [Lane.LOW] * 5
    assert lanes_of(queue.take_batch(BOUNDS, 0).uplinks) == lanes


sizes = st.integers(1, 300)


@given(
    share=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]),
    live=st.lists(sizes, min_size=1, max_size=30),
    backlog=st.lists(sizes, min_size=1, max_size=30),
)
def test_the_share_is_exact_to_one_batch_and_one_send(share, live, backlog):
    """Sends may be larger than batches: what one side gets too much, the other side gets later."""
    queue = LaneQueue(backlog_share=share)
    queue.append_all([send(BACKLOG_TERMS, size) for size in backlog])
    queue.append_all([send(NORMAL_TERMS, size) for size in live])
    of_live = of_backlog = 0
    while sum(live) > of_live and sum(backlog) > of_backlog:
        counts = taken_from(queue)
        if sum(live) == of_live + counts[Lane.NORMAL] or sum(backlog) == of_backlog + counts[Lane.BACKLOG]:
            # One side had less than its share.
            break
        of_live += counts[Lane.NORMAL]
        of_backlog += counts[Lane.BACKLOG]
        largest = BATCH + max(*live, *backlog)
        assert abs(of_backlog - share * (of_live + of_backlog)) <= largest
    while not queue.is_empty():
        counts = taken_from(queue)
        assert sum(counts.values()) >= min(BATCH, len(queue))


@given(
    share=st.sampled_from([0.25, 0.5, 0.75]),
    arrivals=st.lists(st.integers(0, 250), min_size=10, max_size=25),
)
def test_under_a_limit_live_data_is_young_and_the_backlog_keeps_its_share(share, arrivals):
    """One batch is admitted for each tick of a fake clock, at the beginning of which live data arrives."""
    queue = filled(LaneQueue(backlog_share=share), backlog=BATCH * len(arrivals) + BATCH)
    waiting = total = 0
    for ticks, arrived in enumerate(arrivals, 1):
        filled(queue, normal=arrived)
        waiting += arrived
        counts = taken_from(queue)
        waiting -= counts[Lane.NORMAL]
        total += counts[Lane.BACKLOG]
        assert total >= math.floor(share * BATCH * ticks) - 1
        # All of it that the share leaves goes out in the tick in which it came.
        assert counts[Lane.NORMAL] + waiting == 0 or counts[Lane.NORMAL] >= min(
            counts[Lane.NORMAL] + waiting, math.floor((1 - share) * BATCH) - 1
        )
        assert sum(counts.values()) == BATCH


def test_a_large_live_send_is_compensated_although_no_live_data_waits_behind_it():
    queue = filled(LaneQueue(backlog_share=0.5), backlog=1000)
    queue.put(send(NORMAL_TERMS, 300))
    assert taken_from(queue) == {Lane.HIGH: 0, Lane.NORMAL: 300, Lane.BACKLOG: 0, Lane.LOW: 0}
    filled(queue, normal=1000)
    # The backlog is owed 150 datapoints.
    assert [taken_from(queue)[Lane.BACKLOG] for _ in range(4)] == [100, 100, 50 + 50, 50]


def test_a_batch_is_bounded_by_bytes_devices_and_sends():
    queue = filled(LaneQueue(), backlog=1000)
    nbytes = queue.items_now()[0][ENCODED].nbytes
    assert len(queue.take_batch(BatchBounds(10 * nbytes), 0).uplinks) == 10
    assert len(queue.take_batch(BatchBounds(math.inf, sends=3), 0).uplinks) == 3
    assert len(queue.take_batch(BatchBounds(math.inf, 20, sends=30), 0).uplinks) == 20


def test_the_backlog_is_counted():
    queue = filled(LaneQueue(), backlog=3, normal=3)
    queue.append_all([send(BACKLOG_TERMS, 5), attributes(BACKLOG_TERMS)])
    nbytes = sum(uplink[ENCODED].nbytes for uplink in queue.backlog.sends)
    assert (len(queue.backlog.sends), queue.backlog.datapoints, queue.backlog.nbytes) == (5, 9, nbytes)
    batch = queue.take_batch(BatchBounds(math.inf, 6), 0)
    assert batch.backlog_datapoints == 3
    assert queue.backlog.datapoints == 6
    queue.prepend_all(batch.uplinks)
    assert queue.backlog.datapoints == 9
    queue.pop_now(99)
    assert (queue.backlog.datapoints, queue.backlog.nbytes, queue.backlog.attribute_sends) == (0, 0, 0)


def test_lanes_are_forgotten_when_only_the_backlog_needed_them():
    queue = filled(LaneQueue(), backlog=3)
    assert queue.has_lanes
    queue.take_batch(BOUNDS, 0)
    assert not queue.has_lanes


@pytest.mark.parametrize("terms", [None, HIGH_TERMS, LOW_TERMS, SendTerms(Lane.HIGH, 10**9)])
def test_attributes_do_not_overtake_attributes_of_the_backlog(terms):
    queue = filled(LaneQueue(), backlog=150)
    old, new, telemetry = attributes(BACKLOG_TERMS), attributes(terms), send(NORMAL_TERMS)
    queue.append_all([old, new, telemetry])

    def order():
        return [uplink[NUMBER] for uplink in queue.items_now() if uplink[ENCODED].attribute_count]

    assert order() == [old[NUMBER], new[NUMBER]]
    assert queue.take_batch(BOUNDS, 0).uplinks[0] == telemetry
    # Also if they are put back, as after an error, or if they are routed again.
    queue.prepend_all(queue.pop_now(len(queue)))
    assert order() == [old[NUMBER], new[NUMBER]]
    queue.append_all(queue.pop_now(len(queue)))
    assert order() == [old[NUMBER], new[NUMBER]]
    queue.pop_now(len(queue))
    queue.put(later := attributes(terms))
    assert queue.items_now() == [later]


def test_the_oldest_send_of_the_lowest_priority_is_dropped_first():
    queue = filled(LaneQueue(), high=1, normal=2, backlog=2, low=2)
    places, lanes = [], []
    while (oldest := queue.oldest()) is not None:
        place, take = oldest
        places.append(place)
        lanes += lanes_of([take()])
    assert lanes == [Lane.LOW] * 2 + [Lane.BACKLOG] * 2 + [Lane.NORMAL] * 2 + [Lane.HIGH]
    assert places == sorted(places)
    assert queue.is_empty()


def test_decided_sends_are_skipped_and_can_be_removed():
    queue = LaneQueue()
    early, late, decided = (send(SendTerms(Lane.NORMAL, at)) for at in (10, 20, 30))
    queue.append_all([early, send(None), late, decided])
    decided[TERMS].end()
    batch = queue.take_batch(BatchBounds(math.inf, sends=1), 10)
    assert batch.expired == [early]
    assert [uplink[TERMS] for uplink in batch.uplinks] == [None]
    queue.forget_decided()
    assert queue.items_now() == [late]


@pytest.mark.parametrize("terms", [HIGH_TERMS, NORMAL_TERMS, BACKLOG_TERMS, LOW_TERMS])
def test_a_send_can_be_removed_from_any_lane(terms):
    queue = filled(LaneQueue(), high=2, normal=2, backlog=2, low=2)
    queue.put(wanted := send(terms))
    assert queue.remove_first(lambda uplink: uplink[NUMBER] == wanted[NUMBER]) is wanted
    assert queue.remove_first(lambda uplink: uplink[NUMBER] == wanted[NUMBER]) is None
    assert len(queue) == 8
    assert queue.backlog.datapoints == 2


def test_held_sends_keep_lane_and_order():
    held, queue = HeldSends(), LaneQueue()
    sends = [send(terms) for _ in range(3) for terms in (LOW_TERMS, NORMAL_TERMS, BACKLOG_TERMS, HIGH_TERMS)]
    for uplink in sends[4:]:
        held.append(uplink)
    for uplink in reversed(sends[:4]):
        held.prepend(uplink)
    assert len(held) == len(sends)
    queue.append_all(held)
    direct = LaneQueue()
    direct.append_all(sends)
    assert queue.take_batch(BOUNDS, 0).uplinks == direct.take_batch(BOUNDS, 0).uplinks
    place, take = held.oldest()
    assert take() is sends[0]
    assert place == (-Lane.LOW, sends[0][NUMBER])


@given(
    steps=st.lists(st.sampled_from(["urgent", "other", "first urgent", "first other", "take", "drop", "remove"]), max_size=60),
    in_order=st.booleans(),
)
def test_urgent_sends_of_the_backlog_go_before_the_others(steps, in_order):
    """Each kind keeps its order, a full queue drops the others first, and the counts are those of the sends that wait."""
    queue = LaneQueue(backlog_first=in_order)
    urgent, other = (SendTerms(Lane.BACKLOG, is_urgent=is_urgent) for is_urgent in (True, False))
    expected = [], []
    for step in steps:
        kind = 0 if "urgent" in step and not in_order else 1
        uplink = send(urgent if "urgent" in step else other)
        first = next((one for one in expected if one), None)
        if "first" in step:
            queue.prepend_all([uplink])
            expected[kind].insert(0, uplink)
        elif step in {"urgent", "other"}:
            queue.put(uplink)
            expected[kind].append(uplink)
        elif first and step == "take":
            assert queue.pop_now(1) == [first.pop(0)]
        elif first and step == "drop":
            last = expected[1] or expected[0]
            assert queue.oldest()[1]() is last.pop(0)
        elif first and step == "remove":
            gone = first.pop()
            assert queue.remove_all(lambda one, gone=gone: one is gone) == [gone]
        waiting = expected[0] + expected[1]
        assert queue.items_now() == waiting
        assert queue.backlog.datapoints == len(waiting)
