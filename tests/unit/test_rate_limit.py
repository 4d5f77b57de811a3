"""Limits in the platform's notation, on a clock of the test."""

import logging

import pytest

from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit, parse_windows
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter

SECOND = 10**9


class Clock:
    def __init__(self):
        self.now = 5 * SECOND

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += int(seconds * SECOND)


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("text", "percentage", "expected"),
    [
        ("10:1,300:60", 80, [(8, 1.0), (240, 60.0)]),
        ("10:1;300:60,", 100, [(10, 1.0), (300, 60.0)]),
        ("1:1", 80, [(1, 1.0)]),
        ("5:1,7:1", 100, [(7, 1.0)]),
        ("", 80, []),
        (None, 80, []),
        ("0:0", 80, []),
        ("0:0,", 80, []),
        ("10:0", 80, []),
    ],
)
def test_defect_33_contract_9_windows_are_at_least_one(text, percentage, expected):
    assert parse_windows(text, percentage) == expected


def test_a_malformed_window_is_skipped_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert parse_windows("ten:1,5:1:2,3:2", 100) == [(3, 2.0)]
    assert [record.getMessage().startswith("Invalid rate limit format") for record in caplog.records] == [True, True]


def test_new_windows_keep_spent_tokens_spent(clock):
    limit = RateLimit("10:1", percentage=100, clock=clock)
    limit.spend(6)
    limit.set_windows_of("20:1,50:60", 50)
    assert (limit.percentage, limit.buckets.tokens(clock.now)) == (50, [4.0, 25.0])
    limit.spend(100)
    assert limit.buckets.tokens(clock.now) == [0.0, 0.0]


def test_a_limiter_lists_its_limits():
    limits = [RateLimit("1:1"), RateLimit("2:1"), RateLimit("3:1")]
    assert RateLimiter(*limits).values() == limits


def test_spending_from_a_missing_window_raises(clock):
    with pytest.raises(IndexError, match="window must be less than 1"):
        RateLimit("1:1", clock=clock).buckets.spend(1, clock.now, 1)


def test_the_smallest_window_is_the_most_that_can_be_taken_at_once():
    assert RateLimit("30:10,2:1", percentage=100).minimal_limit == 2
    unlimited = RateLimit("0:0")
    assert (unlimited.has_limit(), unlimited.minimal_limit) == (False, 0)
