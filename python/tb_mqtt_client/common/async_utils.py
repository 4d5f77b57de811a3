"""Ties the futures of sends to the futures of the messages that carry their datapoints, and has other helpers for asyncio.

The rule of ``FutureMap``: a send's future is resolved once, when the futures of all its messages are, with the result of them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import repeat
from typing import Protocol

from tb_mqtt_client._native import settle, settle_each
from tb_mqtt_client.common.publish_result import PublishResult

DeliveryFuture = asyncio.Future[PublishResult]
"""The future of a send or of a message."""


class SendReceipt(Protocol):
    """What delivery resolves when all data of a send has its outcome.

    It is the future of the send, an object of the store, or an object of a program that awaits no future. It must be hashable by
    identity. Its methods are called in the event loop.
    """

    def done(self) -> bool:
        """Return whether the outcome was set, or, of a future, whether the caller was cancelled."""

    def cancelled(self) -> bool:
        """Return whether the caller was cancelled, so that the send itself may still have to be delivered."""

    def set_result(self, result: PublishResult, /) -> None:
        """Set the outcome of the send, once. This must neither raise nor wait."""


Share = tuple[SendReceipt, int | None]
"""The receipt of a send (usually its future), and how many of the send's datapoints a message carries. With ``None``, all
datapoints of the message are the send's."""


WholeSends = tuple[list[SendReceipt], int | list[int]]
"""The receipts of sends that are in no other message, and the number of datapoints of each, or one number for all of them."""


class FutureMap:
    """Ties the futures of sends (parents) to the futures of the messages that carry their data (children).

    The relation is many to many, because a send may be split over several messages, and a message may carry several sends.
    """

    def __init__(self) -> None:
        self._child_to_parents: dict[DeliveryFuture, list[Share]] = {}
        # A number is enough: each message counts once for each send that it carries.
        self._parent_to_remaining: dict[SendReceipt, int] = {}
        # The results of a send's messages, while some of the messages are resolved and others are not.
        self._partial_results: dict[SendReceipt, list[PublishResult]] = {}
        # The sends that are in one message each, which is most of them: by that message, without an entry for each send.
        self._child_to_whole_sends: dict[DeliveryFuture, WholeSends] = {}

    def __len__(self) -> int:
        """Return the number of sends' futures that are not resolved yet."""
        return len(self._parent_to_remaining) + sum([len(parents) for parents, _ in self._child_to_whole_sends.values()])

    def register(self, parent: SendReceipt, children: Iterable[DeliveryFuture]) -> None:
        """Make a send's future wait for the futures of messages, in addition to those that it waits for already.

        Args:
            parent: The send's future.
            children: The messages' futures.
        """
        for child in children:
            if all(known is not parent for known, _ in self._child_to_parents.get(child, ())):
                self.register_shares(child, [(parent, None)])

    def register_shares(self, child: DeliveryFuture, shares: Iterable[Share]) -> None:
        """Make the futures of sends wait for the future of a message.

        Args:
            child: The message's future.
            shares: Each send's future, with the number of the send's datapoints in the message.
        """
        added = list(shares)
        known = self._child_to_parents.setdefault(child, added)
        if known is not added:
            known += added
        remaining = self._parent_to_remaining
        for parent, _ in added:
            remaining[parent] = remaining.get(parent, 0) + 1

    def register_whole_sends(self, child: DeliveryFuture, parents: list[SendReceipt], datapoints: int | list[int]) -> None:
        """Make the futures of sends wait for the future of the only message that carries their data.

        Args:
            child: The message's future, which no other send waits for.
            parents: The sends' futures, each once.
            datapoints: The number of datapoints of each send, or one number if it is the same for all.
        """
        self._child_to_whole_sends[child] = parents, datapoints

    def replace_child(self, child: DeliveryFuture, parts: Iterable[tuple[DeliveryFuture, Iterable[tuple[int, int]]]]) -> None:
        """Make the sends that wait for a message wait for the messages that replace it.

        Args:
            child: The future of the message that is replaced.
            parts: The future of each new message, with its sources: the index of a send among those of the old message, and how
                many of the send's datapoints the new message carries. Each send is in at least one new message.
        """
        shares = self.shares_of(child)
        if not shares:
            return
        is_counted = self._child_to_whole_sends.pop(child, None) is None
        self._child_to_parents.pop(child, None)
        for part, sources in parts:
            self.register_shares(part, [(shares[index][0], datapoints) for index, datapoints in sources])
        if is_counted:
            for parent, _ in shares:
                self._parent_to_remaining[parent] -= 1

    def get_parents(self, child: DeliveryFuture) -> list[SendReceipt]:
        """Return the futures of the sends that wait for a message's future."""
        return [parent for parent, _ in self.shares_of(child)]

    def shares_of(self, child: DeliveryFuture) -> list[Share]:
        """Return the sends that wait for a message's future, with their shares of its datapoints."""
        whole = self._child_to_whole_sends.get(child)
        if whole is not None:
            parents, datapoints = whole
            return list(zip(parents, repeat(datapoints) if isinstance(datapoints, int) else datapoints, strict=False))
        return list(self._child_to_parents.get(child, ()))

    def child_resolved(self, child: DeliveryFuture) -> None:
        """Resolve the futures of the sends that wait for this message's future and for no other.

        A message's future that was cancelled, or has no ``PublishResult``, contributes nothing to the result. A send's future
        that waits only for such futures is resolved with ``None``.

        Args:
            child: The message's future, which is done.
        """
        whole = self._child_to_whole_sends.pop(child, None)
        if whole is not None:
            _resolve_whole_sends(*whole, _result_of(child))
            return
        shares = self._child_to_parents.pop(child, None)
        if shares is None:
            return
        result = _result_of(child)
        remaining = self._parent_to_remaining
        for parent, datapoints in shares:
            own_result = result if datapoints is None else _with_datapoints(result, datapoints)
            left = remaining[parent] - 1
            if left or parent in self._partial_results:
                self._count_part(parent, left, own_result)
                continue
            # The usual case: the send was not split.
            del remaining[parent]
            if not parent.done():
                parent.set_result(own_result)  # type: ignore[arg-type]  # None is published behaviour, see the docstring above

    def _count_part(self, parent: SendReceipt, left: int, own_result: PublishResult | None) -> None:
        """Keep the result of one message of a split send, whose future is resolved when no further message is left."""
        parts = self._partial_results.setdefault(parent, [])
        if own_result is not None:
            parts.append(own_result)
        if left:
            self._parent_to_remaining[parent] = left
            return
        del self._parent_to_remaining[parent], self._partial_results[parent]
        if not parent.done():
            parent.set_result(PublishResult.merge(parts) if parts else None)  # type: ignore[arg-type]


