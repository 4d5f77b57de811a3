"""One message to publish: the content of an MQTT PUBLISH."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.mqtt.gmqtt_bases import Message
from tb_mqtt_client.constants.mqtt_topics import Route, route_of
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, Time
from tb_mqtt_client.entities.data.lazy_delivery import new_delivery

logger: ExtendedLogger = get_logger(__name__)

DEFAULT_MAX_PACKET_SIZE: Final = 65536
"""Bytes of a packet's remaining length: the server's own default (docs/platform_contract.md, fact 6)."""


class MqttPublishMessage(Message):
    """A message for one topic: the content of a PUBLISH packet, and the futures of the program that made it."""

    retain: bool = False
    dup = False
    """Always false: MQTT 5 forbids publishing again on a live connection, and no packet outlives its session."""
    main_ts: Time = None
    """The time of datapoints without one, if the payload is an uplink message."""
    message_id: int | None = None
    """The packet id of the last PUBLISH; None for QoS 0, and before it is published."""
    is_sent: bool = False
    """Whether the message was published at least once."""
    device: DeviceIdentity | None = None
    """The sub-device of a message without datapoints that has to wait until the device is announced."""

    def __init__(
        self,
        topic: str,
        payload: bytes | DeviceUplinkMessage,
        qos: int = 1,
        retain: bool = False,
        datapoints: int = 0,
        delivery_futures: DeliveryFuture | Sequence[DeliveryFuture] | None = None,
        main_ts: Time = None,
        *,
        route: Route | None = None,
        **properties: Any,
    ) -> None:
        """Create a message.

        Args:
            topic: The topic.
            payload: Bytes, or an uplink message that is packed together with other data when it is published.
            qos: 0 or 1. Any other value becomes 1, with a warning: the platform has no QoS 2.
            retain: The retain flag. The platform ignores it.
            datapoints: The number of datapoints in the payload.
            delivery_futures: Futures that are resolved with the `PublishResult`. Without one, a future is created on demand.
            main_ts: The time of datapoints without one, if `payload` is an uplink message.
            route: The kind of the message, if it does not follow from the topic.
            **properties: MQTT 5 properties of the PUBLISH.
        """
        if qos not in {0, 1}:
            logger.warning("qos must be 0 or 1, not %r: 1 is used", qos)
            qos = 1
        # gmqtt's constructor is not called: it converts payloads, which are bytes here, and encodes the topic each time.
        self.topic = topic
        self.payload = payload
        self.payload_size: int = len(payload) if isinstance(payload, bytes) else payload.size
        self.qos = qos
        if retain:
            self.retain = retain
        self.properties = properties
        self.datapoints = datapoints
        if delivery_futures:
            # In place of the property below, which would create a future.
            self.delivery_futures = [delivery_futures] if isinstance(delivery_futures, asyncio.Future) else list(delivery_futures)
        if main_ts is not None:
            self.main_ts = main_ts
        self.route: Route = route or route_of(topic)

    @property
    def is_device_message(self) -> bool:
        """Whether the message is the connected device's own, and not a gateway's for its sub-devices."""
        return not self.route.of_sub_devices

    @property
    def is_service_message(self) -> bool:
        """Whether the message has no datapoints, so that the server counts it as one of `messages`."""
        return not self.route.kind.has_datapoints

    @cached_property
    def delivery_futures(self) -> list[DeliveryFuture]:
        """The futures that are resolved with the message's result."""
        return [new_delivery()]

    def mark_as_sent(self, message_id: int | None) -> None:
        """Note that the message was published, and its packet id; None for QoS 0."""
        self.message_id = message_id
        self.is_sent = True

    def __repr__(self) -> str:
        return (
            f"MqttPublishMessage(topic={self.topic}, payload_size={self.payload_size}, qos={self.qos}, "
            f"datapoints={self.datapoints}, message_id={self.message_id})"
        )

    def __str__(self) -> str:
        return repr(self)
