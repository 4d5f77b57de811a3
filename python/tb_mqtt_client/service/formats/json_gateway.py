"""From a gateway's messages for its sub-devices to MQTT publishes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.async_utils import FutureMap, future_map
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CLAIM_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_RPC_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.constants.rpc_reply import RPCReply
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_attribute_update import GatewayAttributeUpdate
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessage
from tb_mqtt_client.service.delivery.packing import UplinkPacker, build_uplink_messages
from tb_mqtt_client.service.formats.json_device import JsonMessageAdapter, json_object, json_publish
from tb_mqtt_client.service.gateway.message_splitter import GatewayMessageSplitter

logger = get_logger(__name__)


class GatewayMessageAdapter(ABC):
    """What a payload format must give for a gateway.

    ``build_…`` raise ``ValueError`` for what cannot be sent, ``parse_…`` and ``deserialize_to_dict`` for what cannot be read.
    """

    def __init__(
        self,
        max_payload_size: int | None = None,
        max_datapoints: int | None = None,
        *,
        futures: FutureMap = future_map,
        rpc_reply: RPCReply = RPCReply.WRAPPED,
    ) -> None:
        self._rpc_reply = rpc_reply
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

    @abstractmethod
    def build_gateway_attribute_request_payload(self, attribute_request: GatewayAttributeRequest, qos: int) -> MqttPublishMessage:
        """The publish that asks for attributes of a sub-device, of one scope."""

    @abstractmethod
    def build_rpc_response_payload(self, rpc_response: GatewayRPCResponse, qos: int) -> MqttPublishMessage:
        """The publish of a sub-device's answer to a call of the platform."""

    @abstractmethod
    def build_claim_request_payload(self, claim_request: GatewayClaimRequest, qos: int) -> MqttPublishMessage:
        """The publish that lets sub-devices be claimed."""

    @abstractmethod
    def parse_attribute_update(self, data: dict[str, Any]) -> GatewayAttributeUpdate:
        """Attributes of a sub-device that have changed."""

    @abstractmethod
    def parse_gateway_requested_attribute_response(
        self, gateway_attribute_request: GatewayAttributeRequest, data: dict[str, Any]
    ) -> GatewayRequestedAttributeResponse:
        """The answer to a request of one scope: it does not say what was asked for."""

    @abstractmethod
    def parse_rpc_request(self, topic: str, data: dict[str, Any]) -> GatewayRPCRequest:
        """A call of the platform to a sub-device."""

    @abstractmethod
    def deserialize_to_dict(self, payload: bytes) -> dict[str, Any]:
        """What the other ``parse_…`` take."""


