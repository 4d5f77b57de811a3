"""The thread with the event loop of all synchronous clients of a process, and what happens to it at exit and after a fork.

The rule: the thread exists while a client is started. A program that ends without stopping its clients sends their queued data
first.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import WeakSet

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.sync.pending import Waiters, Work
from tb_mqtt_client.sync.workers import DaemonExecutor

T = TypeVar("T")

logger: ExtendedLogger = get_logger(__name__)

END_SECONDS = 1.0
"""Seconds that the remaining tasks of the event loop may take to end when the thread ends."""
MARGIN_SECONDS = 5.0
"""Seconds that stopping may take at exit in addition to its own time limit."""
FORKED = (
    "this client belongs to the parent process: os.fork() copies neither its thread nor its connection; "
    "create a client in the child"
)


class User:
    """A part that needs the event loop, and keeps its thread alive."""

    def stop_at_exit(self) -> Work[None] | None:
        """Begin to stop, because the program ends. Return the work to wait for, or ``None``."""
        return None

    def break_off(self, cause: str) -> None:
        """Refuse everything from now on: the event loop no longer runs."""


class LoopThread:
    """An event loop, and the daemon thread in which it runs while it has users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: set[User] = set()
        self._attached: WeakSet[User] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._last_thread: threading.Thread | None = None
        self._is_registered = False
        self._pid = os.getpid()

    def hold(self, user: User, waiters: Waiters) -> None:
        """Start the thread, if it does not run, and keep it until ``release``. May be called again for the same user.

        Args:
            user: The user.
            waiters: Is attached to the event loop.
        """
        while True:
            with self._lock:
                last = self._last_thread
                if user in self._users or last is threading.current_thread():
                    # The second: a task of the ending event loop, which gives it a moment to end.
                    return
                if last is None or not last.is_alive():
                    self._add(user, waiters)
                    return
            # Two threads must not run one event loop.
            last.join()

    def _add(self, user: User, waiters: Waiters) -> None:
        if self._thread is None:
            self._start()
        assert self._loop is not None
        assert self._thread is not None
        waiters.attach(self._loop, self._thread.ident or 0)
        self._users.add(user)
        self._attached.add(user)

    def release(self, user: User) -> threading.Thread | None:
        """End the thread if this was its last user. Return the thread if it ends, for callers that wait for that."""
        with self._lock:
            if user not in self._users:
                return None
            self._users.remove(user)
            return None if self._users else self._end()

    def _start(self) -> None:
        self._last_thread = None
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        executor = DaemonExecutor()
        self._loop.set_default_executor(executor)
        self._thread = threading.Thread(target=self._run, args=(self._loop, executor), name="tb-mqtt event loop", daemon=True)
        self._thread.start()
        if not self._is_registered:
            self._is_registered = True
            # Called after the threads of the program that are not daemon threads have ended: they may still send.
            atexit.register(self._exit)
            os.register_at_fork(after_in_child=self._forked)

    def _end(self) -> threading.Thread | None:
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            self._last_thread = thread
            self._loop.call_soon_threadsafe(self._begin_end)
        return thread

    def _begin_end(self) -> None:
        loop = asyncio.get_running_loop()
        # The task needs no owner: it is the last one of the loop, and it is referenced by the callback that stops the loop.
        ending = loop.create_task(_end_tasks(), name="tb-mqtt end of the event loop")
        ending.add_done_callback(lambda _: loop.stop())

    def _run(self, loop: asyncio.AbstractEventLoop, executor: DaemonExecutor) -> None:
        asyncio.set_event_loop(loop)
        cause = "it was stopped"
        try:
            loop.run_forever()
        except BaseException as error:
            cause = repr(error)
            raise
        finally:
            asyncio.set_event_loop(None)
            executor.shutdown()
            self._ended(threading.current_thread(), cause)

    def _ended(self, thread: threading.Thread, cause: str) -> None:
        """Release everything that waits if the thread ended although it has users."""
        with self._lock:
            if self._thread is not thread:
                return
            users, self._users = self._users, set()
            # The next client gets a loop of its own: nothing is known about the state of this one.
            self._thread = self._loop = None
        text = f"the event loop of the synchronous clients ended unexpectedly ({cause}): create a new client"
        logger.error("Every synchronous client of this process is broken: %s", text)
        for user in users:
            user.break_off(text)

    def start_work(self, waiters: Waiters, make: Callable[[], Coroutine[Any, Any, T]]) -> Work[T]:
        """Start a coroutine in the event loop, in the context of the caller.

        Args:
            waiters: Wakes the threads that wait for the result.
            make: Returns the coroutine, in the event loop.
        """
        work: Work[T] = Work(waiters)
        # In the context of a callback, the engine recognizes that the callback ends the client.
        waiters.call_soon(lambda: work.follow(asyncio.get_running_loop().create_task(make())), copy_context())
        return work

    # The end of the program, and fork.

    def _exit(self) -> None:
        if os.getpid() != self._pid:
            # A child has the parent's exit handlers.
            return
        with self._lock:
            users = list(self._users)
        stopping = [work for user in users if (work := user.stop_at_exit()) is not None]
        try:
            for work in stopping:
                try:
                    work.result()
                except Exception:
                    # The other clients still have data to send.
                    logger.exception("A client could not be stopped at the end of the program")
        except KeyboardInterrupt:
            logger.warning("Ctrl-C: the program ends before all data was sent")
        with self._lock:
            self._users.clear()
            thread = self._end() or self._last_thread
        if thread is not None:
            thread.join(END_SECONDS + MARGIN_SECONDS)
            if not thread.is_alive() and self._loop is not None:
                self._loop.close()

    def _forked(self) -> None:
        # Only the thread that called fork() exists in the child, and another one may have held the lock.
        global _shared  # noqa: PLW0603  # the loop of the process
        _shared = LoopThread()
        # Closing the parent's loop would change the parent's selector, so it is only kept from being collected.
        _abandoned.append(self)
        for user in list(self._attached):
            user.break_off(FORKED)


async def _end_tasks() -> None:
    """Wait until the other tasks of the event loop have ended; after a while, cancel them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, hanging = await asyncio.wait(others, timeout=END_SECONDS)
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=END_SECONDS)
    await asyncio.sleep(0)


_shared = LoopThread()
_abandoned: list[LoopThread] = []


def shared_loop_thread() -> LoopThread:
    """Return the loop thread of this process."""
    return _shared
