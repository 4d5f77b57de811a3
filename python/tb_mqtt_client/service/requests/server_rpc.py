"""Remote procedure calls of the platform while their callbacks run: what a device and a gateway share.

The rule: whatever a callback does, there is an answer, in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.service.requests.callbacks import ENDS_THE_PROGRAM
from tb_mqtt_client.service.requests.dispatch import InboundReport

logger = get_logger(__name__)

DEFAULT_CALLBACK_TIMEOUT = 60.0
"""Seconds that a callback may take."""

MAX_REFUSALS = 100
"""Answers to calls that are refused for their number, which wait to be published: beyond these a call gets none."""

R = TypeVar("R")


class PlatformCalls:
    """Runs what answers the calls, each at most so long, and not again while it runs."""

    def __init__(self, report: InboundReport, tasks: Tasks, callback_timeout: float = DEFAULT_CALLBACK_TIMEOUT) -> None:
        self._report = report
        self._tasks = tasks
        self._callback_timeout = callback_timeout
        self._running: set[tuple[str, bytes]] = set()
        self._overdue: set[asyncio.Future[Any]] = set()
        self._refusals = 0

    def answer(self, send: Callable[[R], Delivery], response: R, failed: Callable[[BaseException], R]) -> Delivery | None:
        """Queue an answer with ``send``; what it refuses (too large, or nothing for JSON) becomes an error, which ``failed`` makes.

        ``None`` when the client was stopped.
        """
        try:
            return send(response)
        except NotConnectedError:
            logger.debug("The client was stopped before %r was sent", response)
            return None
        except ValueError as error:
            self._report.callback_failed(f"an RPC call, whose answer {response!r:.100} cannot be sent", error)
            return send(failed(error))

    def refuse(self, send: Callable[[], Delivery | None]) -> None:
        """Answer a call with what ``send`` queues, unless too many such answers wait."""
        if self._refusals >= MAX_REFUSALS:
            return
        delivery = send()
        if delivery is not None:
            self._refusals += 1
            delivery.add_done_callback(self._refusal_sent)

    def _refusal_sent(self, _delivery: Delivery) -> None:
        self._refusals -= 1

    async def run(
        self,
        topic: str,
        payload: bytes,
        what: str,
        work: Callable[[], Coroutine[Any, Any, R]],
        failed: Callable[[BaseException], R],
    ) -> R | None:
        """What ``work`` gives for a call, or what ``failed`` makes of its error or of its time being over, which is reported.

        ``None`` for a copy of a call that runs, as the server may send one (docs/platform_contract.md, section 2).
        """
        copy = topic, payload
        if copy in self._running:
            self._report.message_unexpected(topic, "the same call is running, which will be answered once")
            return None
        self._running.add(copy)
        try:
            return await self._in_time(what, work, failed)
        finally:
            self._running.discard(copy)

    async def _in_time(self, what: str, work: Callable[[], Coroutine[Any, Any, R]], failed: Callable[[BaseException], R]) -> R:
        task = self._tasks.fork(work(), f"callback for {what}")
        try:
            await asyncio.wait({task}, timeout=self._callback_timeout)
        except asyncio.CancelledError:
            await self._tasks.end({task})
            raise
        if not task.done():
            self._give_up(task)
            return self._failed(what, TimeoutError(f"the device did not answer within {self._callback_timeout:g} s"), failed)
        try:
            return task.result()
        except ENDS_THE_PROGRAM:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
            return self._failed(what, error, failed)

    def _failed(self, what: str, error: BaseException, failed: Callable[[BaseException], R]) -> R:
        self._report.callback_failed(what, error)
        return failed(error)

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._overdue.add(task)
        task.add_done_callback(self._overdue_ended)
        task.cancel()

    def _overdue_ended(self, task: asyncio.Future[Any]) -> None:
        self._overdue.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report.callback_failed("an RPC call that was given up", error)
