"""The result of a send that a plain function has accepted: lighter than a future, because most programs await few of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from tb_mqtt_client._native import ResultSlot
from tb_mqtt_client.common.publish_result import PublishResult


class Delivery(ResultSlot):
    """The pending ``PublishResult`` of a send, returned by ``enqueue_timeseries`` and similar methods.

    It can be awaited any number of times, also by several tasks. Discarding it, and cancelling a task that awaits it, change
    nothing for the data. Use it in the event loop of its client only. ``asyncio.wait`` needs a future:
    ``asyncio.ensure_future(delivery)``.
    """

    # The result itself is in the slot, where native code puts the same one for all sends of a message.
    __slots__ = ("__weakref__", "_waiting")

    if TYPE_CHECKING:
        _waiting: list[asyncio.Future[None]]

    def done(self) -> bool:
        """Return True if the outcome is known."""
        return super().done()

    def cancelled(self) -> bool:
        """Return False: a send cannot be cancelled; ``client.withdraw`` removes one that is still queued."""
        return False

    def result(self) -> PublishResult:
        """Return the result of the send.

        Raises:
            asyncio.InvalidStateError: The outcome is not known yet.
        """
        if not self.done():
            raise asyncio.InvalidStateError("the outcome of this send is not known yet: await it, or ask done() first")
        outcome: PublishResult = self.outcome
        return outcome

    def exception(self) -> None:
        """Return None: the outcome of a send is a result, never an exception.

        Raises:
            asyncio.InvalidStateError: The outcome is not known yet.
        """
        self.result()

    def add_done_callback(self, callback: Callable[[Delivery], object]) -> None:
        """Call a function with this object once the outcome is known, in the event loop and not before this returns.

        Args:
            callback: A plain function. Its exceptions go to the exception handler of the event loop.

        Raises:
            RuntimeError: No event loop is running.
        """
        if self.done():
            asyncio.get_running_loop().call_soon(callback, self)
        else:
            self._new_waiter().add_done_callback(partial(_call, callback, self))

    def __await__(self) -> Generator[Any, None, PublishResult]:
        """Wait until the outcome is known, and return the result."""
        outcome: PublishResult = self.outcome
        if outcome is None and not self.done():
            yield from self._new_waiter()
            outcome = self.outcome
        return outcome

    def set_result(self, result: PublishResult, /) -> None:
        """Set the outcome of the send; the client calls this, once.

        Raises:
            asyncio.InvalidStateError: The outcome is set already.
        """
        if not self.put(result):
            raise asyncio.InvalidStateError("the outcome of this send is set already")
        if self.is_watched:
            waiting = self._waiting
            del self._waiting
            for waiter in waiting:
                # A task that was cancelled has cancelled its waiter.
                if not waiter.done():
                    waiter.set_result(None)

    def _new_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.watch():
            self._waiting = [waiter]
        else:
            self._waiting.append(waiter)
        return waiter

    def __repr__(self) -> str:
        return f"<Delivery {self.outcome!r}>" if self.done() else "<Delivery pending>"


def _call(callback: Callable[[Delivery], object], delivery: Delivery, _waiter: asyncio.Future[None]) -> None:
    callback(delivery)
