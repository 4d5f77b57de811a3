"""One rate limit of the platform: ``"100:1,3000:60"`` is 100 a second and 3000 a minute.

The road takes tokens of several limits at once (``take_all`` on ``RateLimit.buckets``). The coroutines of ``RateLimit`` and
``GreedyTokenBucket`` are for programs that limit something of their own; they act on the same tokens.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Literal

from tb_mqtt_client._native import TokenBuckets
from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)

DEFAULT_RATE_LIMIT_PERCENTAGE = 80
"""How much of the server's limits is used: room for what the server counts and the client cannot see."""
DEFAULT_TIMEOUT = 5
"""Seconds: the upper bound of ``RateLimit.minimal_timeout``."""

MAX_TOKENS = 2**63 - 1
"""The largest count of a window that can be kept."""
MAX_SECONDS = 500 * 365 * 86400
"""The longest duration of a window that can be kept: the native core counts nanoseconds in 64 bits."""

Clock = Callable[[], int]
"""Monotonic nanoseconds."""
Windows = list[tuple[int, float]]


def split_windows(text: str) -> list[str]:
    """Return the windows of a limit: ``"100:1,3000:60"`` has two. The platform separates them with commas."""
    return [window for window in re.split(r"[,;]", text) if window]


def parse_window(text: str) -> tuple[int, int]:
    """Return the count and the seconds of one window. Raise ``ValueError`` for any other text, and for numbers beyond all sense."""
    limit, seconds = (int(part) for part in text.split(":"))
    if limit > MAX_TOKENS or seconds > MAX_SECONDS:
        raise ValueError(f"a window has at most {MAX_TOKENS} tokens in {MAX_SECONDS} s, not {text}")
    return limit, seconds


