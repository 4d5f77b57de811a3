"""The queue between two stages of the delivery pipeline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class AsyncDeque(Generic[T]):
    """A queue for one event loop, which wakes the task that drains it.

    Queuing never waits: `QueueCapacity` limits how much is queued in all queues of a client together.
    """

    def __init__(self) -> None:
        """Create an empty queue."""
        self._items: deque[T] = deque()
        self.filled: asyncio.Event = asyncio.Event()
        """Set while an item is queued."""

    def __len__(self) -> int:
        return len(self._items)

    def is_empty(self) -> bool:
        """Return whether nothing is queued."""
        return not self._items

    def append(self, item: T) -> None:
        """Queue an item at the end."""
        items = self._items
        items.append(item)
        if len(items) == 1:
            self.filled.set()

    def append_all(self, items: Iterable[T]) -> None:
        """Queue several items at the end."""
        self._items.extend(items)
        self._wake()

    def prepend_all(self, items: list[T]) -> None:
        """Queue items at the front; the first of them comes out first."""
        self._items.extendleft(reversed(items))
        self._wake()

    def first_now(self) -> T | None:
        """Return the first item, which stays in the queue; ``None`` if there is none."""
        return self._items[0] if self._items else None

    def items_now(self) -> list[T]:
        """Return all items, which stay in the queue."""
        return list(self._items)

    def pop_now(self, count: int) -> list[T]:
        """Remove and return at most ``count`` items."""
        items = self._items
        if count >= len(items):
            taken = list(items)
            items.clear()
            self.filled.clear()
            return taken
        return [items.popleft() for _ in range(count)]

    def take_now(self) -> T:
        """Remove and return the first item; there must be one."""
        return self.pop_now(1)[0]

    def remove_first(self, matches: Callable[[T], bool]) -> T | None:
        """Remove and return the first item that matches; ``None`` if none does."""
        found = next((item for item in self._items if matches(item)), None)
        if found is not None:
            self._items.remove(found)
            self._wake()
        return found

    def remove_all(self, matches: Callable[[T], bool]) -> list[T]:
        """Remove and return all items that match, in their order."""
        found = [item for item in self._items if matches(item)]
        if found:
            left = [item for item in self._items if not matches(item)]
            self._items.clear()
            self._items.extend(left)
            self._wake()
        return found

    def _wake(self) -> None:
        if self.is_empty():
            self.filled.clear()
        else:
            self.filled.set()
