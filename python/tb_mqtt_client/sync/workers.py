"""Threads for the blocking calls of the event loop, such as name resolution."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_SECONDS = 10.0
"""Seconds after which a thread without work ends, unless it is the only one."""
MAX_THREADS = 8


class DaemonExecutor(ThreadPoolExecutor):
    """Runs functions in daemon threads; one of them exists from the start.

    Unlike those of its base class, which asyncio requires of an executor, these threads work while the interpreter exits. A client
    can then still resolve the name of its server and send its queue, and a call that hangs does not delay the exit.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=MAX_THREADS)
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._running = self._unfinished = 0
        self._start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function in one of the threads."""
        future: Future[T] = Future()
        with self._lock:
            self._unfinished += 1
            needs_thread = self._running < min(self._unfinished, MAX_THREADS)
        if needs_thread:
            self._start()
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end when they are idle, without waiting for them."""
        with self._lock:
            running, self._running = self._running, 0
        for _ in range(running):
            self._jobs.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="tb-mqtt worker", daemon=True)
        with self._lock:
            self._running += 1
        try:
            thread.start()
        except RuntimeError:
            # An exiting interpreter starts no thread. The running ones will do the work.
            with self._lock:
                self._running -= 1

    def _run(self) -> None:
        while (job := self._next()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001  # raised where the future is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)
            with self._lock:
                self._unfinished -= 1

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """Wait for the next function to run; return ``None`` if the thread is to end."""
        while True:
            try:
                return self._jobs.get(timeout=IDLE_SECONDS if self._running > 1 else None)
            except Empty:
                with self._lock:
                    if self._running > max(1, self._unfinished):
                        self._running -= 1
                        return None
