"""From a gateway's messages for its sub-devices to MQTT publishes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.async_utils import FutureMap, future_map
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.service.gateway.message_splitter import GatewayMessageSplitter
from tb_mqtt_client.service.uplink_packer import UplinkPacker, build_uplink_messages


class GatewayMessageAdapter(ABC):
    """What a payload format must give for a gateway."""

    def __init__(
        self,
        max_payload_size: int | None = None,
        max_datapoints: int | None = None,
        *,
        futures: FutureMap = future_map,
    ) -> None:
        self._splitter = GatewayMessageSplitter(max_payload_size, max_datapoints, futures=futures)
        self.packer = UplinkPacker(GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC, self._splitter, futures, gateway=True)

    @property
    def splitter(self) -> GatewayMessageSplitter:
        """Limits of the payloads."""
        return self._splitter

    @abstractmethod
    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Publishes that carry the data of ``messages``; messages with bytes come first and unchanged."""

    @abstractmethod
    def build_device_connect_message_payload(self, device_connect_message: DeviceConnectMessage, qos: int) -> MqttPublishMessage:
        """The publish that announces a sub-device."""

    @abstractmethod
    def build_device_disconnect_message_payload(
        self, device_disconnect_message: DeviceDisconnectMessage, qos: int
    ) -> MqttPublishMessage:
        """The publish that ends a sub-device's session."""


class JsonGatewayMessageAdapter(GatewayMessageAdapter):
    """The platform's JSON format (platform_contract.md, section 4)."""

    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Timeseries first, then attributes, one device a message. ``[]`` gives ``[]``."""
        return build_uplink_messages(messages, self.packer)

    def build_device_connect_message_payload(self, device_connect_message: DeviceConnectMessage, qos: int) -> MqttPublishMessage:
        """``{"device": name, "type": profile}``"""
        return MqttPublishMessage(GATEWAY_CONNECT_TOPIC, dumps(device_connect_message.to_payload_format()), qos)

    def build_device_disconnect_message_payload(
        self, device_disconnect_message: DeviceDisconnectMessage, qos: int
    ) -> MqttPublishMessage:
        """``{"device": name}``"""
        return MqttPublishMessage(GATEWAY_DISCONNECT_TOPIC, dumps(device_disconnect_message.to_payload_format()), qos)
