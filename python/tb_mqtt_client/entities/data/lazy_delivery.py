"""Delivery futures that are made on demand, so that messages can be built without a running event loop."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable
from typing import Any

Futures = tuple["asyncio.Future[Any]", ...]
"""Delivery futures of a message."""


def new_delivery() -> asyncio.Future[Any]:
    """Return a new future with a ``uuid``, for the running event loop or, if none is running, the current one of this thread."""
    delivery = _loop().create_future()
    delivery.uuid = uuid.uuid4()  # type: ignore[attr-defined]  # public: programs distinguish futures by it
    return delivery


def _loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    try:
        # Before Python 3.14 this makes a loop if there is none, and warns that this is deprecated.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return asyncio.get_event_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop


class LazyDelivery:
    """The delivery future of one message, or of several messages with the same datapoints."""

    __slots__ = ("_futures", "_make")

    def __init__(self, make: Callable[[], None] | None = None) -> None:
        """Make no future yet.

        Args:
            make: Called on demand; sets the future of this object, and of related ones, with ``set``. ``None`` for
                ``new_delivery``.
        """
        self._make = make
        self._futures: Futures = ()

    def get(self) -> Futures:
        """Return a tuple with the future, which is made if necessary."""
        if not self._futures:
            if self._make is None:
                self.set(new_delivery())
            else:
                self._make()
        return self._futures

    def set(self, future: asyncio.Future[Any]) -> None:
        """Use this future."""
        self._futures = (future,)

    def made(self) -> Futures:
        """Return a tuple with the future, or an empty tuple if it has not been made."""
        return self._futures
