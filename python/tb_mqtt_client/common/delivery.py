"""The result of a send that a plain function has accepted: lighter than a future, because most programs await few of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from tb_mqtt_client.common.publish_result import PublishResult

_PENDING: Any = object()
"""The result of a send whose outcome is not known yet."""


class Delivery:
    """The pending ``PublishResult`` of a send, returned by ``enqueue_timeseries`` and similar methods.

    It can be awaited any number of times, also by several tasks. Discarding it, and cancelling a task that awaits it, change
    nothing for the data. Use it in the event loop of its client only. ``asyncio.wait`` needs a future:
    ``asyncio.ensure_future(delivery)``.
    """

    __slots__ = ("__weakref__", "_result", "_waiting")

    def __init__(self) -> None:
        self._result: PublishResult = _PENDING
        self._waiting: list[asyncio.Future[None]] | None = None

    def done(self) -> bool:
        """Return True if the outcome is known."""
        return self._result is not _PENDING

    def cancelled(self) -> bool:
        """Return False: a send cannot be cancelled; ``client.withdraw`` removes one that is still queued."""
        return False

    def result(self) -> PublishResult:
        """Return the result of the send.

        Raises:
            asyncio.InvalidStateError: The outcome is not known yet.
        """
        if self._result is _PENDING:
            raise asyncio.InvalidStateError("the outcome of this send is not known yet: await it, or ask done() first")
        return self._result

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
        if self._result is _PENDING:
            yield from self._new_waiter()
        return self._result

    def set_result(self, result: PublishResult, /) -> None:
        """Set the outcome of the send; the client calls this, once.

        Raises:
            asyncio.InvalidStateError: The outcome is set already.
        """
        if self._result is not _PENDING:
            raise asyncio.InvalidStateError("the outcome of this send is set already")
        self._result = result
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for waiter in waiting:
                # A task that was cancelled has cancelled its waiter.
                if not waiter.done():
                    waiter.set_result(None)

    def _new_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(waiter)
        return waiter

    def __repr__(self) -> str:
        return f"<Delivery {self._result!r}>" if self.done() else "<Delivery pending>"


def _call(callback: Callable[[Delivery], object], delivery: Delivery, _waiter: asyncio.Future[None]) -> None:
    callback(delivery)
