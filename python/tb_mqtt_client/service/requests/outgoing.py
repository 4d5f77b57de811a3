"""Requests to the platform whose answers come as messages of their own: what a device and a gateway share.

The rule: each ends once, with an answer, a refusal, a lost connection, the end of its time or of the client, and is forgotten
then; what is not published by then never will be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.exceptions import ConnectionLostError, NotConnectedError, RequestRefusedError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import END_SECONDS, Tasks
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.requests.pending import PendingRequests
from tb_mqtt_client.service.session.protocol import Session

K = TypeVar("K")
A = TypeVar("A")
Send = Callable[[MqttPublishMessage], Delivery]
"""Queues a message. Raises ``ValueError`` when it is too large and ``NotConnectedError`` before ``connect()``."""
Withdraw = Callable[[MqttPublishMessage], None]
"""Takes a message back that was not published so far."""


class Requests:
    """Sends requests, and ends those that cannot be answered any more."""

    def __init__(self, manager: Session, tasks: Tasks, send: Send, withdraw: Withdraw, *pending: PendingRequests[Any, Any]) -> None:
        """``pending``: all requests that this asks."""
        self._manager = manager
        self._send = send
        self._withdraw = withdraw
        self._all_pending = pending
        self._owner = tasks
        self._tasks: set[asyncio.Task[Any]] = set()
        manager.session_end_callbacks.append(self._session_ended)

    def _ask(self, pending: PendingRequests[K, A], key: K, message: MqttPublishMessage) -> asyncio.Future[A]:
        """Queue a request; the future of its answer. Who cancels the future takes the request back."""
        delivery = self._send(message)
        answer = pending.add(key, message)
        answer.add_done_callback(lambda _: self._withdraw(message))
        delivery.add_done_callback(partial(_fail_refused, answer))
        return answer

    def _hold(self, work: Coroutine[Any, Any, A], waits_for: asyncio.Future[Any]) -> asyncio.Task[A]:
        """A task whose end, even before it has begun, is the end of what it waits for."""
        task = self._start(work)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: waits_for.cancel())
        return task

    def _start(self, work: Coroutine[Any, Any, A]) -> asyncio.Task[A]:
        task = self._owner.start(work, "request")
        self._tasks.add(task)
        return task

    def _session_ended(self, end: SessionEnd) -> None:
        error = ConnectionLostError(f"the connection ended before the answer came: {end.cause}")
        for pending in self._all_pending:
            pending.fail_sent(error)

    async def stop(self) -> None:
        """End all requests: those who wait get a ``NotConnectedError``, and callbacks a second to take it in."""
        error = NotConnectedError("the client was disconnected before the answer came")
        for pending in self._all_pending:
            pending.fail_all(error)
        await self._owner.wait(self._tasks, END_SECONDS)
        await self._owner.end(self._tasks)


def _fail_refused(answer: asyncio.Future[Any], delivery: Delivery) -> None:
    result = delivery.result()
    if not result.is_successful() and not answer.done():
        answer.set_exception(RequestRefusedError(result.topic, result.reason_code))
