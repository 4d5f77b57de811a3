"""Time: the clock of datapoints, time limits that a blocked loop does not use up, and keys that are due at times of their own."""

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
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


MAX_FORGIVEN: Final = 3
"""How often a limit is restarted. A loop that is blocked all the time must end, too."""


@asynccontextmanager
async def running_timeout(seconds: float) -> AsyncIterator[None]:
    """Limit the time in a block, as ``asyncio.timeout`` does, for as long as the event loop runs.

    When the limit is noticed late because the loop was blocked, the process was stopped or the machine slept, the answer may lie in
    the socket unread: the limit is restarted.

    Args:
        seconds: The limit.

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
