"""Requests whose answers come as messages of their own.

The rule: a request that was added ends once, with its answer, an error or a cancellation, and is forgotten then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage

K = TypeVar("K")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class _Pending(Generic[A]):
    answer: asyncio.Future[A]
    message: MqttPublishMessage


class PendingRequests(Generic[K, A]):
    """Futures of answers, by what tells the requests apart."""

    def __init__(self) -> None:
        self._pending: dict[K, _Pending[A]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: object) -> bool:
        return key in self._pending

    def add(self, key: K, message: MqttPublishMessage) -> asyncio.Future[A]:
        """Wait for an answer; whoever cancels the future waits no longer. ``message`` is the publish that asks for it.

        Raises ``RuntimeError`` for a request that is pending already.
        """
        known = self._pending.get(key)
        if known is not None and not known.answer.done():
            raise RuntimeError(f"Request ID {key} is already registered.")
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._pending[key] = _Pending(answer, message)
        answer.add_done_callback(partial(self._forget, key))
        return answer

    def _forget(self, key: K, answer: asyncio.Future[A]) -> None:
        pending = self._pending.get(key)
        if pending is not None and pending.answer is answer:
            del self._pending[key]

    def answer(self, key: K, answer: A) -> bool:
        """The answer came. False when nobody waits for it."""
        pending = self._pending.pop(key, None)
        if pending is None or pending.answer.done():
            return False
        pending.answer.set_result(answer)
        return True

    def fail_sent(self, error: Exception) -> None:
        """The connection ended: no answer will come to what was published on it."""
        for pending in self._pending.values():
            if pending.message.is_sent and not pending.answer.done():
                pending.answer.set_exception(error)

    def fail_all(self, error: Exception) -> None:
        """No answer will come to any request."""
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(error)
