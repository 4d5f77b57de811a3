"""One rate limit of the platform: ``"100:1,3000:60"`` is 100 a second and 3000 a minute."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tb_mqtt_client._native import TokenBuckets
from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)

DEFAULT_RATE_LIMIT_PERCENTAGE = 80
"""How much of the server's limits is used: room for what the server counts and the client cannot see."""

Windows = list[tuple[int, float]]


def parse_windows(text: str | None, percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE) -> Windows:
    """``(capacity, seconds)`` of each window, scaled and at least 1. Nothing, or ``"0:0"``, is no limit.

    A malformed window is skipped with a warning; of two windows of one duration the last counts.
    """
    windows: dict[float, int] = {}
    for window in filter(None, re.split(r"[,;]", text or "")):
        try:
            limit, seconds = (int(part) for part in window.split(":"))
        except ValueError:
            logger.warning("Invalid rate limit format: %r, expected limit:seconds", window)
            continue
        if limit > 0 and seconds > 0:
            windows[float(seconds)] = max(1, limit * percentage // 100)
    return [(capacity, seconds) for seconds, capacity in windows.items()]


class RateLimit:
    """All windows of one limit."""

    def __init__(
        self,
        rate_limit: str | None,
        name: str | None = None,
        percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.percentage = percentage
        self._clock = clock
        self.buckets = TokenBuckets(parse_windows(rate_limit, percentage), clock())

    def has_limit(self) -> bool:
        """Whether there is a window."""
        return bool(self.buckets.windows)

    @property
    def minimal_limit(self) -> int:
        """The smallest capacity: the most that can be taken at once. 0 without a limit."""
        return self.buckets.smallest_capacity

    def set_windows_of(self, rate_limit: str | None, percentage: int) -> None:
        """Replace the windows; what was spent stays spent."""
        self.percentage = percentage
        self.buckets.set_windows(parse_windows(rate_limit, percentage), self._clock())

    def spend(self, amount: int) -> None:
        """Take up to ``amount`` from each window, for what the server counted without being asked."""
        self.buckets.spend(amount, self._clock())
