"""Sends requests to the platform, whose responses are messages of their own. A device and a gateway share this part.

The rule: a request ends exactly once: with its response, a refusal, a lost connection, its timeout, a cancellation, or the end of
the client. Then it is forgotten, and if it is still queued, it is not published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.exceptions import ConnectionLostError, NotConnectedError, RequestRefusedError, TBMQTTError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import END_SECONDS, Tasks
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.requests.callbacks import Callback, call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.session.protocol import Session

K = TypeVar("K")
R = TypeVar("R")
Send = Callable[[MqttPublishMessage], DeliveryFuture]
"""Queues a message. Raises ``ValueError`` if it is too large, and ``NotConnectedError`` before ``connect()``."""
Withdraw = Callable[[MqttPublishMessage], None]
"""Removes a message from the queues, unless it was published."""


@dataclass(frozen=True, slots=True)
class _Pending(Generic[R]):
    response: asyncio.Future[R]
    message: MqttPublishMessage


class PendingRequests(Generic[K, R]):
    """Maps the keys of requests to the futures of their responses. A request whose future is done is removed."""

    def __init__(self) -> None:
        self._pending: dict[K, _Pending[R]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: object) -> bool:
        return key in self._pending

    def add(self, key: K, message: MqttPublishMessage) -> asyncio.Future[R]:
        """Add a request, and return the future of its response. Cancelling the future removes the request.

        Args:
            key: Identifies the response.
            message: The publish of the request.

        Raises:
            RuntimeError: A request with this key is pending.
        """
        known = self._pending.get(key)
        if known is not None and not known.response.done():
            raise RuntimeError(f"Request ID {key} is already registered.")
        response: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending[key] = _Pending(response, message)
        response.add_done_callback(partial(self._forget, key))
        return response

    def _forget(self, key: K, response: asyncio.Future[R]) -> None:
        pending = self._pending.get(key)
        if pending is not None and pending.response is response:
            del self._pending[key]

    def resolve(self, key: K, response: R) -> bool:
        """End a request with its response. Return False if no request with this key is pending."""
        pending = self._pending.pop(key, None)
        if pending is None or pending.response.done():
            return False
        pending.response.set_result(response)
        return True

    def fail_sent(self, error: Exception) -> None:
        """End the published requests with an error. Queued requests stay pending."""
        for pending in self._pending.values():
            if pending.message.is_sent and not pending.response.done():
                pending.response.set_exception(error)

    def fail_all(self, error: Exception) -> None:
        """End all requests with an error."""
        for pending in self._pending.values():
            if not pending.response.done():
                pending.response.set_exception(error)


class Requests:
    """Sends requests, and ends those that can no longer get a response."""

    def __init__(
        self,
        manager: Session,
        report: InboundReport,
        tasks: Tasks,
        send: Send,
        withdraw: Withdraw,
        *pending: PendingRequests[Any, Any],
    ) -> None:
        """Connect the parts. ``pending`` has all requests that will be sent."""
        self._manager = manager
        self._report = report
        self._owner = tasks
        self._send = send
        self._withdraw = withdraw
        self._all_pending = pending
        self._tasks: set[asyncio.Task[Any]] = set()
        manager.session_end_callbacks.append(self._session_ended)

    def _request(self, pending: PendingRequests[K, R], key: K, message: MqttPublishMessage) -> asyncio.Future[R]:
        """Queue a request, and return the future of its response. Cancelling the future withdraws the request."""
        delivery = self._send(message)
        response = pending.add(key, message)
        response.add_done_callback(lambda _: self._withdraw(message))
        delivery.add_done_callback(partial(_fail_refused, response))
        return response

    def _start(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = self._owner.start(work, "request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start_waiting(self, work: Coroutine[Any, Any, R], response: asyncio.Future[Any]) -> asyncio.Task[R]:
        """Start a task that waits for a response. When it ends, even before its first step, the response is cancelled."""
        task = self._start(work)
        task.add_done_callback(lambda _: response.cancel())
        return task

    def pass_to_callback(
        self,
        request: object,
        response: asyncio.Task[R],
        what: str,
        callback: Callback[Any],
        on_error: Callback[Any] | None = None,
    ) -> None:
        """Wait for a response in a task of its own, and call a callback with it.

        Args:
            request: The request; it is logged if it gets no response.
            response: The task that waits for the response.
            what: Names the response if the callback fails.
            callback: Called with the response.
            on_error: Called with the exception if there is no response.
        """
        self._start_waiting(self._pass_to_callback(request, response, what, callback, on_error), response)

    async def _pass_to_callback(
        self,
        request: object,
        response: asyncio.Task[R],
        what: str,
        callback: Callback[Any],
        on_error: Callback[Any] | None,
    ) -> None:
        try:
            result = await response
        except (TimeoutError, TBMQTTError) as error:
            self._report.request_unanswered(request, error)
            if on_error is not None:
                await call_reporting(self._report, "a request without a response", on_error, error)
            return
        await call_reporting(self._report, what, callback, result)

    def _session_ended(self, end: SessionEnd) -> None:
        error = ConnectionLostError(f"the connection ended before the response arrived: {end.cause}")
        for pending in self._all_pending:
            pending.fail_sent(error)

    async def stop(self) -> None:
        """End all requests with a ``NotConnectedError``. Callbacks get ``END_SECONDS`` to process it until they are cancelled."""
        error = NotConnectedError("the client was disconnected before the response arrived")
        for pending in self._all_pending:
            pending.fail_all(error)
        # A request that is made meanwhile ends with the connection, or is sent on the next one.
        tasks = list(self._tasks)
        await self._owner.wait(tasks, END_SECONDS)
        await self._owner.end(tasks)


def _fail_refused(response: asyncio.Future[Any], delivery: DeliveryFuture) -> None:
    result = delivery.result()
    if not result.is_successful() and not response.done():
        response.set_exception(RequestRefusedError(result.topic, result.reason_code))
