"""The capacity of the queues: how many sends and encoded bytes may wait in them, and when they are nearly full."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil

from tb_mqtt_client.common.exceptions import NotConnectedError

HIGH, LOW = 0.8, 0.5
"""Shares of the capacity. The queues become high at the first one, and stay so until they are at the second one."""


class QueueCapacity:
    """Counts the queued sends, and lets callers wait in their order while the queues are full."""

    def __init__(self, max_sends: int, max_bytes: int) -> None:
        """Create the capacity of a client.

        Args:
            max_sends: The number of sends that may be queued.
            max_bytes: The number of encoded bytes that may be queued.
        """
        self.max_sends = max_sends
        self.max_bytes = max_bytes
        # Every send compares the fill with these two. They are the marks of HIGH until a send reaches one, and the maxima from
        # then on, so that nothing else has to be compared.
        self._next_sends, self._next_bytes = self._high_marks()
        self.is_high: bool = False
        """Whether a send found the queues nearly full, and they have not become low since."""
        self.on_fill_changed: Callable[[], None] = _nothing
        """Called when ``is_high`` has changed. It must neither raise nor send."""
        self.sends: int = 0
        """The number of queued sends."""
        self.nbytes: int = 0
        """The encoded bytes of the queued sends."""
        self.set_aside: Callable[[], int] = lambda: 0
        """Returns how many queued sends do not count for others: they may stay queued for any time, or are bounded elsewhere."""
        self.recall: Callable[[], None] = _nothing
        """Called when capacity that is lent is needed. It must end all loans."""
        self._loans = 0
        self._waiting: deque[asyncio.Event] = deque()
        self._closed = False

    def close(self) -> None:
        """Let waiting callers raise ``NotConnectedError``."""
        self._closed = True
        for place in self._waiting:
            place.set()

    def open(self) -> None:
        """Let callers wait for capacity again."""
        self._closed = False

    @property
    def is_wanted(self) -> bool:
        """Whether a caller waits for capacity."""
        return bool(self._waiting)

    def try_take(self, nbytes: int) -> bool:
        """Take capacity for one send of ``nbytes`` encoded bytes; return False if there is none, or if callers wait for it."""
        if self._loans and (self.sends >= self._next_sends or self.nbytes + nbytes > self._next_bytes):
            self.recall()
        # The first part of `_fits` is repeated here to save a call at every send.
        if self._waiting or (
            self.sends and (self.sends >= self._next_sends or self.nbytes + nbytes > self._next_bytes) and not self._fits(nbytes)
        ):
            return False
        self.sends += 1
        self.nbytes += nbytes
        return True

    def undecided_room(self) -> tuple[int, int]:
        """Return how many sends and encoded bytes ``take_anyway`` may take without anything to decide; 0 sends if callers wait.

        It is below the marks of HIGH, or below the maxima if the queues are high, and does not contain what is lent.
        """
        return (0 if self._waiting else self._next_sends - self.sends), self._next_bytes - self.nbytes

    def has_room(self, nbytes: int, sends: int = 1) -> bool:
        """Return whether ``sends`` sends of ``nbytes`` encoded bytes in total could be taken now."""
        if self._loans:
            self.recall()
        return not self._waiting and self.sends + sends - 1 < self.max_sends and self._fits(nbytes)

    async def take(self, nbytes: int) -> None:
        """Take capacity for one send of ``nbytes`` encoded bytes; wait until earlier callers have got theirs.

        Raises:
            NotConnectedError: The client was stopped while this waited.
        """
        place = asyncio.Event()
        self._waiting.append(place)
        try:
            while not self._closed and (self._waiting[0] is not place or not self._fits(nbytes)):
                place.clear()
                await place.wait()
            if self._closed:
                raise NotConnectedError("the client was stopped while this send waited for capacity in its queue")
            self.sends += 1
            self.nbytes += nbytes
        finally:
            self._waiting.remove(place)
            self.wake_first()

    def take_anyway(self, sends: int, nbytes: int) -> None:
        """Take capacity for sends that have been accepted before, even if there is none."""
        self.sends += sends
        self.nbytes += nbytes

    def lend(self, sends: int) -> tuple[int, int]:
        """Set capacity aside that the sends of one queue may take without asking, until ``end_loan``.

        It is below the marks of HIGH, so nothing has to be decided about these sends.

        Args:
            sends: The number of sends, at most.

        Returns:
            The number of sends and of encoded bytes. Both are 0 if nothing is lent: the queues are nearly full, or callers wait.
        """
        if self.is_high or self._waiting:
            return 0, 0
        sends = min(sends, self._next_sends - self.sends)
        # The other half is for sends that do not use the loan.
        nbytes = (self._next_bytes - self.nbytes) // 2
        if sends <= 0 or nbytes <= 0:
            return 0, 0
        self._next_sends -= sends
        self._next_bytes -= nbytes
        self._loans += 1
        return sends, nbytes

    def take_lent(self, sends: int, nbytes: int) -> None:
        """Count sends that took capacity of a loan."""
        self.take_anyway(sends, nbytes)
        self._next_sends += sends
        self._next_bytes += nbytes

    def end_loan(self, sends: int, nbytes: int) -> None:
        """End a loan.

        Args:
            sends: The number of sends that were lent and not taken.
            nbytes: The encoded bytes that were lent and not taken.
        """
        self._loans -= 1
        self._next_sends += sends
        self._next_bytes += nbytes

    def give_back(self, sends: int, nbytes: int) -> None:
        """Free the capacity of sends that left the queues, ``nbytes`` in total."""
        self.sends -= sends
        self.nbytes -= nbytes
        if self.is_high and self.sends <= self.max_sends * LOW and self.nbytes <= self.max_bytes * LOW:
            self._set_high(False)
        if self._waiting:
            self.wake_first()

    def _high_marks(self) -> tuple[int, int]:
        return ceil(self.max_sends * HIGH), int(self.max_bytes * HIGH)

    def _set_high(self, is_high: bool) -> None:
        self.is_high = is_high
        self._next_sends, self._next_bytes = (self.max_sends, self.max_bytes) if is_high else self._high_marks()
        self.on_fill_changed()

    def _fits(self, nbytes: int) -> bool:
        if self._loans:
            self.recall()
        if not self.is_high and (self.sends >= self._next_sends or self.nbytes + nbytes > self._next_bytes):
            self._set_high(True)
        if self.sends < self.max_sends and self.nbytes + nbytes <= self.max_bytes:
            return True
        # Admit a send that is larger than the whole capacity when the queues are empty: otherwise it could never be accepted.
        return self.sends <= self.set_aside()

    def wake_first(self) -> None:
        """Wake the caller that has waited longest, so that it checks for capacity again."""
        if self._waiting:
            self._waiting[0].set()


def _nothing() -> None: ...
