"""Dispatches the server's messages to their handlers, and counts and logs messages that cannot be processed.

The rule: the handlers of one topic family start in the order of the messages. Whatever a callback does (raise, block for long,
hang), it does not stop the connection, the other families, or ``stop``. The number of waiting messages is limited.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.service.session.protocol import DEFAULT_OPTIONS, Handler, HandlerOptions

logger: ExtendedLogger = get_logger(__name__)

QUIET_SECONDS = 60.0
"""Seconds after a log line during which further lines of its kind have the level DEBUG: a server may send thousands a second."""
SHOWN_BYTES = 100
"""Bytes of a malformed payload in its log line."""


class InboundReport:
    """Counts and logs messages and callbacks of one client. The attributes are fields of ``Statistics`` without ``inbound_``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start at zero. ``clock`` returns monotonic seconds."""
        self._log = OccasionalLog(logger, QUIET_SECONDS, clock)
        self.messages: int = 0
        self.malformed: int = 0
        self.unexpected: int = 0
        self.refused: int = 0
        self.callback_errors: int = 0

    def counts(self) -> dict[str, int]:
        """Return the counts as fields of ``Statistics``."""
        return {
            "inbound_messages": self.messages,
            "inbound_malformed": self.malformed,
            "inbound_unexpected": self.unexpected,
            "inbound_refused": self.refused,
            "callback_errors": self.callback_errors,
        }

    def message_malformed(self, topic: str, payload: bytes, error: Exception) -> None:
        """Count a message with a payload or topic that the platform does not send."""
        self.malformed += 1
        self._log.warn_of("malformed", "A message on %s cannot be read (%s): %r", topic, error, payload[:SHOWN_BYTES])

    def message_unexpected(self, topic: str, why: str) -> None:
        """Count a message without a receiver."""
        self.unexpected += 1
        self._log.warn_of("unexpected", "Unexpected message on %s: %s", topic, why)

    def message_refused(self, topic: str, limit: int) -> None:
        """Count a message that is not processed, because ``limit`` others are waiting for their callbacks."""
        self.refused += 1
        self._log.warn_of("refused", "Dropping a message on %s: %d others are waiting for their callbacks", topic, limit)

    def attribute_refused(self, handler: str, error: Exception) -> None:
        """Count an attribute update with a value that its handler cannot take."""
        self.malformed += 1
        self._log.warn_of(f"attribute, {handler}", "%s is not called for an attribute update: %s", handler, error)

    def request_unanswered(self, request: object, error: Exception) -> None:
        """Log that a request, which no caller awaits, got no response."""
        self._log.warn_of(f"unanswered, {type(error).__name__}", "%s got no response: %s", request, error)

    def device_disconnected(self, device_name: str, reason: str) -> None:
        """Log a notice of a disconnected sub-device. The same reason may concern thousands of devices."""
        self._log.warn_of(f"disconnected, {reason}", "The platform reports that %r is disconnected: %s", device_name, reason)

    def callback_failed(self, what: str, error: BaseException) -> None:
        """Count a callback that raised or returned an unusable value, and log its traceback."""
        self.callback_errors += 1
        self._log.warn_of(type(error).__name__, "The callback for %s failed", what, level=logging.ERROR, error=error)


Tap = Callable[[str, bytes], None]
"""Called with topic and payload."""
DEFAULT_MAX_WAITING = 1000
"""Messages of one topic family that may wait for their callbacks."""


class InboundDispatcher:
    """Passes messages to the handlers of their topics."""

    def __init__(self, report: InboundReport, tasks: Tasks, max_waiting: int = DEFAULT_MAX_WAITING) -> None:
        self._report = report
        self._tasks = tasks
        self._max_waiting = max_waiting
        self._exact: dict[str, _Lane] = {}
        self._patterns: dict[str, _Lane] = {}
        self._taps: list[tuple[str, Tap]] = []
        """A topic filter and a function, which is called with each matching message before the handler of the message."""
        self._further: list[_Lane] = []

    def tap(self, topic_filter: str, tap: Tap) -> Callable[[], None]:
        """Call a function with messages, whether or not their topic has a handler. A message with a tap is not unexpected.

        Args:
            topic_filter: A topic, or a filter in which ``+`` stands for one level and ``#`` at the end for any number of them.
            tap: Is called in the event loop, before the handler. It does not wait, and raises nothing.

        Returns:
            A function that removes the tap.
        """
        entry = (topic_filter, tap)
        self._taps.append(entry)

        def remove() -> None:
            self._taps = [other for other in self._taps if other is not entry]

        return remove

    def register_further(self, topic_filter: str, handler: Handler) -> Callable[[], None]:
        """Pass messages to a further handler through a tap, so that the handler may wait.

        Args:
            topic_filter: As for ``tap``.
            handler: A coroutine function, which gets one message after the other.

        Returns:
            A function that removes the handler and its waiting messages.
        """
        lane = _Lane(topic_filter, handler, DEFAULT_OPTIONS, self._report, self._tasks, self._max_waiting)
        self._further.append(lane)
        remove_tap = self.tap(topic_filter, lane.put)

        def remove() -> None:
            remove_tap()
            lane.clear()
            self._further = [other for other in self._further if other is not lane]

        return remove

    def register(self, topic_filter: str, handler: Handler, options: HandlerOptions = DEFAULT_OPTIONS) -> None:
        """Pass messages to a handler.

        Args:
            topic_filter: A topic, or a filter in which ``+`` stands for one level. The handler of a topic takes precedence.
            handler: A coroutine function.
            options: How the messages are handled.
        """
        lanes = self._patterns if "+" in topic_filter else self._exact
        lanes[topic_filter] = _Lane(topic_filter, handler, options, self._report, self._tasks, self._max_waiting)

    def unregister(self, topic_filter: str) -> None:
        """Remove a handler, and its waiting messages."""
        for lanes in (self._exact, self._patterns):
            lane = lanes.pop(topic_filter, None)
            if lane is not None:
                lane.clear()

    def dispatch(self, topic: str | bytes, payload: bytes) -> None:
        """Pass a message to its handler, without waiting for it. Raises nothing. A topic that is not UTF-8 is given as bytes."""
        self._report.messages += 1
        if isinstance(topic, bytes):
            self._report.message_unexpected(repr(topic), "the topic is not UTF-8")
            return
        taps = [tap for topic_filter, tap in self._taps if matches(topic_filter, topic)] if self._taps else ()
        for tap in taps:
            tap(topic, payload)
        lane = self._lane(topic)
        if lane is None and not taps:
            self._report.message_unexpected(topic, "there is no handler for its topic")
        elif lane is not None:
            lane.put(topic, payload)

    def _lane(self, topic: str) -> _Lane | None:
        lane = self._exact.get(topic)
        if lane is not None:
            return lane
        return next((lane for topic_filter, lane in self._patterns.items() if matches(topic_filter, topic)), None)

    async def stop(self) -> None:
        """Cancel the running handlers, except the one that calls this, and drop the waiting messages."""
        lanes = self._lanes()
        for lane in lanes:
            lane.clear()
        await self._tasks.end(task for lane in lanes for task in lane.tasks)

    def _lanes(self) -> list[_Lane]:
        return [*self._exact.values(), *self._patterns.values(), *self._further]


class _Lane:
    """The waiting messages and running handlers of one topic family."""

    def __init__(
        self,
        topic_filter: str,
        handler: Handler,
        options: HandlerOptions,
        report: InboundReport,
        tasks: Tasks,
        max_waiting: int,
    ) -> None:
        self.topic_filter = topic_filter
        self._name = f"handler of {topic_filter}"
        self._handler = handler
        self._options = options
        self._report = report
        self._owner = tasks
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def put(self, topic: str, payload: bytes) -> None:
        options = self._options
        if (len(self.tasks) if options.concurrent else len(self._waiting)) >= self._max_waiting:
            self._report.message_refused(topic, self._max_waiting)
            if options.on_refused is not None:
                options.on_refused(topic, payload)
        elif options.concurrent:
            self._start(self._handle(topic, payload))
        else:
            self._waiting.append((topic, payload))
            self._wake_worker()

    def clear(self) -> None:
        self._waiting.clear()

    def _wake_worker(self) -> None:
        if self._worker is None and self._waiting:
            self._worker = self._start(self._work())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._owner.start(work, self._name, owes_reply=self._options.owes_reply)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task is self._worker:
            # The task was cancelled, perhaps before its first step.
            self._worker = None
            self._wake_worker()

    async def _work(self) -> None:
        while self._waiting:
            await self._handle(*self._waiting.popleft())
        self._worker = None

    async def _handle(self, topic: str, payload: bytes) -> None:
        try:
            await self._handler(topic, payload)
        except Exception as error:  # noqa: BLE001  # a defect of a handler must not delay later messages
            # Without the task: from Python 3.12 on, asyncio would call the exception handler in the context of that task, which is
            # this one, and a context cannot be entered twice.
            context = {"message": f"Error in the tb-mqtt-client {self._name}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a topic matches a filter in which ``+`` stands for one level, and ``#`` for the rest of them."""
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    if filter_levels[-1] == "#":
        # MQTT 5, section 4.7.1.2: it includes the parent level.
        del filter_levels[-1]
        levels = levels[: len(filter_levels)]
    return len(filter_levels) == len(levels) and all(
        expected in {"+", level} for expected, level in zip(filter_levels, levels, strict=True)
    )
