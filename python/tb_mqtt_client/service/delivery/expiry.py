"""Sends that expire: one timer for the earliest of them, so that callers learn of it without a connection."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

from tb_mqtt_client.service.delivery.terms import NANOSECONDS
from tb_mqtt_client.service.delivery.work_item import TERMS, QueuedUplink

SENDS_A_TURN: Final = 500
"""Sends that expire before the other tasks of the event loop run."""
SPARE_ENTRIES: Final = 1000
"""Entries of decided sends that are kept for the time being."""


class Expiry:
    """Reports queued sends that expire. Without such sends, it does nothing and has no timer."""

    def __init__(self, clock: Callable[[], int], on_expired: Callable[[list[QueuedUplink]], None]) -> None:
        """Watch no send yet.

        Args:
            clock: Returns monotonic nanoseconds.
            on_expired: Called with sends that have expired and may be in a queue still.
        """
        self._clock = clock
        self._on_expired = on_expired
        # Entries of sends that are decided in another way stay until they are due, or until there are too many.
        self._heap: list[tuple[int, int, QueuedUplink]] = []
        self._numbers = itertools.count()
        self._most_entries = SPARE_ENTRIES
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._heap)

    def add(self, uplink: QueuedUplink) -> None:
        """Watch a send, whose terms have a time of expiry."""
        terms = uplink[TERMS]
        assert terms is not None
        if len(self._heap) >= self._most_entries:
            self._heap = [entry for entry in self._heap if not _is_over(entry[2])]
            heapq.heapify(self._heap)
            self._most_entries = 2 * len(self._heap) + SPARE_ENTRIES
        heapq.heappush(self._heap, (terms.expires_at, next(self._numbers), uplink))
        self._arm()

    def seconds_until(self, expires_at: int) -> float:
        """Return the seconds until a time of the client's monotonic clock, at least 0."""
        return max(0.0, (expires_at - self._clock()) / NANOSECONDS)

    def clear(self) -> None:
        """Watch no send any more."""
        self._heap.clear()
        self._arm()

    def take_due(self) -> list[QueuedUplink]:
        """Remove and return sends that are expired and not decided in another way, at most ``SENDS_A_TURN``."""
        heap, now = self._heap, self._clock()
        due: list[QueuedUplink] = []
        while heap and heap[0][0] <= now and len(due) < SENDS_A_TURN:
            uplink = heapq.heappop(heap)[2]
            if not _is_over(uplink):
                due.append(uplink)
        return due

    def _arm(self) -> None:
        """Set the timer for the first entry that is not decided."""
        heap = self._heap
        while heap and _is_over(heap[0][2]):
            heapq.heappop(heap)
        due = heap[0][0] if heap else 0
        if due == self._armed_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = due
        self._timer = asyncio.get_running_loop().call_later(self.seconds_until(due), self._fire) if due else None

    def _fire(self) -> None:
        self._timer, self._armed_for = None, 0
        try:
            if due := self.take_due():
                self._on_expired(due)
        finally:
            self._arm()


def _is_over(uplink: QueuedUplink) -> bool:
    terms = uplink[TERMS]
    return terms is not None and terms.is_over
