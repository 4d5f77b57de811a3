"""The platform's limits in its own notation, and the published face of limits and buckets, on a clock of the test's."""

import logging

import pytest

from tb_mqtt_client.common.rate_limit.rate_limit import EMPTY_RATE_LIMIT, GreedyTokenBucket, RateLimit, parse_windows
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


async def test_all_windows_or_none(clock):
    limit = RateLimit("2:1,3:10", percentage=100, clock=clock)
    assert (limit.minimal_limit, limit.minimal_timeout, limit.has_limit()) == (2, 2, True)
    assert await limit.try_consume(2) is None
    assert await limit.try_consume() == (2, 1.0)
    clock.advance(1)
    assert await limit.check_limit_reached(2) == (3, 10.0)
    before = limit.buckets.tokens(clock.now)
    assert await limit.try_consume(2) == (3, 10.0)
    assert limit.buckets.tokens(clock.now) == before == [2.0, 1.3]
    assert await limit.check_limit_reached() is False


async def test_consume_takes_where_it_can(clock):
    limit = RateLimit("2:1,3:10", percentage=100, clock=clock)
    await limit.consume(3)
    assert limit.buckets.tokens(clock.now) == [2.0, 0.0]


async def test_defect_37_reach_limit_empties_the_shortest_window_first(clock):
    limit = RateLimit("30:10,2:1", percentage=100, clock=clock)
    assert await limit.reach_limit() == (1, clock.now / 1e9, 1.0)
    assert await limit.reach_limit() == (0, clock.now / 1e9, 10.0)
    assert limit.buckets.tokens(clock.now) == [0.0, 0.0]
    assert await EMPTY_RATE_LIMIT.reach_limit() is None


async def test_required_tokens(clock):
    limit = RateLimit("10:1", percentage=100, clock=clock)
    await limit.consume(10)
    limit.set_required_tokens(1, 5)
    clock.advance(0.4)
    await limit.refill()
    assert not limit.required_tokens_ready.is_set()
    clock.advance(0.1)
    await limit.refill()
    assert limit.required_tokens_ready.is_set()
    limit.clear_required_tokens_event()
    assert not limit.required_tokens_ready.is_set()


async def test_new_windows_remember_what_was_spent(clock):
    limit = RateLimit("10:1", percentage=100, clock=clock)
    await limit.consume(6)
    await limit.set_limit("20:1,50:60", 50)
    assert (limit.percentage, limit.buckets.tokens(clock.now)) == (50, [4.0, 25.0])
    limit.spend(100)
    assert limit.buckets.tokens(clock.now) == [0.0, 0.0]


def test_as_dict(clock):
    limit = RateLimit("10:1,100:60", "telemetry", clock=clock)
    limit.spend(2)
    assert limit.to_dict() == {
        "name": "telemetry",
        "percentage": 80,
        "no_limit": False,
        "rateLimits": {
            "1": {"capacity": 8, "tokens": 6.0, "last_updated": 5.0},
            "60": {"capacity": 80, "tokens": 78.0, "last_updated": 5.0},
        },
    }


async def test_no_limit_admits_everything():
    assert (EMPTY_RATE_LIMIT.has_limit(), EMPTY_RATE_LIMIT.minimal_limit, EMPTY_RATE_LIMIT.minimal_timeout) == (False, 0, 0)
    assert await EMPTY_RATE_LIMIT.try_consume(10**9) is None


def test_bucket(clock):
    bucket = GreedyTokenBucket(10, 2, clock=clock)
    assert (bucket.capacity, bucket.duration, bucket.tokens, bucket.last_updated) == (10.0, 2.0, 10.0, 5.0)
    assert bucket.consume(10)
    assert not bucket.consume()
    clock.advance(1)
    assert bucket.tokens == 0.0
    bucket.refill()
    assert (bucket.tokens, bucket.last_updated) == (5.0, 6.0)
    assert bucket.can_consume(5)
    assert not bucket.can_consume(6)
    assert not bucket.consume(11)
    clock.advance(100)
    assert bucket.get_remaining_tokens() == 10.0
    with pytest.raises(ValueError, match="capacity"):
        GreedyTokenBucket(0, 1)


def test_limiter_lists_its_limits():
    limits = [RateLimit("1:1"), RateLimit("2:1"), RateLimit("3:1")]
    assert RateLimiter(*limits).values() == limits


def test_spending_from_a_window_that_is_not_there(clock):
    with pytest.raises(IndexError, match="window must be less than 1"):
        RateLimit("1:1", clock=clock).buckets.spend(1, clock.now, 1)


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (1, 1), (2.5, 2.5), (10, 10), (50, 10)])
def test_the_tokens_of_a_bucket_can_be_set(clock, tokens, expected):
    """SDK 2.0 had a plain attribute. More than the capacity never fits in."""
    bucket = GreedyTokenBucket(10, 2, clock=clock)
    clock.now += 10**9
    bucket.consume(7)
    bucket.tokens = tokens
    assert bucket.tokens == bucket.get_remaining_tokens() == pytest.approx(expected)
    assert not bucket.can_consume(expected + 0.001)
    clock.now += 10**8
    assert bucket.get_remaining_tokens() == pytest.approx(min(expected + 0.5, 10))


@pytest.mark.parametrize("tokens", [-1, float("nan")])
def test_tokens_that_no_bucket_has_are_refused(clock, tokens):
    bucket = GreedyTokenBucket(10, 2, clock=clock)
    with pytest.raises(ValueError, match="tokens must be a number from 0 to"):
        bucket.tokens = tokens
    assert bucket.tokens == 10
