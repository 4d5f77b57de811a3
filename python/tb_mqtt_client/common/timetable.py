"""Keys that are due at a time of their own, with one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timetable(Generic[K]):
    """Calls a function for each key when it is due. A key has at most one time, and none after it was due."""

    def __init__(self, on_due: Callable[[K], None]) -> None:
        """What ``on_due`` raises goes to the loop's exception handler; the other keys stay due."""
        self._on_due = on_due
        self._entries: dict[K, int] = {}
        # Entries of keys that were removed or set again stay here until they are due. Their number shows that they are outdated.
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def set(self, key: K, seconds: float) -> None:
        """Make a key due in so many seconds, instead of at the time that it had."""
        number = next(self._numbers)
        self._entries[key] = number
        heapq.heappush(self._heap, (asyncio.get_running_loop().time() + seconds, number, key))
        self._arm()

    def remove(self, key: K) -> None:
        """Forget a key; an unknown key changes nothing."""
        self._entries.pop(key, None)
        self._arm()

    def clear(self) -> None:
        """Forget all keys."""
        self._entries.clear()
        self._arm()

    def _arm(self) -> None:
        """Set the timer for the first entry that still counts."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        due = heap[0][0] if heap else None
        if due == self._armed_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = due
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._fire)

    def _fire(self) -> None:
        # One key a turn of the loop: thousands may be due at the same time.
        self._timer = self._armed_for = None
        _, _, key = heapq.heappop(self._heap)
        del self._entries[key]
        try:
            self._on_due(key)
        finally:
            self._arm()
