"""Rate limits as SDK 1.x shows them to programs.

The client's own limits (service/delivery/admission.py) decide when something is published. The objects here describe limits, and
count for programs that use them on their own.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from tb_mqtt_client.one_x import settings

CLOUD_MESSAGES = "10:1,60:60"
CLOUD_DATAPOINTS = "10:1,300:60"
DEFAULTS = {
    "DEFAULT_MESSAGES_RATE_LIMIT": CLOUD_MESSAGES,
    "DEFAULT_TELEMETRY_RATE_LIMIT": CLOUD_MESSAGES,
    "DEFAULT_TELEMETRY_DP_RATE_LIMIT": CLOUD_DATAPOINTS,
}
"""Words that stand for the limits of ThingsBoard Cloud on its hosts, and for no limit on others."""


def parse_windows(text: str) -> dict[int, int]:
    """Return the number of each window of a limit such as ``"100:1,3000:60"``, by its seconds.

    Args:
        text: Windows of ``count:seconds``, separated by commas or semicolons. Windows of zero do not limit; those that cannot be
            read are logged and left out.
    """
    windows: dict[int, int] = {}
    for window in re.split("[,;]", re.sub(r"\s", "", text)):
        match = re.fullmatch(r"(\d+):(\d+)", window)
        if match is None:
            if window:
                settings.log.error("The window %r of the rate limit %r is left out: it must be count:seconds", window, text)
            continue
        count, seconds = int(match[1]), int(match[2])
        if count and seconds:
            windows[seconds] = count
    return windows


class GreedyTokenBucket:
    """A number of tokens that is refilled continuously."""

    def __init__(self, capacity: float, duration_sec: float) -> None:
        """Start with a full bucket.

        Args:
            capacity: The largest number of tokens.
            duration_sec: Seconds in which an empty bucket is refilled.
        """
        self.capacity: float = float(capacity)
        self.duration: float = float(duration_sec)
        self.tokens: float = float(capacity)
        self.last_updated: float = time.monotonic()

    def refill(self) -> None:
        """Add the tokens of the time since the last refill."""
        now = time.monotonic()
        gained = (now - self.last_updated) * self.capacity / self.duration
        self.tokens = min(self.capacity, self.tokens + gained)
        self.last_updated = now

    def can_consume(self, amount: float = 1) -> bool:
        """Return whether there are enough tokens now."""
        self.refill()
        return self.tokens >= amount

    def consume(self, amount: float = 1) -> bool:
        """Take tokens if there are enough; return whether there were."""
        if not self.can_consume(amount):
            return False
        self.tokens -= amount
        return True

    def get_remaining_tokens(self) -> float:
        """Return the number of tokens now."""
        self.refill()
        return self.tokens


class RateLimit:
    """The windows of one rate limit."""

    def __init__(
        self,
        rate_limit: str | Mapping[str, Any],
        name: str | None = None,
        percentage: int = settings.DEFAULT_RATE_LIMIT_PERCENTAGE,
    ) -> None:
        """Create a limit with full windows.

        Args:
            rate_limit: ``"count:seconds,count:seconds"``; an empty text or ``"0:0"`` for no limit. Or what ``__dict__`` of another
                limit has.
            name: A name for log lines.
            percentage: The share of the limit that is used; at least 1 per window.
        """
        self._lock = threading.RLock()
        self._rate_buckets: dict[int, GreedyTokenBucket] = {}
        self._no_limit = False
        self.name: Any = name
        self.percentage: Any = percentage
        self._windows_reached = 0
        if isinstance(rate_limit, Mapping):
            self._restore(rate_limit)
        else:
            self.set_limit(rate_limit, percentage)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.name = state.get("name", self.name)
        self.percentage = state.get("percentage", self.percentage)
        self._no_limit = bool(state.get("no_limit", False))
        for seconds, one in state.get("rateLimits", {}).items():
            bucket = GreedyTokenBucket(one["capacity"], float(seconds))
            bucket.tokens = min(bucket.capacity, float(one.get("tokens", bucket.capacity)))
            bucket.last_updated = float(one.get("last_updated", bucket.last_updated))
            self._rate_buckets[int(seconds)] = bucket

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # SDK 1.x shows the limit as its attributes
        """The limit as JSON values, which the constructor accepts."""
        with self._lock:
            return {
                "rateLimits": {
                    str(seconds): {
                        "capacity": bucket.capacity,
                        "tokens": bucket.get_remaining_tokens(),
                        "last_updated": bucket.last_updated,
                    }
                    for seconds, bucket in self._rate_buckets.items()
                },
                "name": self.name,
                "percentage": self.percentage,
                "no_limit": self._no_limit,
            }

    def set_limit(self, rate_limit: str, percentage: int = settings.DEFAULT_RATE_LIMIT_PERCENTAGE) -> None:
        """Replace the windows. What was used of a window of the same length stays used.

        Args:
            rate_limit: As for the constructor.
            percentage: As for the constructor.
        """
        windows = parse_windows(rate_limit)
        with self._lock:
            used = {seconds: one.capacity - one.get_remaining_tokens() for seconds, one in self._rate_buckets.items()}
            self.percentage = percentage
            self._rate_buckets = {}
            for seconds, count in sorted(windows.items()):
                # SDK 1.x rounded down to 0, and such a window never let anything through.
                bucket = GreedyTokenBucket(max(1, count * percentage // 100), seconds)
                bucket.tokens = max(0.0, bucket.capacity - used.get(seconds, 0.0))
                self._rate_buckets[seconds] = bucket
            self._no_limit = not self._rate_buckets

    @property
    def _minimal_limit(self) -> float:
        return min((bucket.capacity for bucket in self._rate_buckets.values()), default=math.inf)

    @property
    def _minimal_timeout(self) -> float:
        return min((seconds + 1 for seconds in self._rate_buckets), default=settings.DEFAULT_TIMEOUT)

    def has_limit(self) -> bool:
        """Return whether there is a window."""
        return bool(self._rate_buckets)

    def get_minimal_limit(self) -> int:
        """Return the number of the smallest window; 0 without a limit."""
        return int(self._minimal_limit) if self._rate_buckets else 0

    def get_minimal_timeout(self) -> float:
        """Return the seconds after which the shortest window is full again; the default timeout without a limit."""
        return self._minimal_timeout

    def increase_rate_limit_counter(self, amount: int = 1) -> None:
        """Count messages or datapoints in all windows."""
        with self._lock:
            for bucket in self._rate_buckets.values():
                bucket.refill()
                bucket.tokens = max(0.0, bucket.tokens - amount)

    def check_limit_reached(self, amount: int = 1) -> tuple[float, float] | bool:
        """Return whether a limit prevents sending now.

        Args:
            amount: The number of messages or datapoints.

        Returns:
            False, or number and seconds of the first window that is used up.
        """
        with self._lock:
            for seconds, bucket in self._rate_buckets.items():
                if not bucket.can_consume(amount):
                    return bucket.capacity, seconds
        return False

    def reach_limit(self) -> tuple[int, float]:
        """Use up a window, because the server reported that a limit is reached: first the shortest, then the next one.

        Returns:
            The place of the next window, and the current monotonic time in seconds.
        """
        with self._lock:
            buckets = list(self._rate_buckets.values())
            if buckets:
                bucket = buckets[self._windows_reached % len(buckets)]
                bucket.refill()
                bucket.tokens = 0.0
                self._windows_reached = (self._windows_reached + 1) % len(buckets)
        return self._windows_reached, time.monotonic()

    @staticmethod
    def get_rate_limits_by_host(host: str, rate_limit: str, dp_rate_limit: str) -> tuple[str, str]:
        """Return the limits of messages and of datapoints for a host, see ``get_rate_limit_by_host``."""
        return RateLimit.get_rate_limit_by_host(host, rate_limit), RateLimit.get_dp_rate_limit_by_host(host, dp_rate_limit)

    @staticmethod
    def get_rate_limit_by_host(host: str, rate_limit: str) -> str:
        """Return a limit of messages, with the value of a default for a host in its place.

        Args:
            host: The name of the server.
            rate_limit: Windows, or one of the words that begin with ``DEFAULT_``.
        """
        default = DEFAULTS.get(rate_limit)
        return rate_limit if default is None else default if _is_cloud(host) else "0:0"

    @staticmethod
    def get_dp_rate_limit_by_host(host: str, dp_rate_limit: str) -> str:
        """Return a limit of datapoints, as ``get_rate_limit_by_host`` returns one of messages."""
        return RateLimit.get_rate_limit_by_host(host, dp_rate_limit)


def _is_cloud(host: str) -> bool:
    return "thingsboard.cloud" in host or "demo.thingsboard.io" in host or ("tb" in host and "cloud" in host)
