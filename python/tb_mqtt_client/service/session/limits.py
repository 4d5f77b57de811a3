"""Requests the limits of a session, and applies them."""

from __future__ import annotations

import asyncio

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.constants.mqtt_topics import build_device_rpc_request_topic, build_device_rpc_response_topic
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.formats.json_session_limits import LIMIT_NAMES, REQUEST, RateLimitTexts
from tb_mqtt_client.service.session.protocol import Session


def apply_rate_limits(limiter: RateLimiter, texts: RateLimitTexts, percentage: int) -> None:
    """Set the three limits of one limiter. Tokens that were taken stay taken, because the server's buckets survive a reconnect."""
    for name, limit in zip(LIMIT_NAMES, limiter.values(), strict=True):
        limit.set_windows_of(texts.get(name), percentage)


async def request_session_limits(session: Session, request_id: int) -> bytes:
    """Request the limits of this session, and return the payload of the reply.

    Servers before 3.8 and other brokers do not reply: the caller limits the time.

    Raises:
        ConnectionLostError: The session ends first.
    """
    reply: asyncio.Future[bytes] = session.session_future()

    async def receive(_topic: str, payload: bytes) -> None:
        if not reply.done():
            reply.set_result(payload)

    topic = build_device_rpc_response_topic(request_id)
    session.register_handler(topic, receive)
    try:
        request = MqttPublishMessage(build_device_rpc_request_topic(request_id), REQUEST)
        session.publish_now(WorkItem.of(request, resend=False))
        return await reply
    finally:
        session.unregister_handler(topic)
        reply.cancel()
