"""From a device's messages to MQTT publishes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tb_mqtt_client.common.async_utils import FutureMap, future_map
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.service.device.message_splitter import MessageSplitter
from tb_mqtt_client.service.uplink_packer import UplinkPacker, build_uplink_messages


class MessageAdapter(ABC):
    """What a payload format must give for a device."""

    def __init__(
        self,
        max_payload_size: int | None = None,
        max_datapoints: int | None = None,
        *,
        futures: FutureMap = future_map,
    ) -> None:
        self._splitter = MessageSplitter(max_payload_size, max_datapoints, futures=futures)
        self.packer = UplinkPacker(DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, self._splitter, futures, gateway=False)

    @property
    def splitter(self) -> MessageSplitter:
        """Limits of the payloads."""
        return self._splitter

    @abstractmethod
    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Publishes that carry the data of ``messages``; messages with bytes come first and unchanged."""


class JsonMessageAdapter(MessageAdapter):
    """The platform's JSON format (platform_contract.md, sections 2 and 3)."""

    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Timeseries first, then attributes. ``[]`` gives ``[]``."""
        return build_uplink_messages(messages, self.packer)
