"""One MQTT PUBLISH, and what its payload may weigh."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from gmqtt import Message

from tb_mqtt_client._native import DeviceIdentity, Payload
from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_TOPICS, TOPICS_WITH_DATAPOINTS_CHECK
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, Time
from tb_mqtt_client.entities.data.lazy_delivery import new_delivery

logger = get_logger(__name__)

MQTT_5 = 5
DEFAULT_MAX_REMAINING_LENGTH = 65536
"""Bytes: the server's own default (docs/platform_contract.md, fact 6)."""


def max_payload_size(topic: str, max_remaining_length: int, mqtt_version: int) -> int:
    """Bytes of payload that a QoS 1 PUBLISH may have.

    The server's limit is on the whole MQTT remaining length (docs/platform_contract.md, fact 6): the topic with its length,
    the packet id and, in MQTT 5, the length of the properties (none are sent) count too.
    """
    return max_remaining_length - (2 + len(topic.encode())) - 2 - (1 if mqtt_version == MQTT_5 else 0)


class MqttPublishMessage(Message):  # type: ignore[misc]  # gmqtt has no types
    """A message on its way to one topic.

    ``payload`` is bytes, or an uplink message that an adapter has yet to write. ``delivery_futures`` are answered with the
    message's ``PublishResult``. ``datapoints`` are those that it answers for, ``superseded`` those of them that are not in the
    payload, ``devices`` the device entries in it, which the server counts as messages, and ``packed`` says where they are;
    ``device`` is whose the payload is when it has no datapoints, or when the device was renamed since they were packed.
    ``is_sent`` says whether there was a PUBLISH. ``losses`` counts the connections that ended while it was in flight, and perhaps
    because of it. ``stamp`` says what had been published before it. Without ``resend`` a message is of its session only.
    """

    def __init__(
        self,
        topic: str,
        payload: bytes | DeviceUplinkMessage,
        qos: int = 1,
        retain: bool = False,
        datapoints: int = 0,
        delivery_futures: Delivery | Sequence[Delivery] | None = None,
        main_ts: Time = None,
        original_payload: DeviceUplinkMessage | None = None,
        **properties: Any,
    ) -> None:
        if qos not in {0, 1}:
            logger.warning("qos must be 0 or 1, not %r: 1 is used", qos)
            qos = 1
        # gmqtt's constructor is left out: it converts payloads, which are bytes here, and encodes the topic each time.
        self.topic = topic
        self.payload = payload
        self.payload_size = len(payload) if isinstance(payload, bytes) else payload.size
        self.qos = qos
        self.retain = retain
        self.dup = False
        self.properties = properties
        self.message_id: int | None = None
        self.datapoints = datapoints
        futures = [delivery_futures] if isinstance(delivery_futures, asyncio.Future) else delivery_futures
        if futures:
            # In place of the property below, which would make one.
            self.delivery_futures = list(futures)
        self.main_ts = main_ts
        self.original_payload = original_payload
        self.devices = 1
        self.superseded = 0
        self.payload_limit = 0
        self.packed: Payload | None = None
        self.device: DeviceIdentity | None = None
        self.is_sent = False
        self.losses = 0
        self.stamp: object = None
        self.resend = True

    @property
    def is_device_message(self) -> bool:
        """Whether the message is the connected device's own, and not one of a gateway for its sub-devices."""
        return self.topic not in GATEWAY_TOPICS

    @property
    def is_service_message(self) -> bool:
        """Whether the message has no datapoints: the server counts it as ``messages``."""
        return self.topic not in TOPICS_WITH_DATAPOINTS_CHECK

    @cached_property
    def delivery_futures(self) -> list[Delivery]:
        """The futures that are answered with the message's result. Without any given, one is made when it is asked for."""
        return [new_delivery()]

    @cached_property
    def uuid(self) -> uuid.UUID:
        """Identity of this message in logs."""
        return uuid.uuid4()

    def mark_as_sent(self, message_id: int | None) -> None:
        """Remember the packet id of the PUBLISH; QoS 0 has none."""
        self.message_id = message_id
        self.is_sent = True

    def result(self, reason_code: int) -> PublishResult:
        """What became of the message."""
        packet_id = self.message_id if self.message_id is not None else -1
        return PublishResult(self.topic, self.qos, packet_id, self.payload_size, reason_code, self.datapoints)

    def __repr__(self) -> str:
        return (
            f"MqttPublishMessage(topic={self.topic}, payload_size={self.payload_size}, qos={self.qos}, "
            f"datapoints={self.datapoints}, message_id={self.message_id})"
        )

    __str__ = __repr__
