"""What both synchronous clients are made of: an asyncio client in the shared event loop, and the ways into and out of that loop."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import partial, wraps
from time import monotonic
from typing import Any, TypeVar

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt, seconds_or_none
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.publish_result import PublishResult, pending_result
from tb_mqtt_client.constants.option_values import Priority, PriorityName
from tb_mqtt_client.service.device.client import DeviceClient
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.service.requests.handlers import F
from tb_mqtt_client.sync.callback_thread import CallbackThread
from tb_mqtt_client.sync.loop_thread import LoopThread, User, shared_loop_thread
from tb_mqtt_client.sync.pending import Delivery, Joined, PendingResult, Waiters, Work

T = TypeVar("T")

logger: ExtendedLogger = get_logger(__name__)

EXIT_TIMEOUT = 10.0
"""Seconds for which a client that was not stopped sends its queued data when the program ends."""
CALLBACK_SECONDS = 1.0
"""Seconds that ``stop`` waits for a running callback to return."""


class Limit:
    """The time that a call may still take."""

    def __init__(self, timeout: float | None) -> None:
        """Begin to count ``timeout`` seconds; ``None`` or a negative number for no limit."""
        limit = seconds_or_none(timeout)
        self._end = None if limit is None else monotonic() + limit

    def left(self) -> float | None:
        """Return the seconds that are left; ``None`` without a limit."""
        return None if self._end is None else max(0.0, self._end - monotonic())


class Runtime(User):
    """Runs one asyncio client for threads."""

    def __init__(self, core: DeviceClient, exit_timeout: float = EXIT_TIMEOUT) -> None:
        """Create the runtime of a client, without starting a thread.

        Args:
            core: The asyncio client.
            exit_timeout: Seconds for which the client sends queued data at the end of the program.
        """
        self._core = core
        self.waiters: Waiters = Waiters(self._post)
        self.callbacks: CallbackThread = CallbackThread(self._hold, self._release, self._callback_failed)
        """The thread for callbacks."""
        self._exit_timeout = exit_timeout
        self._loop_thread: LoopThread | None = None
        self._broken = ""

    # The life of the threads.

    def start(self) -> None:
        """Keep the event loop running until ``end``."""
        self._hold(self)

    def end(self) -> None:
        """End the thread for callbacks, and the event loop if no other client uses it. Wait for that, except in a callback."""
        callbacks = self.callbacks.end()
        is_callback = callbacks is threading.current_thread()
        if callbacks is not None and not is_callback:
            callbacks.join(CALLBACK_SECONDS)
        loop = self._release(self)
        if loop is not None and not is_callback:
            loop.join()

    def end_if_unused(self) -> None:
        """End the threads if the client was never started, or is stopped."""
        if self._core.state in {ClientState.NEW, ClientState.STOPPED}:
            self.end()

    def _hold(self, user: User) -> None:
        if self._broken:
            raise RuntimeError(self._broken)
        self._loop_thread = self._loop_thread or shared_loop_thread()
        self._loop_thread.hold(user, self.waiters)

    def _release(self, user: User) -> threading.Thread | None:
        return self._loop_thread.release(user) if self._loop_thread is not None else None

    def stop_at_exit(self) -> Work[None] | None:
        """Begin to stop the client, because the program ends."""
        if self._loop_thread is None:
            return None
        return self._loop_thread.start_work(self.waiters, partial(self._core.stop, self._exit_timeout))

    def break_off(self, cause: str) -> None:
        """Let all calls raise ``RuntimeError``: the event loop no longer runs."""
        self._broken = cause
        self.waiters.break_off(cause)
        self.callbacks.end()

    # Into the event loop.

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], *, is_short: bool = False) -> T:
        """Run a coroutine in the event loop, and return its result. It is cancelled if this is interrupted, by Ctrl-C for example.

        Args:
            make: Returns the coroutine, in the event loop.
            is_short: Whether the coroutine does not wait, so that a thread with an event loop of its own may run it.

        Raises:
            RuntimeError: This thread runs an event loop, which must not be blocked.
            Exception: The exception of the coroutine.
        """
        self.waiters.require_may_wait(is_short=is_short)
        user = User()
        self._hold(user)
        try:
            assert self._loop_thread is not None
            work = self._loop_thread.start_work(self.waiters, make)
            try:
                self.waiters.wait(work, None, is_short=is_short)
                return work.result()
            except BaseException:
                work.cancel()
                raise
        finally:
            loop = self._release(user)
            if loop is not None:
                # The client was not started.
                loop.join()

    @staticmethod
    def run_once(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine that needs no client in the event loop, and return its result, as ``run`` does."""
        waiters = Waiters(_nothing_posted)
        waiters.require_may_wait()
        user, loop_thread = User(), shared_loop_thread()
        loop_thread.hold(user, waiters)
        ending = None
        try:
            work = loop_thread.start_work(waiters, make)
            try:
                return work.result()
            except BaseException:
                work.cancel()
                raise
        finally:
            ending = loop_thread.release(user)
            if ending is not None:
                ending.join()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the event loop if it runs, and here otherwise. Return its result."""

        async def call_it() -> T:
            return function()

        if self._broken or self._core.state in {ClientState.NEW, ClientState.STOPPED}:
            return function()
        # In the event loop, the numbers of one snapshot belong together.
        return self.run(call_it, is_short=True)

    def send(
        self,
        uplink: EncodedUplink,
        topic: str,
        wait: bool,
        timeout: float | None,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send encoded data.

        Args:
            uplink: The data.
            topic: The topic that a result after the timeout has.
            wait: Whether to wait for the result.
            timeout: Seconds that this may take; ``None`` for no limit.
            priority: As for ``DeviceClient.send_timeseries``.
            expires_after: As for ``DeviceClient.send_timeseries``.

        Returns:
            The result, or a pending result if ``wait`` is false.
        """
        if self._broken:
            raise RuntimeError(self._broken)
        delivery: Delivery = PendingResult(self.waiters)
        if not wait:
            limit_seconds = None if timeout is None else seconds_or_none(timeout)
            self._core.submit(uplink, delivery, limit_seconds, priority=priority, expires_after=expires_after)
            return delivery
        self.waiters.require_may_wait()
        limit = Limit(timeout)
        self._core.submit(uplink, delivery, limit.left(), priority=priority, expires_after=expires_after)
        return self._result(delivery, limit, topic, uplink.nbytes)

    def send_uplinks(
        self,
        uplinks: Sequence[EncodedUplink],
        topic: str,
        wait: bool,
        timeout: float | None,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> PublishResult | Delivery:
        """Send encoded data, all of which has one result, as ``send`` does."""
        if not uplinks:
            raise ValueError("uplinks must not be empty")
        if len(uplinks) == 1:
            return self.send(uplinks[0], topic, wait, timeout, priority, expires_after)
        delivery: Delivery = PendingResult(self.waiters)
        joined = Joined(delivery, len(uplinks))
        limit = self._submit_all([(uplink, joined.part()) for uplink in uplinks], wait, timeout, priority, expires_after)
        return self._result(delivery, limit, topic, sum(uplink.nbytes for uplink in uplinks)) if wait else delivery

    def send_each(
        self,
        uplinks: Sequence[EncodedUplink],
        topic: str,
        wait: bool,
        timeout: float | None,
        priority: Priority | PriorityName = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> list[PublishResult] | list[Delivery]:
        """Send encoded data, each with a result of its own, as ``send`` does.

        Returns:
            The results, or the pending results if ``wait`` is false, in the same order.
        """
        deliveries: list[Delivery] = [PendingResult(self.waiters) for _ in uplinks]
        sends = list(zip(uplinks, deliveries, strict=True))
        limit = self._submit_all(sends, wait, timeout, priority, expires_after)
        if not wait:
            return deliveries
        return [self._result(delivery, limit, topic, uplink.nbytes) for uplink, delivery in sends]

    def _submit_all(
        self,
        sends: Sequence[tuple[EncodedUplink, SendReceipt]],
        wait: bool,
        timeout: float | None,
        priority: Priority | PriorityName,
        expires_after: float | None,
    ) -> Limit:
        """Hand sends over to the loop's thread; return what is left of the timeout."""
        if self._broken:
            raise RuntimeError(self._broken)
        if wait:
            self.waiters.require_may_wait()
        limit = Limit(timeout)
        self._core.submit_many(sends, limit.left(), priority=priority, expires_after=expires_after)
        return limit

    def _result(self, delivery: Delivery, limit: Limit, topic: str, size: int) -> PublishResult:
        try:
            return delivery.result(limit.left())
        except TimeoutError:
            return pending_result(topic, 1, size)

    def new_delivery(self) -> Delivery:
        """Return a pending result that nothing resolves yet."""
        return PendingResult(self.waiters)

    def deliver(self, make: Callable[[], Coroutine[Any, Any, DeliveryFuture]]) -> Delivery:
        """Run a coroutine that returns the future of a message, and return the pending result of the message."""
        delivery = self.new_delivery()

        async def begin() -> None:
            (await make()).add_done_callback(delivery.take)

        self.run(begin)
        return delivery

    # Out of the event loop.

    def bridge(self, name: str, callback: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """Return a coroutine function that calls a function in the thread for callbacks.

        Raises:
            TypeError: ``callback`` cannot be called, or is a coroutine function.
        """
        require_plain(name, callback)
        return partial(self.callbacks.run, callback)

    def _post(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.callbacks.post(function, *arguments)

    def _callback_failed(self, what: str, error: BaseException) -> None:
        try:
            self.waiters.call_soon(partial(self._core.report_callback_error, what, error), copy_context())
        except RuntimeError:
            # The next callbacks are called nevertheless.
            logger.exception("The callback for %s failed after the event loop of its client had ended", what, exc_info=error)


def _nothing_posted(*_: object) -> None: ...


def plain_only(decorator: Callable[[F], F], bridge: Callable[[str, Callable[..., Any]], Any] | None = None) -> Callable[[F], F]:
    """Return a decorator that refuses coroutine functions.

    Args:
        decorator: Registers a function.
        bridge: Returns the coroutine function that is registered in place of a function; ``None`` to register that itself.
    """

    def decorate(function: F) -> F:
        require_plain("the handler", function)
        registered: Any = function if bridge is None else wraps(function)(bridge("the handler", function))
        decorator(registered)
        return function

    return decorate


def require_plain(name: str, callback: object) -> None:
    """Raise ``TypeError`` if a callback cannot be called, or is a coroutine function."""
    if inspect.iscoroutinefunction(callback):
        raise TypeError(f"{name} must be a plain function: coroutine functions are for the asyncio clients")
    if not callable(callback):
        raise TypeError(f"{name} must be a function, not {callback!r}")