def _resolve_whole_sends(parents: list[SendReceipt], datapoints: int | list[int], result: PublishResult | None) -> None:
    """Resolve the futures of sends that are in one message. Those with equally many datapoints get the same object.

    Native code resolves most of what plain functions have returned, which costs less than two calls for each.
    """
    if isinstance(datapoints, int):
        own_result = _with_datapoints(result, datapoints)
        for parent in settle(parents, own_result):
            if not parent.done():
                parent.set_result(own_result)
        return
    results = {count: _with_datapoints(result, count) for count in set(datapoints)}
    for parent, one_result in settle_each(parents, datapoints, results):
        if not parent.done():
            parent.set_result(one_result)


def _with_datapoints(result: PublishResult | None, datapoints: int) -> PublishResult | None:
    """Return the result of a send in a message; the message's own one if it carries no other send."""
    return result if result is None or datapoints == result.datapoints_count else result.with_datapoints(datapoints)


def _result_of(child: DeliveryFuture) -> PublishResult | None:
    if not child.done() or child.cancelled() or child.exception() is not None:
        return None
    result = child.result()
    return result if isinstance(result, PublishResult) else None


future_map: FutureMap = FutureMap()
"""The map of splitters that are used without a client. Each client has a map of its own."""


def resolve_with(future: DeliveryFuture, other: DeliveryFuture) -> None:
    """Resolve a future with the result of another one, once that is resolved."""

    def resolve(done: DeliveryFuture) -> None:
        if not future.done():
            result: PublishResult = done.result()
            future.set_result(result)

    other.add_done_callback(resolve)


async def wait_for_set(event: asyncio.Event) -> None:
    """Wait until an event is set, and still is when this returns.

    ``event.wait()`` also returns if the event was cleared again before the waiting task ran.
    """
    while not event.is_set():
        await event.wait()


def seconds_or_none(timeout: float | None) -> float | None:
    """Return a time limit in seconds, or ``None`` for no limit; a negative number means no limit.

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
