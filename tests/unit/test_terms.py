"""A send has terms only if its caller gave it a priority or a time."""

import math

import pytest

from tb_mqtt_client import Priority
from tb_mqtt_client.service.delivery.terms import HIGH_TERMS, LOW_TERMS, Lane, backlog_terms, send_terms

SECOND = 10**9


def at(seconds):
    return lambda: seconds * SECOND


def test_the_terms_of_a_priority_are_shared():
    assert send_terms("normal", None, at(1)) is None
    assert send_terms(Priority.HIGH, None, at(1)) is send_terms("high", None, at(2)) is HIGH_TERMS
    assert send_terms("low", None, at(1)) is LOW_TERMS


@pytest.mark.parametrize("priority", list(Priority))
def test_a_send_that_expires_has_terms_of_its_own(priority):
    first, second = (send_terms(priority, 1.5, at(3)) for _ in range(2))
    assert first is not second
    assert first.expires_at == 4.5 * SECOND
    assert first.lane.name == priority.name
    assert [first.has_expired(int(seconds * SECOND)) for seconds in (3, 4.4, 4.5, 5)] == [False, False, True, True]


@pytest.mark.parametrize("priority", ["urgent", "HIGH", 1, None, [], "normal "])
def test_an_unknown_priority_raises(priority):
    with pytest.raises(ValueError, match="priority must be one of high, normal, low, not "):
        send_terms(priority, None, at(0))


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, -math.inf])
def test_a_time_that_is_not_positive_raises(seconds):
    with pytest.raises(ValueError, match="expires_after must be a positive number of seconds, not "):
        send_terms("normal", seconds, at(0))


@pytest.mark.parametrize("seconds", ["60", True, [1]])
def test_a_time_that_is_no_number_raises(seconds):
    with pytest.raises(TypeError, match="expires_after must be a number of seconds or None, not "):
        send_terms("normal", seconds, at(0))


def test_terms_are_decided_once():
    terms = send_terms("normal", 1, at(0))
    assert [terms.is_over, terms.end(), terms.is_over, terms.end()] == [False, True, True, False]
    # Terms that sends share are never over.
    assert [HIGH_TERMS.end(), HIGH_TERMS.end(), HIGH_TERMS.is_over] == [True, True, False]


def test_terms_in_a_store_have_the_time_of_the_wall_clock():
    terms = send_terms("low", 90, at(100))
    assert terms.expires_ms(100 * SECOND, 1_700_000_000_000) == 1_700_000_090_000
    # In another process, 30 seconds later.
    again = backlog_terms(1_700_000_000_000, 1_700_000_090_000, 7 * SECOND, 1_700_000_030_000)
    assert (again.lane, again.expires_at, again.accepted_ms) == (Lane.BACKLOG, 67 * SECOND, 1_700_000_000_000)
    assert HIGH_TERMS.expires_ms(0, 1_700_000_000_000) == backlog_terms(5, 0, 7, 8).expires_at == 0
    long_ago = backlog_terms(5, 10, 7 * SECOND, 1_700_000_030_000)
    assert long_ago.has_expired(7 * SECOND)
