"""Runs the callbacks for server-side RPC, and sends the responses. A device and a gateway share this part.

The rule: whatever a callback does, the platform gets a response in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.exceptions import NotConnectedError, RPCRefusal
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.service.requests.callbacks import ENDS_THE_PROGRAM
from tb_mqtt_client.service.requests.dispatch import InboundReport

logger: ExtendedLogger = get_logger(__name__)

MAX_REFUSALS = 100
"""The largest number of queued responses that refuse RPC requests, of which too many are running. Others get no response."""

R = TypeVar("R")
"""A response."""


def error_of(error: BaseException) -> str | dict[str, Any] | BaseException:
    """Return what an error response says about an exception of a callback: a refusal's own text, or the exception itself."""
    return error.error if isinstance(error, RPCRefusal) else error


class ServerSideRPC(Generic[R]):
    """Runs callbacks within a time limit, and only one for each RPC request."""

    def __init__(
        self,
        report: InboundReport,
        tasks: Tasks,
        send: Callable[[R], DeliveryFuture],
        error_response: Callable[[R, str], R],
        callback_timeout: float,
    ) -> None:
        """Connect the parts.

        Args:
            report: Counts and logs failed callbacks.
            tasks: Owns the tasks of the callbacks.
            send: Queues a response. Raises ``ValueError`` for one that is too large or that JSON cannot carry, and
                ``NotConnectedError`` when the client is stopped.
            error_response: Returns an error response with a text, to send instead of a response.
            callback_timeout: Seconds that a callback may take.
        """
        self._report = report
        self._tasks = tasks
        self._send = send
        self._error_response = error_response
        self._callback_timeout = callback_timeout
        self._running: set[tuple[str, bytes]] = set()
        self._refusals = 0
        self.max_refusals = MAX_REFUSALS
        """The largest number of queued responses that refuse RPC requests."""

    def respond(self, response: R) -> DeliveryFuture | None:
        """Queue a response, or an error response if it cannot be sent. Return ``None`` if the client was stopped."""
        try:
            return self._send(response)
        except NotConnectedError:
            logger.debug("The client was stopped before %r was sent", response)
            return None
        except ValueError as error:
            self._report.callback_failed(f"an RPC request, whose response {response!r:.100} cannot be sent,", error)
            return self._send(self._error_response(response, str(error)))

    def refuse(self, response: R) -> None:
        """Queue a response to an RPC request that is not processed, unless ``max_refusals`` such responses are queued."""
        if self._refusals >= self.max_refusals:
            return
        delivery = self.respond(response)
        if delivery is not None:
            self._refusals += 1
            delivery.add_done_callback(self._refusal_sent)

    def _refusal_sent(self, _delivery: DeliveryFuture) -> None:
        self._refusals -= 1

    async def run(
        self,
        topic: str,
        payload: bytes,
        what: str,
        work: Callable[[], Coroutine[Any, Any, R | None]],
        failed: Callable[[BaseException], R],
    ) -> R | None:
        """Run a callback for an RPC request, and report its failure.

        Args:
            topic: The topic of the request.
            payload: The payload of the request.
            what: Names the request if the callback fails.
            work: Calls the callback, and returns its response; ``None`` if the program sends it on its own.
            failed: Returns the response to a request whose callback failed, or did not end in time.

        Returns:
            The response; ``None`` if the program sends it on its own, and for a copy of a running request, as the server may send
            one (docs/platform_contract.md, section 2).
        """
        copy = topic, payload
        if copy in self._running:
            self._report.message_unexpected(topic, "a copy of an RPC request whose callback is still running")
            return None
        self._running.add(copy)
        try:
            return await self._in_time(what, work, failed)
        finally:
            self._running.discard(copy)

    async def _in_time(
        self, what: str, work: Callable[[], Coroutine[Any, Any, R | None]], failed: Callable[[BaseException], R]
    ) -> R | None:
        task = self._tasks.fork(work(), f"callback for {what}")
        try:
            await asyncio.wait({task}, timeout=self._callback_timeout)
        except asyncio.CancelledError:
            await self._tasks.end_part(task)
            raise
        if not task.done():
            task.add_done_callback(self._overdue_ended)
            task.cancel()
            return self._failed(what, TimeoutError(f"the device did not respond within {self._callback_timeout:g} s"), failed)
        try:
            return task.result()
        except ENDS_THE_PROGRAM:
            raise
        except RPCRefusal as refusal:
            # The caller's mistake, which only the caller has to know.
            logger.info("Refused %s: %s", what, refusal.error)
            return failed(refusal)
        except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
            return self._failed(what, error, failed)

    def _failed(self, what: str, error: BaseException, failed: Callable[[BaseException], R]) -> R:
        self._report.callback_failed(what, error)
        return failed(error)

    def _overdue_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report.callback_failed("an RPC request that was cancelled after its timeout", error)
