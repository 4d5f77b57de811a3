"""The terms of a send: the lane in which it waits, and when it expires. Sends without any have no object for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from tb_mqtt_client.constants.option_values import Priority

NORMAL: Final = Priority.NORMAL
"""The priority of most sends: a global name takes less time than a member of the enum."""
NANOSECONDS: Final = 1_000_000_000
_NANOSECONDS_OF_A_MILLISECOND: Final = 1_000_000


class Lane(IntEnum):
    """A lane of a queue for sends. When a full queue has to drop sends, those of the highest number are dropped first."""

    HIGH = 0
    NORMAL = 1
    BACKLOG = 2
    """Sends that were read back from a store: older than those of the other lanes."""
    LOW = 3


class SendTerms:
    """The terms of one send, or of all sends with the same priority that do not expire."""

    __slots__ = ("_is_over", "accepted_ms", "expires_at", "is_urgent", "lane")

    def __init__(self, lane: Lane, expires_at: int = 0, accepted_ms: int = 0, *, is_urgent: bool = False) -> None:
        """Keep the terms.

        Args:
            lane: The lane.
            expires_at: Nanoseconds of the client's monotonic clock at which the send expires; 0 for never.
            accepted_ms: When a send of the backlog was accepted, in milliseconds since the epoch; 0 if that is not known.
            is_urgent: Whether a send of the backlog goes before the others of the backlog.
        """
        self.lane: Lane = lane
        self.expires_at: int = expires_at
        self.accepted_ms: int = accepted_ms
        self.is_urgent: bool = is_urgent
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the outcome of the send is decided, so that it must not be packed."""
        return self._is_over

    def end(self) -> bool:
        """Note that the send is packed or resolved; return False if it was before.

        Only a send that expires can be resolved while it still is in a queue.
        """
        if not self.expires_at:
            return True
        if self._is_over:
            return False
        self._is_over = True
        return True

    @property
    def stored_priority(self) -> int:
        """The priority as a store writes it: 0 normal, 1 high, 2 low."""
        return _STORED.get(self.lane, 0)

    def has_expired(self, now: int) -> bool:
        """Return whether the send is expired at a time of the client's monotonic clock."""
        return 0 < self.expires_at <= now

    def behind_backlog(self) -> SendTerms:
        """Return the terms with which the send waits behind the backlog."""
        if not self.expires_at:
            # These terms may be those of other sends, too.
            return BACKLOG_TERMS
        self.lane = Lane.BACKLOG
        return self

    def expires_ms(self, now: int, now_ms: int) -> int:
        """Return when the send expires, in milliseconds since the epoch; 0 for never.

        Args:
            now: The time of the client's monotonic clock, in nanoseconds.
            now_ms: The same time in milliseconds since the epoch.
        """
        return now_ms + (self.expires_at - now) // _NANOSECONDS_OF_A_MILLISECOND if self.expires_at else 0


HIGH_TERMS: Final = SendTerms(Lane.HIGH)
LOW_TERMS: Final = SendTerms(Lane.LOW)
BACKLOG_TERMS: Final = SendTerms(Lane.BACKLOG)
_LANES: Final = {Priority.HIGH: Lane.HIGH, Priority.NORMAL: Lane.NORMAL, Priority.LOW: Lane.LOW}
_STORED: Final = {Lane.HIGH: 1, Lane.LOW: 2}
_SHARED: Final = {Priority.HIGH: HIGH_TERMS, Priority.NORMAL: None, Priority.LOW: LOW_TERMS}


def send_terms(priority: Any, expires_after: Any, clock: Callable[[], int]) -> SendTerms | None:
    """Return the terms that a caller of a ``send_...`` method asks for; ``None`` for a send of normal priority that never expires.

    Args:
        priority: A `Priority` or its value.
        expires_after: Seconds; ``None`` for never.
        clock: Returns monotonic nanoseconds.

    Raises:
        TypeError: ``expires_after`` is not a number.
        ValueError: ``priority`` is not one of the priorities, or ``expires_after`` is not a positive, finite number.
    """
    try:
        known = Priority(priority)
    except ValueError:
        raise ValueError(f"priority must be one of {', '.join(Priority)}, not {priority!r}") from None
    if expires_after is None:
        return _SHARED[known]
    if not isinstance(expires_after, int | float) or isinstance(expires_after, bool):
        raise TypeError(f"expires_after must be a number of seconds or None, not {expires_after!r}")
    if not 0 < expires_after < math.inf:
        raise ValueError(f"expires_after must be a positive number of seconds, not {expires_after!r}")
    return SendTerms(_LANES[known], clock() + max(1, int(expires_after * NANOSECONDS)))


def backlog_terms(accepted_ms: int, expires_ms: int, now: int, now_ms: int, *, is_urgent: bool = False) -> SendTerms:
    """Return the terms of a send that was read back from a store.

    Args:
        accepted_ms: When the send was accepted, in milliseconds since the epoch.
        expires_ms: When it expires, in milliseconds since the epoch; 0 for never.
        now: The time of the client's monotonic clock, in nanoseconds.
        now_ms: The same time in milliseconds since the epoch.
        is_urgent: Whether it goes before the others of the backlog.
    """
    # A send that expired long ago has a time that the monotonic clock may never have shown.
    expires_at = max(1, now + (expires_ms - now_ms) * _NANOSECONDS_OF_A_MILLISECOND) if expires_ms else 0
    return SendTerms(Lane.BACKLOG, expires_at, accepted_ms, is_urgent=is_urgent)
