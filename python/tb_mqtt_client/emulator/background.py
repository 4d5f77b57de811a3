"""Timers and tasks, each with an owner that cancels them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Timers:
    """The pending timers of one owner."""

    def __init__(self) -> None:
        self._handles: set[asyncio.TimerHandle] = set()

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        """Run an action once, after some seconds."""

        def fire() -> None:
            self._handles.discard(handle)
            action(*arguments)

        handle = asyncio.get_running_loop().call_later(seconds, fire)
        self._handles.add(handle)

    def cancel(self) -> None:
        """Cancel all pending timers."""
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()


class Background:
    """The running tasks of one owner. An exception in a task is passed to `report`."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel all tasks and wait for them, except for the current task: an RPC handler may stop the emulator."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._report(error)
