"""Time: the clock of datapoints, time limits that tolerate a blocked event loop, and timers by key."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from tb_mqtt_client.common.mqtt.keep_alive import BLOCKED_LOOP_SECONDS


def now_ms() -> int:
    """Return the current time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


MAX_FORGIVEN: Final = 3
"""How often a time limit restarts. It must end even if the event loop is blocked again and again."""


@asynccontextmanager
async def running_timeout(seconds: float) -> AsyncIterator[None]:
    """Limit the time of a block like ``asyncio.timeout``, but count only time in which the event loop runs.

    If the timer fires late because the loop was blocked, the process was stopped or the machine was suspended, the expected data
    may be in the socket, unread. The limit then starts again, at most ``MAX_FORGIVEN`` times.

    Args:
        seconds: The time limit.

    Raises:
        TimeoutError: The block took longer.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        forgiven = 0
        due = loop.time() + seconds
        timer: asyncio.TimerHandle | None = None

        def expire() -> None:
            nonlocal due, forgiven, timer
            now = loop.time()
            if now - due > BLOCKED_LOOP_SECONDS and forgiven < MAX_FORGIVEN:
                forgiven += 1
                due = now + seconds
                timer = loop.call_at(due, expire)
            else:
                limit.reschedule(now)

        timer = loop.call_at(due, expire)
        try:
            yield
        finally:
            timer.cancel()


K = TypeVar("K", bound=Hashable)


class Timetable(Generic[K]):
    """Calls a function for each key when the key is due. Each key has at most one timer, which fires once."""

    def __init__(self, on_due: Callable[[K], None]) -> None:
        """Call ``on_due`` with each key. Its exceptions go to the loop's exception handler and do not affect other keys."""
        self._on_due = on_due
        self._entries: dict[K, int] = {}
        # Entries of keys that were removed or set again stay here until they are due; their number shows it.
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def set(self, key: K, seconds: float) -> None:
        """Make a key due after this number of seconds, and replace the time at which it was due before."""
        number = next(self._numbers)
        self._entries[key] = number
        heapq.heappush(self._heap, (asyncio.get_running_loop().time() + seconds, number, key))
        self._arm()

    def remove(self, key: K) -> None:
        """Remove a key. An unknown key is ignored."""
        self._entries.pop(key, None)
        self._arm()

    def clear(self) -> None:
        """Remove all keys."""
        self._entries.clear()
        self._arm()

    def _arm(self) -> None:
        """Set the timer for the first entry that is not outdated."""
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
        # One key for each iteration of the loop, because thousands may be due at the same time.
        self._timer = self._armed_for = None
        _, _, key = heapq.heappop(self._heap)
        del self._entries[key]
        try:
            self._on_due(key)
        finally:
            self._arm()
