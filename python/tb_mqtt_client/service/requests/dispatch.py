"""From a PUBLISH of the server to the callbacks of the user.

The rule: messages of one topic family are taken in the order of their arrival, and whatever a callback does (raise, take its
time, hang), the connection, the other families and ``stop`` go on. What waits is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.service.session.protocol import Handler, RefusedCallback

logger = get_logger(__name__)

QUIET_SECONDS = 60.0
"""After a line, the next ones of its kind are DEBUG lines for so long: a server can send faster than anybody reads."""
SHOWN_BYTES = 100


class InboundReport:
    """The counts of one client; the attributes are those of ``Statistics`` without "inbound"."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._log = OccasionalLog(logger, QUIET_SECONDS, clock)
        self.messages = self.malformed = self.unexpected = self.refused = self.callback_errors = 0

    def counts(self) -> dict[str, int]:
        """Fields of ``Statistics``."""
        return {
            "inbound_messages": self.messages,
            "inbound_malformed": self.malformed,
            "inbound_unexpected": self.unexpected,
            "inbound_refused": self.refused,
            "callback_errors": self.callback_errors,
        }

    def message_malformed(self, topic: str, payload: bytes, error: Exception) -> None:
        """A payload or a topic is not what the platform sends."""
        self.malformed += 1
        self._log.warn_of("malformed", "A message on %s cannot be read (%s): %r", topic, error, payload[:SHOWN_BYTES])

    def message_unexpected(self, topic: str, why: str) -> None:
        """Nobody waits for a message."""
        self.unexpected += 1
        self._log.warn_of("unexpected", "A message on %s is for nobody: %s", topic, why)

    def message_refused(self, topic: str, limit: int) -> None:
        """Too many messages wait for the callbacks."""
        self.refused += 1
        self._log.warn_of("refused", "A message on %s is refused: %d wait for their callbacks", topic, limit)

    def request_unanswered(self, request: object, error: Exception) -> None:
        """A request whose answer nobody awaits ends without one."""
        self._log.warn_of(f"unanswered, {type(error).__name__}", "%s ends without an answer: %s", request, error)

    def device_disconnected(self, device_name: str, reason: str) -> None:
        """The platform has trouble with a sub-device; it may have the same with thousands."""
        self._log.warn_of(f"disconnected, {reason}", "The platform says that %s is disconnected: %s", device_name, reason)

    def callback_failed(self, what: str, error: BaseException) -> None:
        """A callback of the user raised or gave what cannot be used: its traceback is told here."""
        self.callback_errors += 1
        self._log.warn_of(type(error).__name__, "The callback for %s failed", what, level=logging.ERROR, error=error)


DEFAULT_MAX_WAITING = 1000
"""Messages of one topic family that may wait for their callbacks."""


class InboundDispatcher:
    """Gives messages to the handlers of their topics."""

    def __init__(self, report: InboundReport, tasks: Tasks, max_waiting: int = DEFAULT_MAX_WAITING) -> None:
        self._report = report
        self._tasks = tasks
        self._max_waiting = max_waiting
        self._exact: dict[str, _Lane] = {}
        self._patterns: dict[str, _Lane] = {}

    def register(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        side_by_side: bool = False,
        owes_answer: bool = False,
        on_refused: RefusedCallback | None = None,
    ) -> None:
        """Give messages of a topic (``+`` stands for one level) to ``handler``; one for just this topic goes before.

        One message after the other, or each at once when they may run ``side_by_side``. With ``owes_answer`` the server waits for
        what the handler does, and so does ``Tasks.wait_replies``.
        """
        lanes = self._patterns if "+" in topic_filter else self._exact
        lanes[topic_filter] = _Lane(
            topic_filter, handler, self._report, self._tasks, self._max_waiting, side_by_side, owes_answer, on_refused
        )

    def unregister(self, topic_filter: str) -> None:
        """Forget a handler, and the messages that wait for it."""
        for lanes in (self._exact, self._patterns):
            lane = lanes.pop(topic_filter, None)
            if lane is not None:
                lane.clear()

    def dispatch(self, topic: str | bytes, payload: bytes) -> None:
        """Take a message: never raises and never waits. A topic that is no UTF-8 comes as bytes."""
        self._report.messages += 1
        if isinstance(topic, bytes):
            self._report.message_unexpected(repr(topic), "the topic is no UTF-8")
            return
        lane = self._lane(topic)
        if lane is None:
            self._report.message_unexpected(topic, "there is no handler for its topic")
        else:
            lane.put(topic, payload)

    def _lane(self, topic: str) -> _Lane | None:
        lane = self._exact.get(topic)
        if lane is not None:
            return lane
        return next((lane for topic_filter, lane in self._patterns.items() if matches(topic_filter, topic)), None)

    async def stop(self) -> None:
        """End the handlers that run, except one that this is called from, and forget the messages that wait."""
        lanes = self._lanes()
        for lane in lanes:
            lane.clear()
        await self._tasks.end(task for lane in lanes for task in lane.tasks)

    def _lanes(self) -> list[_Lane]:
        return [*self._exact.values(), *self._patterns.values()]


class _Lane:
    """The messages of one topic family."""

    def __init__(
        self,
        topic_filter: str,
        handler: Handler,
        report: InboundReport,
        tasks: Tasks,
        max_waiting: int,
        side_by_side: bool,
        owes_answer: bool,
        on_refused: RefusedCallback | None,
    ) -> None:
        self._name = f"handler of {topic_filter}"
        self._handler = handler
        self._report = report
        self._owner = tasks
        self._max_waiting = max_waiting
        self._side_by_side = side_by_side
        self._owes_answer = owes_answer
        self._on_refused = on_refused
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def put(self, topic: str, payload: bytes) -> None:
        if (len(self.tasks) if self._side_by_side else len(self._waiting)) >= self._max_waiting:
            self._report.message_refused(topic, self._max_waiting)
            if self._on_refused is not None:
                self._on_refused(topic, payload)
        elif self._side_by_side:
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
        task = self._owner.start(work, self._name, owes_reply=self._owes_answer)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task is self._worker:
            # Cancelled, perhaps before it began.
            self._worker = None
            self._wake_worker()

    async def _work(self) -> None:
        while self._waiting:
            await self._handle(*self._waiting.popleft())
        self._worker = None

    async def _handle(self, topic: str, payload: bytes) -> None:
        try:
            await self._handler(topic, payload)
        except Exception as error:  # noqa: BLE001  # a defect of a handler must not keep the messages behind it from theirs
            context = {"message": f"Error in the tb-mqtt-client {self._name}", "exception": error, "task": asyncio.current_task()}
            asyncio.get_running_loop().call_exception_handler(context)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic falls under a filter in which ``+`` stands for one level."""
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    return len(filter_levels) == len(levels) and all(
        expected in {"+", level} for expected, level in zip(filter_levels, levels, strict=True)
    )
