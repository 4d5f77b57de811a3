"""The thread in which a store waits for its disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class StoreThread:
    """Runs one piece of work after the other, in their order, and resolves futures of the event loop with the results."""

    def __init__(self) -> None:
        """Create the thread of a store, which starts with the first work. Call this in the event loop."""
        self._loop = asyncio.get_running_loop()
        # Unlike a daemon thread, it ends in order if the program ends without stop().
        self._executor = ThreadPoolExecutor(1, "tb-mqtt-client store")

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function in the thread; return the future of its result. Cancelling the future does not cancel the work."""
        result: asyncio.Future[T] = self._loop.create_future()
        self._executor.submit(work).add_done_callback(partial(self._done, result))
        return result

    def _done(self, result: asyncio.Future[Any], done: Future[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, result, done)
        except RuntimeError:
            # The event loop is closed: the program ended without stop(), and nothing waits for the result.
            return

    def end(self, *, waits: bool) -> None:
        """End the thread when its work is done.

        Args:
            waits: Whether to wait for that. The work must be done already, since the event loop is blocked.
        """
        self._executor.shutdown(wait=waits)


def _resolve(result: asyncio.Future[Any], done: Future[Any]) -> None:
    if result.cancelled():
        return
    if (error := done.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(done.result())
