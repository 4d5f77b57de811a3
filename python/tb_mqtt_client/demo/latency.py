"""Times in bounded memory, however many there are."""

import math
from collections import Counter

# Each bucket is 1 % wide: that is how exact a percentile is.
_WIDTH = math.log(1.01)


class Latencies:
    """A histogram of durations in seconds with buckets that grow with the duration."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        # The clock's own resolution keeps the logarithm finite.
        self._buckets[round(math.log(max(seconds, 1e-9)) / _WIDTH)] += 1

    def percentile(self, percent: float) -> float | None:
        """Seconds within which `percent` of all were over; None when there were none."""
        rank = math.ceil(self._buckets.total() * percent / 100)
        reached = 0
        for bucket, count in sorted(self._buckets.items()):
            reached += count
            if reached >= rank:
                return math.exp(bucket * _WIDTH)
        return None
