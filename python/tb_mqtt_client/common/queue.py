"""Queues between the stages of the road: unbounded deques that wake one consumer, and the room that bounds them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from tb_mqtt_client.common.async_utils import wait_for_set
from tb_mqtt_client.common.exceptions import NotConnectedError

T = TypeVar("T")


class AsyncDeque(Generic[T]):
    """A queue for one event loop. Putting never blocks for long: how much may be queued is decided at the door (``QueueRoom``)."""

    def __init__(self, maxlen: int | None = None) -> None:
        """``maxlen``: items, ``None`` for no bound; ``put`` and ``extend`` wait while the queue is full."""
        if maxlen is not None and maxlen < 1:
            raise ValueError(f"maxlen must be at least 1 or None, not {maxlen}")
        self._maxlen = maxlen
        self._items: deque[T] = deque()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def is_empty(self) -> bool:
        """Whether nothing is queued."""
        return not self._items

    def size(self) -> int:
        """Number of queued items."""
        return len(self._items)

    def append(self, item: T) -> None:
        """Queue an item at the end, at once and whatever the bound says."""
        items = self._items
        items.append(item)
        if len(items) == 1:
            self._filled.set()

    def append_all(self, items: Iterable[T]) -> None:
        """Queue several items at the end, at once."""
        self._items.extend(items)
        self._wake()

    def prepend_all(self, items: list[T]) -> None:
        """Put items back at the front; the first of them comes out first."""
        self._items.extendleft(reversed(items))
        self._wake()

    def first_now(self) -> T | None:
        """The first item, left where it is; ``None`` when there is none."""
        return self._items[0] if self._items else None

    def items_now(self) -> list[T]:
        """Return all items, left where they are."""
        return list(self._items)

    def pop_now(self, count: int) -> list[T]:
        """Take at most ``count`` items, at once."""
        items = self._items
        taken = [items.popleft() for _ in range(min(count, len(items)))]
        self._wake()
        return taken

    def take_now(self) -> T:
        """Take the first item, which must be there."""
        return self.pop_now(1)[0]

    def remove_now(self, item: T) -> bool:
        """Take this item, wherever it stands. False when it is not here."""
        if item not in self._items:
            return False
        self._items.remove(item)
        self._wake()
        return True

    async def wait_filled(self) -> None:
        """Wait until something is queued."""
        await wait_for_set(self._filled)

    async def wait_put(self) -> None:
        """Wait until something is queued; when this returns, somebody may have taken it."""
        await self._filled.wait()

    async def put(self, item: T) -> None:
        """Queue an item at the end; an item that is queued already is ignored."""
        await self.extend([item])

    async def extend(self, items: Iterable[T]) -> None:
        """Queue items at the end."""
        for item in self._new(items):
            await self._wait_for_room()
            self.append(item)

    async def put_left(self, item: T) -> None:
        """Queue an item at the front."""
        await self.extend_left([item])

    async def extend_left(self, items: Iterable[T]) -> None:
        """Queue items at the front, in their order. The front has no bound: what comes back was counted before."""
        self.prepend_all(self._new(items))

    async def reinsert_front(self, item: T) -> None:
        """Put an item back at the front."""
        await self.extend_left([item])

    async def get(self) -> T:
        """Take the first item; waits for one."""
        await self.wait_filled()
        return self.pop_now(1)[0]

    async def peek(self) -> T:
        """The first item, left where it is; waits for one."""
        await self.wait_filled()
        return self._items[0]

    async def peek_batch(self, max_count: int) -> list[T]:
        """At most ``max_count`` items, left where they are; waits for one."""
        await self.wait_filled()
        return [self._items[index] for index in range(min(max_count, len(self._items)))]

    async def pop_n(self, n: int) -> list[T]:
        """Take at most ``n`` items that are there."""
        return self.pop_now(n)

    def _new(self, items: Iterable[T]) -> list[T]:
        queued = {id(item) for item in self._items}
        return [item for item in items if id(item) not in queued]

    async def _wait_for_room(self) -> None:
        while self._maxlen is not None and len(self._items) >= self._maxlen:
            self._drained.clear()
            await self._drained.wait()

    def _wake(self) -> None:
        if self._items:
            self._filled.set()
        else:
            self._filled.clear()
        self._drained.set()


class QueueRoom:
    """How many messages and encoded bytes may be between the door and the wire. Callers wait in order while it is full."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.messages = 0
        self.bytes = 0
        self.set_aside: Callable[[], int] = lambda: 0
        """Returns how many of the messages may stay for any time, so that the others do not wait for the room that these take."""
        self._waiting: deque[asyncio.Event] = deque()
        self._closed = False

    def close(self) -> None:
        """Let those who wait know that nothing will be taken any more: they get a ``NotConnectedError``."""
        self._closed = True
        for place in self._waiting:
            place.set()

    def open(self) -> None:
        """Take messages again."""
        self._closed = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._waiting)

    def try_take(self, nbytes: int) -> bool:
        """Take room for one message, if there is some and nobody waits for it."""
        # As the first part of `_fits`, written out: every call comes by here.
        if self._waiting or (
            self.messages
            and (self.messages >= self._max_messages or self.bytes + nbytes > self._max_bytes)
            and not self._fits(nbytes)
        ):
            return False
        self.messages += 1
        self.bytes += nbytes
        return True

    async def take(self, nbytes: int) -> None:
        """Take room for one message; waits for it, first come first served. Raises ``NotConnectedError`` when closed meanwhile."""
        place = asyncio.Event()
        self._waiting.append(place)
        try:
            while not self._closed and (self._waiting[0] is not place or not self._fits(nbytes)):
                place.clear()
                await place.wait()
            if self._closed:
                raise NotConnectedError("the client was stopped while this call waited for room in its queue")
            self.messages += 1
            self.bytes += nbytes
        finally:
            self._waiting.remove(place)
            self.wake_first()

    def give_back(self, messages: int, nbytes: int) -> None:
        """Free the room of messages that left the queues."""
        self.messages -= messages
        self.bytes -= nbytes
        self.wake_first()

    def _fits(self, nbytes: int) -> bool:
        if self.messages < self._max_messages and self.bytes + nbytes <= self._max_bytes:
            return True
        # A single message larger than all the room may pass when it is alone: refusing it would be for ever.
        return self.messages <= self.set_aside()

    def wake_first(self) -> None:
        """Wake the sender that has waited longest, so that it checks for room again."""
        if self._waiting:
            self._waiting[0].set()
