"""Drops sends that are on disk only when they expire or become too old: one timer for the first of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.store.log import DroppedSend, SendLog
from tb_mqtt_client.service.store.thread import StoreThread

logger: ExtendedLogger = get_logger(__name__)

FIRST_CREDIBLE_MS = 1_577_836_800_000
"""2020-01-01: a send that seems to be older was accepted before the clock was set, so its age is unknown."""
DROPPED_AT_ONCE = 5000
"""Sends that are dropped in one step. More would keep the event loop busy for too long."""
SPACING_SECONDS = 5.0
"""The shortest time between two searches: each reads the tables of the files that have due sends."""
MARGIN_SECONDS = 0.002
"""Seconds after the time of a send, so that a timer that is a little early finds it."""


def drop_due(log: SendLog, max_age: float | None) -> list[DroppedSend]:
    """Remove some of the sends that have expired or are too old from the log. Run in the thread of the store."""
    now = now_ms()
    too_old = (0, 0) if max_age is None else (FIRST_CREDIBLE_MS, max(FIRST_CREDIBLE_MS, now - int(max_age * 1000)))
    return log.drop_due(now, too_old, DROPPED_AT_ONCE)


class DueSends:
    """Waits until sends on disk expire or become too old."""

    def __init__(
        self,
        thread: StoreThread,
        log: SendLog,
        max_age: float | None,
        on_dropped: Callable[[list[DroppedSend]], None],
    ) -> None:
        """Create the timer of an open log.

        Args:
            thread: Where the log is used.
            log: The files.
            max_age: Seconds after which sends are too old; ``None`` for no limit.
            on_dropped: Called with sends that were removed.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._log = log
        self._max_age = max_age
        self._on_dropped = on_dropped
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: int | None = None
        self._not_before = 0.0
        self._searching: asyncio.Future[list[DroppedSend]] | None = None
        self._has_failed = False
        self._is_closed = False

    def arm(self) -> None:
        """Set the timer for the first send on disk that expires or becomes too old. Call this when there are others on disk."""
        if self._searching is not None or self._is_closed:
            return
        due = self._first_due_ms()
        if due == self._armed_for:
            return
        self._cancel()
        self._armed_for = due
        if due is not None:
            seconds = max((due - now_ms()) / 1000 + MARGIN_SECONDS, self._not_before - self._loop.time())
            self._timer = self._loop.call_later(max(0.0, seconds), self._search)

    def _first_due_ms(self) -> int | None:
        """Return when the next send is due, in milliseconds since the epoch, or a time before that."""
        log = self._log
        if not log.backlog_sends:
            return None
        due, oldest = log.backlog_expires_ms, log.backlog_oldest_ms
        if self._max_age is not None and oldest is not None and oldest >= FIRST_CREDIBLE_MS:
            too_old = oldest + int(self._max_age * 1000) + 1
            due = too_old if due is None else min(due, too_old)
        return due

    def _search(self) -> None:
        self._timer, self._armed_for = None, None
        self._searching = self._thread.run(partial(drop_due, self._log, self._max_age))
        self._searching.add_done_callback(self._found)

    def _found(self, searching: asyncio.Future[list[DroppedSend]]) -> None:
        self._searching = None
        error = searching.exception()
        dropped = searching.result() if error is None else []
        if error is not None and not self._has_failed:
            cause = None if isinstance(error, OSError) else error
            text = "Sends of the store that expire cannot be looked up (%s). The next attempt is in %g s"
            logger.error(text, error, SPACING_SECONDS, exc_info=cause)
        self._has_failed = error is not None
        self._not_before = 0.0 if len(dropped) == DROPPED_AT_ONCE else self._loop.time() + SPACING_SECONDS
        try:
            if dropped:
                self._on_dropped(dropped)
        finally:
            self.arm()

    def close(self) -> None:
        """Search no more."""
        self._is_closed = True
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
