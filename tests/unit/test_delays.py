"""Delays are counted in cumulative buckets, and sends seem at most a little older than they are."""

import random

import pytest

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.service.delivery.delays import MARK_SECONDS, MARKS, AcceptTimes, DelayHistogram, Delays
from tb_mqtt_client.service.delivery.terms import BACKLOG_TERMS
from tb_mqtt_client.service.delivery.work_item import WorkItem


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_buckets_are_cumulative_and_include_their_bounds():
    histogram = DelayHistogram((0.1, 1.0, 10.0))
    for seconds in (0.05, 0.1, 0.5, 60.0):
        histogram.observe(seconds)
    assert histogram.as_dict() == {"count": 4, "seconds": pytest.approx(60.65), "buckets": {"0.1": 2, "1": 3, "10": 3}}


def message(qos=1, accepted_at=None, published_at=None):
    item = WorkItem(MqttPublishMessage("v1/devices/me/telemetry", b"{}", qos), [], 1)
    item.accepted_at, item.published_at = accepted_at, published_at
    return item


def test_queue_and_puback_are_apart():
    clock = Clock()
    delays = Delays(clock)
    delays.acknowledged(message(accepted_at=90.0, published_at=99.5))
    counted = delays.as_dict()
    assert (counted["queue"]["count"], counted["queue"]["seconds"]) == (1, 9.5)
    assert (counted["puback"]["count"], counted["puback"]["seconds"]) == (1, 0.5)


def test_a_message_of_qos_0_has_no_puback_and_an_unpublished_one_no_delay():
    delays = Delays(Clock())
    delays.acknowledged(message(qos=0, accepted_at=90.0, published_at=99.5))
    delays.acknowledged(message(accepted_at=90.0))
    delays.acknowledged(message(published_at=99.5))
    assert (delays.as_dict()["queue"]["count"], delays.as_dict()["puback"]["count"]) == (1, 1)


def test_sends_after_a_mark_count_as_accepted_at_the_mark():
    clock = Clock()
    times = AcceptTimes(lambda: None, clock)
    assert times.of_number(1) is None
    times.mark(5)
    clock.now = 101.0
    times.mark(8)
    clock.now = 103.0
    assert [times.of_number(number) for number in (4, 5, 7, 8, 900)] == [None, 100.0, 100.0, 101.0, 101.0]
    assert times.age(101.0) == 2.0
    send = (None, None, 7, None)
    assert times.of(send) == 100.0
    assert times.of_first([(None, None, 8, BACKLOG_TERMS), send]) == 100.0
    assert times.of_first([]) is None


def test_a_store_that_counts_from_an_earlier_number_starts_anew():
    clock = Clock()
    times = AcceptTimes(lambda: None, clock)
    times.mark(50)
    clock.now = 200.0
    times.mark(3)
    assert (times.of_number(3), times.of_number(50)) == (200.0, 200.0)


@pytest.mark.parametrize("seed", range(5))
def test_marks_are_bounded_and_as_exact_as_promised(seed):
    """Sends of an outage, none of which leaves: the marks become rarer, and each send seems a little older at most."""
    chance, clock = random.Random(seed), Clock()
    times = AcceptTimes(lambda: 1, clock)
    accepted, marked_at = [], float("-inf")
    for number in range(1, 20_000):
        clock.now += chance.random() * 0.05
        if clock.now - marked_at >= times.interval:
            times.mark(number)
            marked_at = clock.now
        accepted.append(clock.now)
        assert len(times._numbers) <= MARKS
    assert times.interval < (clock.now - 100.0) / MARKS * 4
    for number, moment in enumerate(accepted, 1):
        assert moment - 2 * times.interval <= times.of_number(number) <= moment


def test_marks_before_the_oldest_send_are_forgotten():
    clock, oldest = Clock(), [1]
    times = AcceptTimes(lambda: oldest[0], clock)
    for number in range(1, 2 * MARKS):
        clock.now += MARK_SECONDS
        oldest[0] = number - 3
        times.mark(number)
    assert times.interval == MARK_SECONDS
    assert times.of_number(number - 3) == pytest.approx(clock.now - 3 * MARK_SECONDS)
    oldest[0] = None
    for later in range(number + 1, number + 2 * MARKS):
        times.mark(later)
    assert len(times._numbers) <= MARKS