class JsonGatewayMessageAdapter(GatewayMessageAdapter):
    """The platform's JSON format (docs/platform_contract.md, section 4)."""

    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Timeseries first, then attributes, one device a message. ``[]`` gives ``[]``."""
        return build_uplink_messages(messages, self.packer)

    def build_device_connect_message_payload(self, device_connect_message: DeviceConnectMessage, qos: int) -> MqttPublishMessage:
        """``{"device": name, "type": profile}``"""
        return json_publish(GATEWAY_CONNECT_TOPIC, device_connect_message.to_payload_format(), qos)

    def build_device_disconnect_message_payload(
        self, device_disconnect_message: DeviceDisconnectMessage, qos: int
    ) -> MqttPublishMessage:
        """``{"device": name}``"""
        return json_publish(GATEWAY_DISCONNECT_TOPIC, device_disconnect_message.to_payload_format(), qos)

    def build_gateway_attribute_request_payload(self, attribute_request: GatewayAttributeRequest, qos: int) -> MqttPublishMessage:
        """``{"device": name, "id": n, "client": bool, "key": k}`` or ``{..., "keys": [...]}``.

        Raises ``ValueError`` for two scopes and for none: the server answers the one by half, and disconnects for the other.
        """
        if len(attribute_request.scopes()) != 1:
            raise ValueError(f"attribute_request must ask for keys of one scope, not {attribute_request!r}")
        return json_publish(GATEWAY_ATTRIBUTES_REQUEST_TOPIC, attribute_request.to_payload_format(), qos)

    def build_rpc_response_payload(self, rpc_response: GatewayRPCResponse, qos: int) -> MqttPublishMessage:
        """Write ``{"device": name, "id": n, "data": reply}``; the reply's form is as for a device."""
        return json_publish(GATEWAY_RPC_TOPIC, rpc_response.to_payload_format(self._rpc_reply), qos)

    def build_claim_request_payload(self, claim_request: GatewayClaimRequest, qos: int) -> MqttPublishMessage:
        """``{name: {"secretKey": s, "durationMs": n}, ...}``. Raises ``ValueError`` when no device is to be claimed."""
        payload = claim_request.to_payload_format()
        if not payload:
            raise ValueError("gateway_claim_request must have at least one device")
        return json_publish(GATEWAY_CLAIM_TOPIC, payload, qos)

    def parse_attribute_update(self, data: dict[str, Any]) -> GatewayAttributeUpdate:
        """``{"device": name, "data": {key: value}}``, or ``{"deleted": [key, ...]}`` as data."""
        values = data.get("data")
        if not isinstance(values, dict):
            raise ValueError("'data' must be an object in an attribute update")  # noqa: TRY004  # bad data, not a bad call
        return GatewayAttributeUpdate(_device_of(data), AttributeUpdate._deserialize_from_dict(values))

    def parse_gateway_requested_attribute_response(
        self, gateway_attribute_request: GatewayAttributeRequest, data: dict[str, Any]
    ) -> GatewayRequestedAttributeResponse:
        """``{"device": name, "id": n}`` and, for one key, ``"value": v``, or for several, ``"values": {key: value}``.

        A single value when several keys were asked for belongs to none that can be told: nothing was found then.
        """
        request = gateway_attribute_request
        values = data.get("values", {})
        if not isinstance(values, dict):
            raise ValueError("'values' must be an object in an answer")  # noqa: TRY004  # bad data, not a bad call
        keys = request.client_keys or request.shared_keys or []
        if "value" in data and len(keys) == 1:
            values = {keys[0]: data["value"]}
        elif "value" in data:
            logger.warning("The platform gave one value for the %d keys of %r: it is not used", len(keys), request)
        entries = [AttributeEntry(key, value) for key, value in values.items()]
        shared, client = ([], entries) if request.client_keys else (entries, [])
        return GatewayRequestedAttributeResponse(request.request_id, shared, client, _device_of(data))

    def parse_rpc_request(self, topic: str, data: dict[str, Any]) -> GatewayRPCRequest:
        """``{"device": name, "data": {"id": n, "method": m, "params": p}}``"""
        try:
            return GatewayRPCRequest._deserialize_from_dict(data)
        except KeyError as error:
            raise ValueError(f"Missing {error} in RPC request") from error

    def deserialize_to_dict(self, payload: bytes) -> dict[str, Any]:
        """A JSON object."""
        return json_object(payload)

    @staticmethod
    def pack_attributes(msg: GatewayUplinkMessage) -> dict[str, Any]:
        """``{key: value}``, without the device's name."""
        return JsonMessageAdapter.pack_attributes(msg)

    @staticmethod
    def pack_timeseries(msg: GatewayUplinkMessage) -> list[dict[str, Any]]:
        """As ``JsonMessageAdapter.pack_timeseries``, and a list in every case, without the device's name."""
        packed = JsonMessageAdapter.pack_timeseries(msg)
        return packed if isinstance(packed, list) else [packed]


def rename(payload: bytes, old: str, new: str) -> bytes:
    """Return the payload of one device, which begins with ``{"old":``, under the device's new name."""
    return b"{" + dumps(new) + payload[1 + len(dumps(old)) :]


def _device_of(data: dict[str, Any]) -> str:
    name = data.get("device")
    if not isinstance(name, str) or not name:
        raise ValueError("'device' must be a name")
    return name
