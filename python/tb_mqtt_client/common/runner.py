"""Run a program's event loop so that SIGTERM ends it as gracefully as Ctrl-C.

``asyncio.run`` knows SIGINT only. systemd and ``docker stop`` send SIGTERM, at which Python ends at once: what a client has queued
would be lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Self, TypeVar

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger

T = TypeVar("T")

logger: ExtendedLogger = get_logger(__name__)

# On Windows, SIGTERM can be handled, but is never sent by another process.
_DEFAULTS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def run(
    main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    sigterm_exit_code: int = 0,
) -> T:
    """Run a program like ``asyncio.run``, and end it gracefully on SIGTERM too.

    SIGTERM and SIGINT (Ctrl-C) cancel ``main``, so that ``async with DeviceClient(...)`` stops its client, which sends queued
    data (for 3 s, see ``DeviceClient.stop``). A second signal ends the process at once. A signal for which the program has set a
    handler is not changed. In a thread other than the main thread, this is ``asyncio.run``, because signals only reach the main
    thread.

    Args:
        main: The coroutine to run, or a function without arguments that returns it.
        debug: Whether the event loop runs in debug mode. ``None``: as ``PYTHONASYNCIODEBUG`` says.
        loop_factory: Makes the event loop, such as ``uvloop.new_event_loop``. ``None``: the event-loop policy's.
        sigterm_exit_code: The exit code after SIGTERM. 0 means a service that ended because it was asked to; a shell's own
            code for it is 143, which systemd treats as a failure.

    Returns:
        The result of ``main``, also when ``main`` returns normally after a signal.

    Raises:
        SystemExit: After SIGTERM, with ``sigterm_exit_code``.
        KeyboardInterrupt: After SIGINT.
        TypeError: If ``main`` is neither a coroutine nor a function.
        RuntimeError: If an event loop is running in this thread.
    """
    if _loop_is_running():
        raise RuntimeError("run() cannot be called from a running event loop")
    coroutine = main() if callable(main) else main
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(f"main must be a coroutine or a function that returns one, not of type {type(coroutine).__name__}")
    with _Signals() as signals, asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        try:
            return runner.run(signals.cancelling(coroutine))
        except asyncio.CancelledError:
            if signals.first is None:
                raise
    if signals.first == signal.SIGTERM:
        raise SystemExit(sigterm_exit_code)
    raise KeyboardInterrupt


class _Signals:
    """Cancels a task at the first signal, and leaves the second one to the operating system, which ends the process."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._task: asyncio.Task[Any] | None = None
        self._handled: list[signal.Signals] = []

    def __enter__(self) -> Self:
        # Only the main thread may set handlers, and only it runs them.
        if threading.current_thread() is threading.main_thread():
            self._handled = [number for number, default in _DEFAULTS.items() if signal.getsignal(number) == default]
            for number in self._handled:
                signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._handled:
            signal.signal(number, _DEFAULTS[number])
        self._handled = []

    async def cancelling(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine in the current task, which the first signal cancels."""
        self._task = asyncio.current_task()
        try:
            if self.first is not None:
                coroutine.close()
                raise asyncio.CancelledError
            return await coroutine
        finally:
            if self.first is None:
                # Nothing is left to end gracefully.
                self.__exit__()

    def _received(self, number: int, _frame: FrameType | None) -> None:
        self.first = signal.Signals(number)
        # The kernel does not deliver the default action to the first process of a container.
        at_once = _exit if os.getpid() == 1 else signal.SIG_DFL
        for handled in self._handled:
            signal.signal(handled, at_once)
        if self._task is not None:
            self._task.cancel()
            # Wakes the loop, too. A log handler must not be called here, where it may be interrupted itself.
            self._task.get_loop().call_soon_threadsafe(
                logger.info, "%s: stopping; a second signal ends the program at once", self.first.name
            )


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
