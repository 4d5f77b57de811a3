"""A pause of all publishing, after the server said that it was too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger

logger = get_logger(__name__)

DEFAULT_DELAY = 10.0
"""Seconds of the first pause."""
EVENTS_WINDOW = 60.0
"""Seconds in which an event counts for the length of the next pause."""
LARGEST_FACTOR = 10


class BackpressureController:
    """The pause doubles with each event within a minute of the last, up to tenfold."""

    def __init__(
        self,
        main_stop_event: asyncio.Event,
        *,
        delay: float = DEFAULT_DELAY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``delay``: seconds of the first pause. Nothing pauses once ``main_stop_event`` is set."""
        self._main_stop_event = main_stop_event
        self._delay = delay
        self._clock = clock
        self._until = 0.0
        self._last_event = float("-inf")
        self._events = 0
        self.pauses = 0
        """How often a pause began or grew."""
        # Each of a hundred messages in flight may be refused.
        self._pauses_log = OccasionalLog(logger, clock=clock)

    def notify_quota_exceeded(self, delay_seconds: float | None = None) -> None:
        """The server refused a message for its quota. ``delay_seconds``: this long, instead of the growing pause."""
        self._pause(delay_seconds, "the server refused a message for its quota")

    def notify_disconnect(self, delay_seconds: float | None = None) -> None:
        """The server ended the connection for its limits."""
        self._pause(delay_seconds, "the server ended the connection")

    def should_pause(self) -> bool:
        """Whether publishing pauses now."""
        return self.remaining() > 0

    def remaining(self) -> float:
        """Seconds until publishing goes on."""
        if self._main_stop_event.is_set():
            return 0.0
        return max(0.0, self._until - self._clock())

    def clear(self) -> None:
        """Go on at once, and forget earlier events."""
        self._until = 0.0
        self._last_event = float("-inf")
        self._events = 0

    def _pause(self, delay_seconds: float | None, cause: str) -> None:
        now = self._clock()
        self._events = self._events + 1 if now - self._last_event <= EVENTS_WINDOW else 1
        self._last_event = now
        if delay_seconds is None:
            delay_seconds = self._delay * min(LARGEST_FACTOR, 2 ** (self._events - 1))
        if now + delay_seconds > self._until:
            self._until = now + delay_seconds
            self.pauses += 1
            self._pauses_log.warn_of(cause, "Publishing pauses for %g s: %s", delay_seconds, cause)
