"""Token buckets with exact fractions."""

import math
from fractions import Fraction


class TokenBuckets:
    def __init__(self, windows, now_ns):
        self._windows = [(capacity, round(seconds * 10**9)) for capacity, seconds in windows]
        self._levels = [Fraction(capacity) for capacity, _ in self._windows]
        self._now = now_ns

    @property
    def smallest_capacity(self):
        return min((capacity for capacity, _ in self._windows), default=0)

    def tokens(self, now_ns):
        self._refill(now_ns)
        return [float(level) for level in self._levels]

    def wait(self, amount, now_ns):
        """Return nanoseconds and window of the longest wait, or ``None`` without a wait."""
        self._refill(now_ns)
        waits = []
        for (capacity, nanos), level in zip(self._windows, self._levels, strict=True):
            if amount > capacity:
                raise ValueError("amount")
            missing = max(Fraction(0), amount - level)
            waits.append((math.ceil(missing * nanos / capacity), capacity, nanos / 10**9))
        longest = max(waits, key=lambda wait: wait[0], default=(0, 0, 0))
        return longest if longest[0] else None

    def spend(self, amount, now_ns):
        self._refill(now_ns)
        self._levels = [max(Fraction(0), level - amount) for level in self._levels]

    def take(self, amount, now_ns):
        return take_all([(self, amount)], now_ns)

    def set_windows(self, windows, now_ns):
        self._refill(now_ns)
        spent = {nanos: capacity - level for (capacity, nanos), level in zip(self._windows, self._levels, strict=True)}
        self._windows = [(capacity, round(seconds * 10**9)) for capacity, seconds in windows]
        self._levels = [max(Fraction(0), capacity - spent.get(nanos, Fraction(0))) for capacity, nanos in self._windows]

    def _refill(self, now_ns):
        if now_ns <= self._now:
            return
        elapsed = now_ns - self._now
        self._now = now_ns
        self._levels = [
            min(Fraction(capacity), level + Fraction(elapsed * capacity, nanos))
            for (capacity, nanos), level in zip(self._windows, self._levels, strict=True)
        ]


def take_all(requests, now_ns):
    waits = [wait for buckets, amount in requests if (wait := buckets.wait(amount, now_ns)) is not None]
    if waits:
        return max(waits, key=lambda wait: wait[0])
    for buckets, amount in requests:
        buckets.spend(amount, now_ns)
    return None
