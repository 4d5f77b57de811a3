"""A pause of all publishing, after the server refused a message for a quota or failed to take it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_DELAY = 1.0
"""Seconds of the first pause. The platform's shortest window is a second long: after that it accepts messages again."""
LONGEST_DELAY = 60.0
"""Seconds of the longest pause, unless the first one is longer."""
UNKNOWN_LIMIT = "one that the server did not announce, such as the tenant's"
"""In place of a limit's name."""
NO_LIMIT = "none: its message queue or its database may be away"
"""In place of a limit's name, after a failure of the server."""


def _ignore(_seconds: float, _cause: str, _limit: str) -> None: ...


class BackpressureController:
    """Pauses that double while the server refuses all messages.

    The learned limits decide how fast publishing continues afterwards. A pause is for quotas for which no rate is slow enough,
    because they are used up for hours, such as the API usage of a tenant, and for failures of the server.
    """

    def __init__(
        self,
        *,
        delay: float = DEFAULT_DELAY,
        on_pause: Callable[[float, str, str], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a controller that does not pause.

        Args:
            delay: Seconds of the first pause.
            on_pause: Called with the seconds of a pause that begins or becomes longer, its cause, and the limit.
            clock: Returns monotonic seconds.
        """
        self._delay = delay
        self._on_pause = on_pause
        self._clock = clock
        self._until = 0.0
        self._events = 0
        self.has_paused: bool = False
        """Whether there was a pause since `clear`: without one there is nothing to wait for."""
        self.pauses: int = 0
        """The number of pauses that began or became longer."""
        # Each of a hundred messages in flight may be refused.
        self._pauses_log = OccasionalLog(logger, clock=clock)

    def notify_quota_exceeded(self, delay_seconds: float | None = None, limit: str = UNKNOWN_LIMIT) -> None:
        """Pause, because the server refused a message for its quota.

        Args:
            delay_seconds: The length of this pause, in place of the growing one.
            limit: The limit that was probably exceeded.
        """
        self._pause(delay_seconds, "the server refused a message for its quota", limit)

    def notify_disconnect(self, delay_seconds: float | None = None, limit: str = UNKNOWN_LIMIT) -> None:
        """Pause, because the server ended the connection for its limits.

        Args:
            delay_seconds: The length of this pause, in place of the growing one.
            limit: The limit that was probably exceeded.
        """
        self._pause(delay_seconds, "the server ended the connection for a limit", limit)

    def notify_failure(self) -> None:
        """Pause, because the server failed while it processed a message."""
        self._pause(None, "the server failed to take a message", NO_LIMIT)

    def notify_acknowledged(self) -> None:
        """Start over with the length of the first pause: the server accepts messages."""
        self._events = 0

    def should_pause(self) -> bool:
        """Return whether publishing pauses now."""
        return self.remaining() > 0

    def remaining(self) -> float:
        """Return the seconds until publishing continues."""
        return max(0.0, self._until - self._clock())

    def clear(self) -> None:
        """End the pause, and forget earlier refusals."""
        self._until = 0.0
        self._events = 0
        self.has_paused = False

    def _pause(self, delay_seconds: float | None, cause: str, limit: str) -> None:
        if delay_seconds is None:
            if self.should_pause():
                # One shortage: a refusal may come with a notice for each device, and with the end of the connection.
                return
            delay_seconds = min(max(LONGEST_DELAY, self._delay), self._delay * 2.0 ** min(self._events, 32))
        self._events += 1
        until = self._clock() + delay_seconds
        if until > self._until:
            self._until = until
            self.has_paused = True
            self.pauses += 1
            self._pauses_log.warn_of(cause, "Publishing pauses for %g s: %s", delay_seconds, cause)
            self._on_pause(delay_seconds, cause, limit)
