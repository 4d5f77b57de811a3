"""Results that threads wait for: light objects that the event loop resolves, and the waking of their waiting threads.

The rule: no lock and no object of the operating system belongs to a single result. A client wakes the threads that wait for its
results once for each batch of results, and a thread that waits has one lock while it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import Context, copy_context
from threading import Lock, get_ident
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar, cast

from tb_mqtt_client.common.async_utils import seconds_or_none
from tb_mqtt_client.common.publish_result import PublishResult

T = TypeVar("T")


class _Open:
    """The outcome of a result that is not there yet."""

    def __repr__(self) -> str:
        return "pending"


_PENDING: Any = _Open()


class _Failure:
    """The outcome of work that raised an exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Awaited(Protocol):
    """A result that the event loop sets, and that then calls ``Waiters.schedule`` unless ``is_due`` is true."""

    def done(self) -> bool:
        """Return True if the result is there; never waits."""


class Waiters:
    """Wakes the threads that wait for the results of one client."""

    def __init__(self, post: Callable[..., None]) -> None:
        """Create the waiters of a client.

        Args:
            post: Calls a function with arguments in the thread for callbacks, after those that were posted before.
        """
        self.post = post
        self.is_due: bool = False
        """Whether the event loop will wake the threads whose results are there."""
        self._lock = Lock()
        self._waiting: list[tuple[Awaited, Lock]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._broken = ""

    def attach(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        """Note the event loop that resolves the results, and the thread in which it runs."""
        self._loop, self._thread = loop, thread

    def break_off(self, cause: str) -> None:
        """Let waiting threads, and all that wait later for a result that is not there, raise ``RuntimeError``."""
        self._broken = cause
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for _, turn in waiting:
            turn.release()

    def schedule(self) -> None:
        """Wake the threads whose results are there after this batch of results. Called in the event loop."""
        if self._loop is not None:
            self.is_due = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self.is_due = False
        # The lock also orders this after the check of a thread that is about to wait.
        with self._lock:
            if not self._waiting:
                return
            done = [waiter for waiter in self._waiting if waiter[0].done()]
            self._waiting = [waiter for waiter in self._waiting if not waiter[0].done()]
        for _, turn in done:
            turn.release()

    def call_soon(self, function: Callable[[], object], context: Context) -> None:
        """Call a function in the event loop, in a context; from any thread.

        Raises:
            RuntimeError: The event loop no longer runs.
        """
        if self._broken or self._loop is None:
            raise RuntimeError(self._broken or "the client was not started")
        self._loop.call_soon_threadsafe(function, context=context)

    def require_may_wait(self, *, is_short: bool = False) -> None:
        """Check that this thread may wait for the event loop of the client.

        Args:
            is_short: Whether the event loop only has to run once, so that another event loop in this thread may wait for that.

        Raises:
            RuntimeError: The thread runs an event loop, or nothing will resolve results any longer.
        """
        if self._broken:
            raise RuntimeError(self._broken)
        if asyncio._get_running_loop() is None:
            return
        if get_ident() == self._thread:
            raise RuntimeError("this would block the thread of the client itself, which could then never return")
        if not is_short:
            raise RuntimeError(
                "this would block the event loop that runs in this thread: use the asyncio clients (tb_mqtt_client.DeviceClient "
                "and GatewayClient), or call it in another thread, for example with asyncio.to_thread"
            )

    def wait(self, result: Awaited, timeout: float | None, *, is_short: bool = False) -> None:
        """Wait until a result is there. For ``is_short`` see ``require_may_wait``.

        Raises:
            TimeoutError: It is not there after ``timeout`` seconds.
            RuntimeError: See ``require_may_wait``.
        """
        limit = seconds_or_none(timeout)
        end = None if limit is None else monotonic() + limit
        self.require_may_wait(is_short=is_short)
        turn = Lock()
        turn.acquire()
        waiter = (result, turn)
        with self._lock:
            if result.done():
                return
            if self._broken:
                # Since the check above; ``break_off`` has already woken the threads that waited.
                raise RuntimeError(self._broken)
            self._waiting.append(waiter)
        try:
            turn.acquire(timeout=-1 if end is None else max(0.0, end - monotonic()))
        finally:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        if result.done():
            return
        if self._broken:
            raise RuntimeError(self._broken)
        raise TimeoutError(f"there is no result after {timeout:g} s")


class PendingResult(Generic[T]):
    """The result of work that the client does in the background. It is like ``concurrent.futures.Future``.

    Discarding it changes nothing for the work. It cannot be passed to ``concurrent.futures.wait``.
    """

    __slots__ = ("_callbacks", "_outcome", "_waiters")

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self._outcome: Any = _PENDING
        self._callbacks: list[Callable[[Any], object]] | None = None

    def done(self) -> bool:
        """Return True if the result is there; never waits."""
        return self._outcome is not _PENDING

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result, and return it.

        Args:
            timeout: Seconds; ``None`` for no limit. Nothing is cancelled when they have passed: this may be called again.

        Raises:
            TimeoutError: The result is not there in time.
            RuntimeError: This thread runs an event loop, which must not be blocked; use the asyncio clients there.
            concurrent.futures.CancelledError: The work was cancelled.
            Exception: The error of the work. The result of a send says what happened to its data, and is never an error.
        """
        outcome = self._outcome
        if outcome is _PENDING:
            self._waiters.wait(self, timeout)
            outcome = self._outcome
        if type(outcome) is _Failure:
            raise outcome.error
        return cast("T", outcome)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the result, and return the error of the work; ``None`` if there is none.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Raises:
            TimeoutError: The result is not there in time.
            RuntimeError: This thread runs an event loop, which must not be blocked.
            concurrent.futures.CancelledError: The work was cancelled.
        """
        if self._outcome is _PENDING:
            self._waiters.wait(self, timeout)
        if type(self._outcome) is not _Failure:
            return None
        error: BaseException = self._outcome.error
        if isinstance(error, CancelledError):
            raise error
        return error

    def cancelled(self) -> bool:
        """Return True if the work was cancelled."""
        return type(self._outcome) is _Failure and isinstance(self._outcome.error, CancelledError)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call a function with this object when the result is there, or soon if it is there already.

        Args:
            callback: A plain function. It is called in the client's thread for callbacks, one after the other, and may call any
                method of the client. Its exceptions are logged and counted.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"callback must be a function, not {callback!r}")
        waiters = self._waiters
        with waiters._lock:
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
        # The result may have come before the callback was added, or at the same time.
        if self._outcome is not _PENDING:
            self._call_back()

    def _call_back(self) -> None:
        waiters = self._waiters
        with waiters._lock:
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            waiters.post(callback, self)

    def set_result(self, result: T, /) -> None:
        """Take the result; the client calls this in its event loop."""
        self._outcome = result
        waiters = self._waiters
        if not waiters.is_due:
            waiters.schedule()
        if self._callbacks is not None:
            self._call_back()

    def set_exception(self, error: BaseException, /) -> None:
        """Take the error of the work; the client calls this in its event loop."""
        self.set_result(cast("T", _Failure(error)))

    def take(self, future: asyncio.Future[T]) -> None:
        """Take the outcome of a future that is done; the client calls this in its event loop."""
        if future.cancelled():
            self.set_exception(CancelledError())
        elif (error := future.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(future.result())

    def __repr__(self) -> str:
        outcome = self._outcome.error if type(self._outcome) is _Failure else self._outcome
        return f"<{type(self).__name__} {outcome!r}>"


Delivery = PendingResult[PublishResult]
"""The pending result of a send."""


class Joined:
    """Resolves one delivery with the results of several sends. All results come in the event loop."""

    def __init__(self, delivery: Delivery, parts: int) -> None:
        """Join ``parts`` sends."""
        self._delivery = delivery
        self._left = parts
        self._results: list[PublishResult] = []

    def part(self) -> Part:
        """Return the receiver of one of the sends."""
        return Part(self)

    def take(self, result: PublishResult) -> None:
        """Take the result of one of the sends."""
        self._results.append(result)
        self._left -= 1
        if not self._left:
            self._delivery.set_result(PublishResult.merge(self._results))


class Part:
    """Receives the result of one of several sends."""

    __slots__ = ("_is_done", "_joined")

    def __init__(self, joined: Joined) -> None:
        self._joined = joined
        self._is_done = False

    def done(self) -> bool:
        """Return True if the result is there."""
        return self._is_done

    def cancelled(self) -> bool:
        """Return False: the result is always wanted."""
        return False

    def set_result(self, result: PublishResult, /) -> None:
        """Take the result."""
        self._is_done = True
        self._joined.take(result)


class Work(PendingResult[T]):
    """The pending result of a task in the event loop, which can be cancelled."""

    __slots__ = ("_is_cancelled", "_task")

    def __init__(self, waiters: Waiters) -> None:
        super().__init__(waiters)
        self._task: asyncio.Future[T] | None = None
        self._is_cancelled = False

    def follow(self, task: asyncio.Future[T]) -> None:
        """Take the result of a task, and cancel the task if this is cancelled. Called in the event loop."""
        self._task = task
        task.add_done_callback(self.take)
        if self._is_cancelled:
            task.cancel()

    def cancel(self) -> bool:
        """Cancel the work; it ends soon. Return False if it has ended already."""
        if self.done():
            return False
        self._is_cancelled = True
        self._waiters.call_soon(self._cancel_task, copy_context())
        return True

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
