"""Ties the future of a send to the futures of the publishes that carry its datapoints, and other helpers for asyncio.

The rule of ``FutureMap``: a parent is resolved once, when all its children are, with a result that covers all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.publish_result import PublishResult

logger = get_logger(__name__)

Delivery = asyncio.Future[PublishResult]
Owner = tuple[Delivery, int | None]
"""The future of a send, and how many of its datapoints a publish carries (``None``: as many as the publish has)."""


class FutureMap:
    """Ties the futures of sends (parents) to those of the publishes that carry their data (children).

    The relation is many to many, since sends are split and combined.
    """

    def __init__(self) -> None:
        self._child_to_parents: dict[Delivery, list[Owner]] = {}
        # The number is enough: each child counts once for each of its parents.
        self._parent_to_remaining: dict[Delivery, int] = {}
        # Results of sends of which one part is done and another is not.
        self._partial_results: dict[Delivery, list[PublishResult]] = {}

    def __len__(self) -> int:
        """Return the number of parents that are not resolved yet."""
        return len(self._parent_to_remaining)

    def register(self, parent: Delivery, children: Iterable[Delivery]) -> None:
        """Make ``parent`` wait for ``children``, in addition to those that it waits for already."""
        for child in children:
            if all(owner is not parent for owner, _ in self._child_to_parents.get(child, ())):
                self.register_owners(child, [(parent, None)])

    def register_owners(self, child: Delivery, owners: Iterable[Owner]) -> None:
        """Make each owner wait for ``child``, which carries the given number of its datapoints."""
        added = list(owners)
        known = self._child_to_parents.setdefault(child, added)
        if known is not added:
            known += added
        remaining = self._parent_to_remaining
        for parent, _ in added:
            remaining[parent] = remaining.get(parent, 0) + 1

    def replace_child(self, child: Delivery, parts: Iterable[tuple[Delivery, Iterable[tuple[int, int]]]]) -> None:
        """Make the owners of ``child`` wait for its parts instead.

        Args:
            child: The future of a publish that is replaced.
            parts: The future of each part, and its sources: the place of an owner among those of ``child``, and how many of the
                owner's datapoints the part carries. Each owner is in at least one part.
        """
        owners = self._child_to_parents.pop(child, [])
        if not owners:
            return
        for part, sources in parts:
            self.register_owners(part, [(owners[place][0], datapoints) for place, datapoints in sources])
        for parent, _ in owners:
            self._parent_to_remaining[parent] -= 1

    def get_parents(self, child: Delivery) -> list[Delivery]:
        """Return the futures of the sends that wait for ``child``."""
        return [parent for parent, _ in self._child_to_parents.get(child, ())]

    def child_resolved(self, child: Delivery) -> None:
        """Count ``child`` as done for all its parents, and resolve the parents that wait for no other child.

        A cancelled child, and one without a ``PublishResult``, contributes nothing to the result. A parent that has only such
        children is resolved with ``None``.
        """
        owners = self._child_to_parents.pop(child, None)
        if owners is None:
            return
        result = _result_of(child)
        remaining = self._parent_to_remaining
        for parent, datapoints in owners:
            if result is None or datapoints is None or datapoints == result.datapoints_count:
                # All of the publish is this send's, so the result needs no copy.
                share = result
            else:
                share = result.with_datapoints(datapoints)
            left = remaining[parent] - 1
            if left or parent in self._partial_results:
                self._count_part(parent, left, share)
                continue
            # The usual case: the send was not split.
            del remaining[parent]
            if not parent.done():
                parent.set_result(share)  # type: ignore[arg-type]  # None is published behaviour, see the docstring above

    def _count_part(self, parent: Delivery, left: int, share: PublishResult | None) -> None:
        """Count one part of a split send; ``left`` parts are not done."""
        parts = self._partial_results.setdefault(parent, [])
        if share is not None:
            parts.append(share)
        if left:
            self._parent_to_remaining[parent] = left
            return
        del self._parent_to_remaining[parent], self._partial_results[parent]
        if not parent.done():
            parent.set_result(PublishResult.merge(parts) if parts else None)  # type: ignore[arg-type]


def _result_of(child: Delivery) -> PublishResult | None:
    if not child.done() or child.cancelled() or child.exception() is not None:
        return None
    result = child.result()
    return result if isinstance(result, PublishResult) else None


future_map = FutureMap()
"""The map of splitters that are used on their own. Each client has its own."""


def answer_as(future: Delivery, delivery: Delivery) -> None:
    """Give ``future`` the result of ``delivery``."""

    def answer(done: Delivery) -> None:
        if not future.done():
            result: PublishResult = done.result()
            future.set_result(result)

    delivery.add_done_callback(answer)


async def wait_for_set(event: asyncio.Event) -> None:
    """Wait until ``event`` is set, and is so now: one that is cleared again before its waiters run wakes them all the same."""
    while not event.is_set():
        await event.wait()


def seconds_or_none(timeout: float | None) -> float | None:
    """Return a time limit in seconds, or ``None`` for no limit, as which a negative number counts.

    Raises:
        TypeError: ``timeout`` is not a number of seconds.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or timeout != timeout:  # noqa: PLR0124  # NaN
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    return timeout if timeout >= 0 else None


def is_cancelled() -> bool:
    """Return whether the current task was cancelled. Otherwise a ``CancelledError`` comes from a future that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
