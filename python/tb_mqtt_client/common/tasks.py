"""The owner of one client's tasks.

The rule: every task of a client is started here, with a name, and ends when the client does. A task in which a callback of the user
disconnects or stops the client is neither cancelled nor waited for by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger

T = TypeVar("T")

logger: ExtendedLogger = get_logger(__name__)

END_SECONDS = 1.0
"""Seconds that a cancelled task may take to end."""

_running_in: ContextVar[tuple[asyncio.Task[Any], ...]] = ContextVar("_running_in", default=())
"""The owned tasks with callbacks of the user in which the running code was started, the innermost last.

A callback may end its client in a task of its own, with ``asyncio.wait_for`` or ``gather`` for example. asyncio does not say which
task started another one, and only context variables are inherited, so that this cannot be an attribute of the owner.
"""


def report_failure(task: asyncio.Task[Any], error: BaseException | None) -> None:
    """Report the unexpected end of a task to the exception handler of its loop."""
    context = {"message": f"{task.get_name()} failed", "exception": error, "task": task}
    task.get_loop().call_exception_handler({key: value for key, value in context.items() if value is not None})


class Tasks:
    """Starts the tasks of one client, and ends them."""

    def __init__(self, on_failure: Callable[[asyncio.Task[Any], BaseException | None], None]) -> None:
        """Create an owner without tasks.

        Args:
            on_failure: Called with a task started by ``keep`` that ended on its own, and its exception; ``None`` if the task was
                cancelled by someone else.
        """
        self._on_failure = on_failure
        self.end_seconds = END_SECONDS
        """Seconds that ``end`` waits for a cancelled task."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._spared: set[asyncio.Task[Any]] = set()
        self._part_of: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}
        self._owing: set[asyncio.Task[Any]] = set()
        self._done: dict[asyncio.Task[Any], asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, T], name: str, *, runs_callbacks: bool = True, owes_reply: bool = False
    ) -> asyncio.Task[T]:
        """Start a task. Its exception belongs to the code that awaits the task.

        Args:
            work: Runs in the task.
            name: Follows "tb-mqtt-client" in the task's name.
            runs_callbacks: Whether callbacks of the user run in the task, so that it may be one that ends the client.
            owes_reply: Whether the platform waits for a reply that the task sends; see ``wait_replies``.
        """
        context = copy_context()
        outer = [task for task in _running_in.get() if not task.done()]
        task = asyncio.get_running_loop().create_task(work, name=f"tb-mqtt-client {name}", context=context)
        context.run(_running_in.set, (*outer, task) if runs_callbacks else ())
        self._add(task)
        if owes_reply:
            self._owing.add(task)
        return task

    def fork(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task that is a part of the current one, which waits for it: if the current task is spared, so is this one."""
        task = asyncio.create_task(work, name=f"tb-mqtt-client {name}")
        self._add(task)
        if (whole := self.current()) is not None:
            self._part_of[task] = whole
        return task

    def keep(self, work: Coroutine[Any, Any, None], name: str, *, may_return: bool = False) -> asyncio.Task[None]:
        """Start a task that must not end on its own: its end is reported to ``on_failure``.

        Args:
            work: Runs in the task.
            name: Follows "tb-mqtt-client" in the task's name.
            may_return: Whether the task may finish its work; an exception or a cancellation is reported anyway.
        """
        task = self.start(work, name, runs_callbacks=False)
        task.add_done_callback(partial(self._kept_ended, may_return))
        return task

    def _add(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._spared.discard(task)
        self._part_of.pop(task, None)
        self._wait_no_more(task)
        # Later, because the callback of ``keep``, which runs after this one, needs the entry.
        task.get_loop().call_soon(self._cancelled.discard, task)

    def _kept_ended(self, may_return: bool, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        has_returned = not task.cancelled() and error is None
        if task not in self._cancelled and not (may_return and has_returned):
            self._on_failure(task, error)

    # The end.

    def current(self) -> asyncio.Task[Any] | None:
        """Return the innermost task of this owner in which the running code was started; ``None`` outside of its tasks."""
        return next((task for task in reversed(_running_in.get()) if task in self._tasks), None)

    @property
    def all_cancelled(self) -> bool:
        """Whether all remaining tasks are cancelled, as ``asyncio.run`` does at the end of the program."""
        return all(task.cancelling() for task in self._tasks)

    def is_ending(self, task: asyncio.Task[Any] | None) -> bool:
        """Return True if a task was cancelled here."""
        return task in self._cancelled

    def spare(self, task: asyncio.Task[Any]) -> None:
        """Neither cancel a task nor wait for it until ``spare_none`` is called: it waits for the end of the client."""
        self._spared.add(task)
        self._wait_no_more(task)

    def spare_none(self) -> None:
        """Spare no task any longer, see ``spare``."""
        self._spared.clear()

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task without waiting for its end."""
        self._cancelled.add(task)
        task.cancel()

    async def end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel tasks and wait until they have ended, for at most ``end_seconds``. One that does not end is logged."""
        await self._end(self._others(tasks))

    async def end_part(self, part: asyncio.Task[Any]) -> None:
        """Cancel a part of the current task, as ``end`` does."""
        await self._end({part})

    async def _end(self, ending: set[asyncio.Task[Any]]) -> None:
        for task in ending:
            self.cancel(task)
        if not ending:
            return
        _, hanging = await asyncio.wait(ending, timeout=self.end_seconds)
        for task in hanging:
            text = "%s did not end within %g s of being cancelled: a callback is blocking it"
            logger.error(text, task.get_name(), self.end_seconds)

    async def wait(self, tasks: Iterable[asyncio.Task[Any]], seconds: float) -> None:
        """Wait until tasks have ended, or wait for the end of the client themselves, for at most ``seconds``."""
        if others := self._others(tasks):
            await asyncio.wait([self._until_done(task) for task in others], timeout=seconds)

    async def end_all(self) -> None:
        """End all remaining tasks."""
        await self.end(self._tasks)

    async def wait_replies(self) -> None:
        """Wait until the running tasks have ended that owe a reply, or wait for the end of the client themselves."""
        if self._owing:
            await asyncio.wait([self._until_done(task) for task in self._owing])

    def _others(self, tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        spared = {asyncio.current_task(), self.current(), *self._spared}
        return {task for task in tasks if not (task.done() or task in spared or self._part_of.get(task, task) in spared)}

    def _until_done(self, task: asyncio.Task[Any]) -> asyncio.Future[None]:
        """Return a future that is resolved when a task has ended or is spared."""
        if task not in self._done:
            self._done[task] = asyncio.get_running_loop().create_future()
        return self._done[task]

    def _wait_no_more(self, task: asyncio.Task[Any]) -> None:
        self._owing.discard(task)
        done = self._done.pop(task, None)
        if done is not None:
            done.set_result(None)
