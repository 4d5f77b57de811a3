"""What the server allows in a session: its answer to ``getSessionLimits`` (platform_contract.md, section 5)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tb_mqtt_client.common.mqtt_message import DEFAULT_MAX_REMAINING_LENGTH, MqttPublishMessage
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.constants.mqtt_topics import build_device_rpc_request_topic, build_device_rpc_response_topic

if TYPE_CHECKING:
    from tb_mqtt_client.service.mqtt_manager import MQTTManager

REQUEST = b'{"method":"getSessionLimits","params":{}}'

DEFAULT_MAX_PAYLOAD_SIZE = DEFAULT_MAX_REMAINING_LENGTH
"""Bytes of remaining length, for servers that do not tell (before 3.8)."""

RateLimitTexts = dict[str, str | None]
"""``"100:1,3000:60"`` by the platform's names: messages, telemetryMessages, telemetryDataPoints. ``None``: no limit."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits of one session. The defaults are for servers that do not tell theirs."""

    max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE
    """Bytes of the MQTT remaining length (platform_contract.md, fact 6)."""
    device: RateLimitTexts = field(default_factory=dict)
    """For the connected device's own traffic."""
    gateway: RateLimitTexts = field(default_factory=dict)
    """For the sum of a gateway's sub-devices (platform_contract.md, fact 4)."""
    announced: bool = False
    """Whether the server told them."""

    @classmethod
    def parse(cls, payload: bytes) -> SessionLimits:
        """Read the server's answer. Raises ``ValueError`` when it is something else, as an old server's error is."""
        reply = json.loads(payload)
        if not isinstance(reply, dict) or "error" in reply:
            raise ValueError(f"not an answer to getSessionLimits: {payload[:200]!r}")
        size = reply.get("maxPayloadSize")
        return cls(
            size if isinstance(size, int) and size > 0 else DEFAULT_MAX_PAYLOAD_SIZE,
            _texts(reply.get("rateLimits")),
            _texts(reply.get("gatewayRateLimits")),
            announced=True,
        )


def _texts(limits: Any) -> RateLimitTexts:
    return limits if isinstance(limits, dict) else {}


def apply_rate_limits(limiter: RateLimiter, texts: RateLimitTexts, percentage: int) -> None:
    """Set the three limits of one limiter. What was spent stays spent: the server's buckets survive a reconnect."""
    limiter.message_rate_limit.set_windows_of(texts.get("messages"), percentage)
    limiter.telemetry_message_rate_limit.set_windows_of(texts.get("telemetryMessages"), percentage)
    limiter.telemetry_datapoints_rate_limit.set_windows_of(texts.get("telemetryDataPoints"), percentage)


async def request_session_limits(manager: MQTTManager, request_id: int) -> bytes:
    """Ask for the limits of this session: the answer as it came.

    Servers before 3.8 do not answer, and other brokers neither. Raises ``ConnectionLostError`` when the session ends.
    """
    reply: asyncio.Future[bytes] = manager.session_future()

    async def receive(_topic: str, payload: bytes) -> None:
        if not reply.done():
            reply.set_result(payload)

    topic = build_device_rpc_response_topic(request_id)
    manager.register_handler(topic, receive)
    try:
        request = MqttPublishMessage(build_device_rpc_request_topic(request_id), REQUEST)
        request.resend = False
        manager.publish_now(request)
        return await reply
    finally:
        manager.unregister_handler(topic)
        reply.cancel()
