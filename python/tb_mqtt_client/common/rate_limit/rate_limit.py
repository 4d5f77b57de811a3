"""One rate limit of the platform: ``"100:1,3000:60"`` is 100 a second and 3000 a minute.

Delivery takes tokens of several limits at once: ``take_all`` on ``RateLimit.buckets``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tb_mqtt_client._native import TokenBuckets
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_RATE_LIMIT_PERCENTAGE = 80
"""The percentage of the server's limits that is used. The rest is a reserve for traffic that the server counts, but not the
client."""

MAX_TOKENS = 2**63 - 1
"""The largest count of a window."""
MAX_SECONDS = 500 * 365 * 86400
"""The longest duration of a window: the native core counts nanoseconds in 64 bits."""

Clock = Callable[[], int]
"""Returns monotonic nanoseconds."""
Windows = list[tuple[int, float]]


def split_windows(text: str) -> list[str]:
    """Return the windows of a limit: ``"100:1,3000:60"`` has two. The platform separates them with commas."""
    return [window for window in re.split(r"[,;]", text) if window]


def parse_window(text: str) -> tuple[int, int]:
    """Return the count and the seconds of one window.

    Raises:
        ValueError: The text is not a window, or a number exceeds `MAX_TOKENS` or `MAX_SECONDS`.
    """
    limit, seconds = (int(part) for part in text.split(":"))
    if limit > MAX_TOKENS or seconds > MAX_SECONDS:
        raise ValueError(f"a window has at most {MAX_TOKENS} tokens in {MAX_SECONDS} s, not {text}")
    return limit, seconds


def parse_windows(text: str | None, percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE) -> Windows:
    """Parse the windows of a limit.

    A malformed window is skipped with a warning. Of two windows with the same duration, the last one is used.

    Args:
        text: The windows, as the platform writes them. An empty text and ``"0:0"`` have none.
        percentage: The percentage of each window that is used.

    Returns:
        The capacity in tokens, which is at least 1, and the seconds of each window.
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


class RateLimit:
    """The token buckets of all windows of one limit."""

    def __init__(
        self,
        rate_limit: str | None,
        name: str | None = None,
        percentage: int = DEFAULT_RATE_LIMIT_PERCENTAGE,
        *,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        """Create a limit whose windows are full of tokens.

        Args:
            rate_limit: The windows, as the platform writes them.
            name: The name of the limit, for the log.
            percentage: The percentage of each window that is used; at least one token.
            clock: Returns monotonic nanoseconds.
        """
        self.name = name
        self.percentage: int = percentage
        self._clock = clock
        self.buckets: TokenBuckets = TokenBuckets(parse_windows(rate_limit, percentage), clock())
        """The token buckets of all windows."""

    def has_limit(self) -> bool:
        """Return whether the limit has a window."""
        return bool(self.buckets.windows)

    @property
    def minimal_limit(self) -> int:
        """The smallest capacity of a window, which is the largest amount that can be taken at once; 0 without a window."""
        return self.buckets.smallest_capacity

    def set_windows_of(self, rate_limit: str | None, percentage: int) -> None:
        """Replace the windows. A new window with the duration of an old one starts without the tokens that were taken from that.

        Args:
            rate_limit: The windows, as the platform writes them.
            percentage: The percentage of each window that is used; at least one token.
        """
        self.percentage = percentage
        self.buckets.set_windows(parse_windows(rate_limit, percentage), self._clock())

    def spend(self, amount: int) -> None:
        """Take up to ``amount`` from each window, for messages that the server counts whether or not there are tokens."""
        self.buckets.spend(amount, self._clock())
