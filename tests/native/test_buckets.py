"""Over any span of time no bucket admits more than its capacity and its refill; tokens are taken from all windows or from none."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from tb_mqtt_client import _native

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", [_native, reference], ids=["native", "reference"])
SECOND = 10**9
windows = st.lists(
    st.tuples(st.integers(1, 2**31 - 1) | st.integers(1, 20), st.sampled_from([0.001, 0.3, 1.0, 60.0, 3600.0, 31_536_000.0])),
    max_size=3,
    unique_by=lambda window: window[1],
)
steps = st.lists(st.tuples(st.integers(-SECOND, 100 * SECOND), st.integers(0, 30), st.sampled_from(["take", "spend"])), max_size=30)


@given(windows, windows, steps)
def test_same_results_as_the_reference(first, second, operations):
    """Every take, spend and replacement of windows has the result of exact fractions."""
    native, exact = _native.TokenBuckets(first, 0), reference.TokenBuckets(first, 0)
    now = 0
    for number, (elapsed, wanted, operation) in enumerate(operations):
        now += elapsed
        amount = min(wanted, native.smallest_capacity or wanted)
        assert getattr(native, operation)(amount, now) == getattr(exact, operation)(amount, now)
        if number == 10:
            native.set_windows(second, now)
            exact.set_windows(second, now)
        assert native.tokens(now) == pytest.approx(exact.tokens(now))


@given(windows.filter(bool), st.lists(st.tuples(st.integers(0, 2 * SECOND), st.integers(1, 20)), max_size=40))
def test_never_more_than_capacity_and_refill(given_windows, takes):
    """Between any two admitted takes, the sum is at most the capacity plus the refill between them."""
    buckets = _native.TokenBuckets(given_windows, 0)
    now, admitted = 0, []
    for elapsed, amount in takes:
        now += elapsed
        if amount <= buckets.smallest_capacity and buckets.take(amount, now) is None:
            admitted.append((now, amount))
    for capacity, seconds in given_windows:
        nanos = round(seconds * SECOND)
        for first, (start, _) in enumerate(admitted):
            total = 0
            for end, amount in admitted[first:]:
                total += amount
                assert total * nanos <= capacity * (nanos + end - start)


@IMPLEMENTATIONS
@given(given_windows=windows.filter(bool), spent=st.integers(0, 2**31), share=st.floats(0, 1))
def test_a_wait_is_exact(implementation, given_windows, spent, share):
    """The take succeeds after the returned wait, and not a nanosecond earlier."""
    amount = max(1, int(share * min(capacity for capacity, _ in given_windows)))
    early, due = [implementation.TokenBuckets(given_windows, 0) for _ in range(2)]
    for buckets in (early, due):
        buckets.spend(spent, 0)
    wait = due.take(amount, 0)
    if wait is not None:
        nanos, capacity, seconds = wait
        assert (capacity, seconds) in given_windows
        early.take(amount, 0)
        assert early.take(amount, nanos - 1) is not None
        assert due.take(amount, nanos) is None


@given(windows.filter(bool))
def test_all_or_nothing(given_windows):
    """When one limit refuses, no limit loses tokens."""
    open_, empty = _native.TokenBuckets(given_windows, 0), _native.TokenBuckets([(5, 1.0)], 0)
    empty.spend(5, 0)
    before = open_.tokens(0)
    assert _native.take_all([(open_, 1), (empty, 1)], 0) == (SECOND // 5, 5, 1.0)
    assert open_.tokens(0) == before
    assert _native.take_all([(open_, 1), (empty, 1)], SECOND) is None
    assert open_.tokens(SECOND) < [tokens + 1 for tokens in before]


@IMPLEMENTATIONS
def test_no_window_means_no_limit(implementation):
    buckets = implementation.TokenBuckets([], 0)
    assert buckets.smallest_capacity == 0
    assert buckets.take(10**12, 0) is None


def test_refused_windows_and_takes():
    for wrong in ([(0, 1.0)], [(1, 0.0)], [(1, -1.0)], [(1, float("nan"))], [(1, float("inf"))]):
        with pytest.raises(ValueError, match="a window's"):
            _native.TokenBuckets(wrong, 0)
    buckets = _native.TokenBuckets([(5, 1.0)], 0)
    with pytest.raises(ValueError, match="amount must be at most 5"):
        buckets.take(6, 0)
    with pytest.raises((ValueError, OverflowError)):
        buckets.take(-1, 0)
    with pytest.raises(ValueError, match="each limit once"):
        _native.take_all([(buckets, 1), (buckets, 1)], 0)
    with pytest.raises(ValueError, match="a window's"):
        buckets.set_windows([(0, 1.0)], 0)
    assert buckets.tokens(0) == [5.0]


def test_threads_take_no_more_than_the_capacity():
    buckets = _native.TokenBuckets([(10_000, 1.0)], 0)
    taken = []

    def work():
        taken.append(sum(buckets.take(1, 0) is None for _ in range(5_000)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 10_000
