"""How a session ended, and who is told of what becomes of its messages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.server_address import ServerAddress


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended."""

    cause: str
    """For people."""
    reason_code: int | None = None
    """Of the server's DISCONNECT."""
    worked: bool = False
    """Whether the server took something in it after it was set up."""
    seconds: float = 0.0
    """How long it lasted, from its CONNACK."""
    expected: bool = False
    """Whether the server had said before what it would end it for."""
    error: Exception | None = None
    """Of the transport, or of reading."""
    by_server: bool = False
    """Whether the server ended it, or something that cannot be distinguished from that."""
    tells_reasons: bool = True
    """Whether the server could have said why: MQTT 3.1.1 has no reason codes."""
    server: ServerAddress | None = None

    def __str__(self) -> str:
        return self.cause if self.server is None else f"{self.server}: {self.cause}"


SessionEndCallback = Callable[[SessionEnd], None]
AcknowledgedCallback = Callable[[MqttPublishMessage, int], None]
"""Called with a message and the reason code of its PUBACK."""
ConnectionLostCallback = Callable[[list[MqttPublishMessage], SessionEnd], None]
"""Called with the messages that were not acknowledged, in the order in which they were published."""
RetryCallback = Callable[[MqttPublishMessage], Coroutine[Any, Any, None]]
EventCallback = Callable[[], Coroutine[Any, Any, None]]


def answer(message: MqttPublishMessage, reason_code: int) -> None:
    """Answer a message's futures."""
    result = message.result(reason_code)
    for delivery in message.delivery_futures:
        if not delivery.done():
            delivery.set_result(result)


def answer_undelivered(messages: list[MqttPublishMessage], _: SessionEnd) -> None:
    """Answer messages that nobody sends again."""
    for message in messages:
        answer(message, LocalReasonCode.NOT_DELIVERED)
