"""The thread in which the callbacks of one client run, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from tb_mqtt_client.sync.loop_thread import User

OnFailure = Callable[[str, BaseException], None]


@dataclass(frozen=True, slots=True)
class _Job:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    context: Context
    outcome: asyncio.Future[Any] | None
    """The future of a task that waits; ``None`` if nothing does."""


class CallbackError(Exception):
    """A callback raised an exception that must not end the event loop; that exception is the cause."""


class CallbackThread:
    """Calls functions of the program in the order in which they were posted.

    The thread is started for the first callback and stays the same one until the client is stopped, because objects such as
    connections to a database may belong to a thread.
    """

    def __init__(self, keep: Callable[[User], None], release: Callable[[User], object], on_failure: OnFailure) -> None:
        """Create the thread of a client, without starting it.

        Args:
            keep: Keeps the event loop running until ``release`` is called.
            release: See ``keep``.
            on_failure: Called with the name and the exception of a callback that raised, unless a task gets the exception.
        """
        self._keep = keep
        self._release = release
        self._on_failure = on_failure
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def post(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function later, from any thread. Its exception is reported."""
        try:
            self._put(_Job(function, arguments, copy_context(), None))
        except RuntimeError as error:
            self._on_failure(repr(function), error)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, and return its result. Called in the event loop.

        The function is not called if the waiting task is cancelled before its turn. Otherwise it runs to its end.

        Raises:
            CallbackError: The function raised an exception that would end the event loop, such as ``SystemExit``.
            Exception: The exception of the function.
        """
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(_Job(function, arguments, copy_context(), outcome))
        return await outcome

    def end(self) -> threading.Thread | None:
        """End the thread after the posted callbacks, and return it; ``None`` if there is none. This does not wait."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._jobs.put(None)
            return thread

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._thread is None:
                self._start()
            self._jobs.put(job)

    def _start(self) -> None:
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        user = User()
        thread = threading.Thread(target=self._run, args=(jobs, user), name="tb-mqtt callbacks", daemon=True)
        self._keep(user)
        try:
            thread.start()
        except RuntimeError:
            # An exiting interpreter starts no thread.
            self._release(user)
            raise
        self._jobs, self._thread = jobs, thread

    def _run(self, jobs: SimpleQueue[_Job | None], user: User) -> None:
        while (job := jobs.get()) is not None:
            if job.outcome is None or not job.outcome.done():
                self._call(job)
        self._release(user)

    def _call(self, job: _Job) -> None:
        try:
            result = job.context.run(job.function, *job.arguments)
        except BaseException as error:  # noqa: BLE001  # whatever the program's code raises
            self._ended(job, None, error)
        else:
            self._ended(job, result, None)

    def _ended(self, job: _Job, result: Any, error: BaseException | None) -> None:
        outcome = job.outcome
        if outcome is None:
            if error is not None:
                self._on_failure(repr(job.function), error)
            return
        if error is not None and not isinstance(error, Exception):
            wrapped = CallbackError(f"a callback raised {error!r}, which ends neither the program nor its thread")
            wrapped.__cause__ = error
            error = wrapped
        elif isinstance(error, StopIteration):
            wrapped = CallbackError("a callback raised StopIteration")
            wrapped.__cause__ = error
            error = wrapped
        try:
            outcome.get_loop().call_soon_threadsafe(_set, outcome, result, error)
        except RuntimeError:
            # The event loop is closed: the program has ended, and nothing waits for the result.
            if error is not None:
                self._on_failure(repr(job.function), error)


def _set(outcome: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if outcome.done():
        return
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)
