"""Futures of messages that are made when they are asked for, so that messages can be built where no event loop runs."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable
from typing import Any

Futures = tuple["asyncio.Future[Any]", ...]


def new_delivery() -> asyncio.Future[Any]:
    """Make a future with a ``uuid``, for the running event loop or else for the current one of this thread."""
    delivery = _loop().create_future()
    delivery.uuid = uuid.uuid4()  # type: ignore[attr-defined]  # published: programs distinguish futures by it
    return delivery


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    try:
        # Before Python 3.14 this makes a loop if there is none, with a deprecation warning.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return asyncio.get_event_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop


class LazyDelivery:
    """The future of one message, or of several messages that are built from the same datapoints."""

    __slots__ = ("_futures", "_make")

    def __init__(self, make: Callable[[], None] | None = None) -> None:
        """``make`` gives a future to this object, and to others that must get theirs together with it, by calling ``set``."""
        self._make = make
        self._futures: Futures = ()

    def get(self) -> Futures:
        """Return the future, in a tuple."""
        if not self._futures:
            if self._make is None:
                self.set(new_delivery())
            else:
                self._make()
        return self._futures

    def set(self, future: asyncio.Future[Any]) -> None:
        """Take a future that was made elsewhere."""
        self._futures = (future,)

    def made(self) -> Futures:
        """Return the future in a tuple, or nothing if nobody has asked for it."""
        return self._futures
