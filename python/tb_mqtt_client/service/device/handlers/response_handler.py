"""Answers of the platform to requests of the device."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tb_mqtt_client.service.device.handlers.message_handler import MessageHandler
from tb_mqtt_client.service.device.message_adapter import MessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport
from tb_mqtt_client.service.pending_requests import PendingRequests


class _Answer(Protocol):
    @property
    def request_id(self) -> Any: ...


A = TypeVar("A", bound=_Answer)


class ResponseHandler(MessageHandler, ABC, Generic[A]):
    """Finds the request that an answer belongs to. ``pending`` has the requests; some have an outcome that waits for its answer."""

    def __init__(self, message_adapter: MessageAdapter | None = None, report: InboundReport | None = None) -> None:
        super().__init__(message_adapter, report)
        self.pending: PendingRequests[int, A] = PendingRequests()
        self._outcomes: dict[int, asyncio.Task[Any]] = {}

    def clear(self) -> None:
        """Forget all requests; what waits for them is cancelled."""
        self.pending.cancel_all()

    @abstractmethod
    def _parse(self, topic: str, payload: bytes) -> A:
        """The answer in a message. Raises ``ValueError``."""

    def _hold(self, request_id: int, outcome: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run what follows an answer; ``handle`` waits for it."""
        task = asyncio.create_task(outcome, name=f"tb-mqtt-client outcome of request {request_id}")
        self._outcomes[request_id] = task
        task.add_done_callback(partial(self._outcome_ended, request_id))
        return task

    def _outcome_ended(self, request_id: int, task: asyncio.Task[Any]) -> None:
        if self._outcomes.get(request_id) is task:
            del self._outcomes[request_id]

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an answer, and wait until the callback of its request has taken it."""
        try:
            answer = self._parse(topic, payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        request_id = int(answer.request_id)
        outcome = self._outcomes.get(request_id)
        if not self.pending.answer(request_id, answer):
            self._report.message_unexpected(topic, "no request waits for this answer")
        elif outcome is not None:
            await asyncio.wait({outcome})