def parse_windows(text: str | None, percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE) -> Windows:
    """``(capacity, seconds)`` of each window, scaled and at least 1. Nothing, or ``"0:0"``, is no limit.

    A malformed window is skipped with a warning; of two windows of one duration the last counts.
    """
    windows: dict[float, int] = {}
    for window in split_windows(text or ""):
        try:
            limit, seconds = parse_window(window)
        except ValueError:
            logger.warning("Invalid rate limit format: %r, expected limit:seconds", window)
            continue
        if limit > 0 and seconds > 0:
            windows[float(seconds)] = max(1, limit * percentage // 100)
    return [(capacity, seconds) for seconds, capacity in windows.items()]


class GreedyTokenBucket:
    """One window on its own. It starts full and refills continuously."""

    def __init__(self, capacity: float, duration_sec: float, *, clock: Clock = time.monotonic_ns) -> None:
        """``capacity`` whole tokens are refilled in ``duration_sec`` seconds.

        Raises ``ValueError`` for a capacity below 1 or a duration that is not a positive number.
        """
        self.capacity = float(capacity)
        self.duration = float(duration_sec)
        self._clock = clock
        self._last_updated_ns = clock()
        self._buckets = TokenBuckets([(int(capacity), self.duration)], self._last_updated_ns)

    @property
    def tokens(self) -> float:
        """Tokens at ``last_updated``."""
        return self._buckets.tokens(self._last_updated_ns)[0]

    @tokens.setter
    def tokens(self, tokens: float) -> None:
        """Set the number of tokens, at most the capacity. Raises ``ValueError`` for anything but a number of at least 0."""
        if not tokens >= 0:
            raise ValueError(f"tokens must be a number from 0 to {self.capacity}, not {tokens!r}")
        self.refill()
        # A bucket that was empty so long ago has as many now.
        emptied = self._last_updated_ns - round(min(tokens / self.capacity, 1) * self.duration * 1e9)
        self._buckets = TokenBuckets([(int(self.capacity), self.duration)], emptied)
        self._buckets.spend(int(self.capacity), emptied)

    @property
    def last_updated(self) -> float:
        """Monotonic seconds of the last refill."""
        return self._last_updated_ns / 1e9

    def refill(self) -> None:
        """Add what has come since the last refill."""
        self._last_updated_ns = self._clock()

    def can_consume(self, amount: int = 1) -> bool:
        """Whether there are ``amount`` tokens."""
        return self.get_remaining_tokens() >= amount

    def consume(self, amount: int = 1) -> bool:
        """Take ``amount`` tokens, if there are as many."""
        if not self.can_consume(amount):
            return False
        return self._buckets.take(amount, self._last_updated_ns) is None

    def get_remaining_tokens(self) -> float:
        """Tokens of now."""
        self.refill()
        return self.tokens


class RateLimit:
    """All windows of one limit."""

    def __init__(
        self,
        rate_limit: str | None,
        name: str | None = None,
        percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE,
        *,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        """``rate_limit`` as the platform writes it; ``percentage`` of it is used, at least 1 in each window."""
        self.name = name
        self.percentage = percentage
        self.required_tokens_ready = asyncio.Event()
        """Set by a ``refill`` that finds the tokens asked for with ``set_required_tokens``."""
        self._required: tuple[float, float] | None = None
        self._clock = clock
        self._last_updated_ns = clock()
        self.buckets = TokenBuckets(parse_windows(rate_limit, percentage), self._last_updated_ns)

    def has_limit(self) -> bool:
        """Whether there is a window."""
        return bool(self.buckets.windows)

    @property
    def minimal_limit(self) -> int:
        """The smallest capacity: the most that can be taken at once. 0 without a limit."""
        return self.buckets.smallest_capacity

    @property
    def minimal_timeout(self) -> float:
        """Seconds after which the shortest window is full again, at most 5. 0 without a limit."""
        return min([DEFAULT_TIMEOUT, *(seconds + 1 for _, seconds in self.buckets.windows)]) if self.has_limit() else 0

    async def try_consume(self, amount: int = 1) -> tuple[int, float] | None:
        """Take ``amount`` tokens from all windows, or none: then ``(capacity, seconds)`` of the first that lacks them."""
        reached = self._first_reached(amount)
        if reached is None:
            self.buckets.spend(amount, self._last_updated_ns)
        return reached

    async def consume(self, amount: int = 1) -> None:
        """Take ``amount`` tokens from each window that has as many."""
        self._refill()
        for index, tokens in enumerate(self.buckets.tokens(self._last_updated_ns)):
            if tokens >= amount:
                self.buckets.spend(amount, self._last_updated_ns, index)

    async def check_limit_reached(self, amount: int = 1) -> tuple[int, float] | Literal[False]:
        """``(capacity, seconds)`` of the first window with fewer than ``amount`` tokens, or ``False``."""
        return self._first_reached(amount) or False

    async def refill(self) -> None:
        """Add what has come since the last refill."""
        self._refill()

    async def reach_limit(self) -> tuple[int, float, float] | None:
        """Empty the shortest window that is not empty: its index, monotonic seconds of now, and its duration."""
        self._refill()
        windows, levels = self.buckets.windows, self.buckets.tokens(self._last_updated_ns)
        by_duration = sorted(range(len(windows)), key=lambda index: windows[index][1])
        filled = [index for index in by_duration if levels[index] > 0] or by_duration
        if not filled:
            return None
        capacity, seconds = windows[filled[0]]
        self.buckets.spend(capacity, self._last_updated_ns, filled[0])
        return filled[0], self._last_updated_ns / 1e9, seconds

    async def set_limit(self, rate_limit: str | None, percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE) -> None:
        """Replace the windows; what was spent stays spent."""
        self.set_windows_of(rate_limit, percentage)

    def set_windows_of(self, rate_limit: str | None, percentage: int) -> None:
        """Replace the windows; what was spent stays spent."""
        self.percentage = percentage
        self._last_updated_ns = self._clock()
        self.buckets.set_windows(parse_windows(rate_limit, percentage), self._last_updated_ns)

    def spend(self, amount: int) -> None:
        """Take up to ``amount`` from each window, for what the server counted without being asked."""
        self.buckets.spend(amount, self._clock())

    def set_required_tokens(self, duration: float, expected_tokens: float) -> None:
        """Ask for ``required_tokens_ready`` to be set when the window of ``duration`` seconds has so many tokens."""
        self.required_tokens_ready.clear()
        self._required = (float(duration), expected_tokens)

    def clear_required_tokens_event(self) -> None:
        """Forget what ``set_required_tokens`` asked for."""
        self._required = None
        self.required_tokens_ready.clear()

    def to_dict(self) -> dict[str, Any]:
        """State of all windows, by their seconds."""
        levels = self.buckets.tokens(self._last_updated_ns)
        return {
            "name": self.name,
            "percentage": self.percentage,
            "no_limit": not self.has_limit(),
            "rateLimits": {
                str(int(seconds)): {"capacity": capacity, "tokens": tokens, "last_updated": self._last_updated_ns / 1e9}
                for (capacity, seconds), tokens in zip(self.buckets.windows, levels, strict=True)
            },
        }

    def _first_reached(self, amount: int) -> tuple[int, float] | None:
        self._refill()
        levels = self.buckets.tokens(self._last_updated_ns)
        windows = zip(self.buckets.windows, levels, strict=True)
        return next((window for window, tokens in windows if tokens < amount), None)

    def _refill(self) -> None:
        self._last_updated_ns = self._clock()
        if self._required is None:
            return
        duration, expected = self._required
        levels = self.buckets.tokens(self._last_updated_ns)
        windows = zip(self.buckets.windows, levels, strict=True)
        if any(seconds == duration and tokens >= expected for (_, seconds), tokens in windows):
            self.required_tokens_ready.set()


EMPTY_RATE_LIMIT = RateLimit("0:0", "no limit")
"""Admits everything."""
