"""The requests and responses of a gateway for its sub-devices as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_CLAIM_TOPIC,
    GATEWAY_CONNECT_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_RPC_TOPIC,
)
from tb_mqtt_client.constants.option_values import RPCReply
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
from tb_mqtt_client.service.formats.json_values import json_object, json_publish
from tb_mqtt_client.service.formats.protocol import GatewayFormat, SubDeviceAttributes, UnreadableRPCRequestError

logger: ExtendedLogger = get_logger(__name__)


class JsonGatewayFormat(GatewayFormat):
    """The platform's JSON format for gateways (docs/platform_contract.md, section 4)."""

    def __init__(self, rpc_reply: RPCReply = RPCReply.WRAPPED) -> None:
        """Write responses to server-side RPC requests in the form ``rpc_reply``, unless a response names its own."""
        self._rpc_reply = rpc_reply

    def build_connect(self, message: DeviceConnectMessage) -> MqttPublishMessage:
        """Write ``{"device": name, "type": profile}``."""
        return json_publish(GATEWAY_CONNECT_TOPIC, message.to_payload_format())

    def build_disconnect(self, message: DeviceDisconnectMessage) -> MqttPublishMessage:
        """Write ``{"device": name}``."""
        return json_publish(GATEWAY_DISCONNECT_TOPIC, message.to_payload_format())

    def build_attribute_request(self, request: GatewayAttributeRequest) -> MqttPublishMessage:
        """Write ``{"device": name, "id": n, "client": bool, "key": k}`` or ``{..., "keys": [...]}``.

        Raises:
            ValueError: The request is for keys of both scopes, of which the server handles one, or of none, for which it
                disconnects.
        """
        if len(request.scopes()) != 1:
            raise ValueError(f"attribute_request must ask for keys of one scope, not {request!r}")
        return json_publish(GATEWAY_ATTRIBUTES_REQUEST_TOPIC, request.to_payload_format())

    def build_rpc_response(self, response: GatewayRPCResponse) -> MqttPublishMessage:
        """Write ``{"device": name, "id": n, "data": reply}``; the reply has the same form as that of a device."""
        return json_publish(GATEWAY_RPC_TOPIC, response.to_payload_format(self._rpc_reply))

    def build_claim_request(self, request: GatewayClaimRequest) -> MqttPublishMessage:
        """Write ``{name: {"secretKey": s, "durationMs": n}, ...}``.

        Raises:
            ValueError: The request names no device.
        """
        payload = request.to_payload_format()
        if not payload:
            raise ValueError("gateway_claim_request must have at least one device")
        return json_publish(GATEWAY_CLAIM_TOPIC, payload)

    def parse_attribute_update(self, payload: bytes) -> GatewayAttributeUpdate:
        """Read ``{"device": name, "data": {key: value}}``, or ``{"deleted": [key, ...]}`` as data."""
        data = json_object(payload)
        values = data.get("data")
        if not isinstance(values, dict):
            raise ValueError("'data' must be an object in an attribute update")  # noqa: TRY004  # bad data, not a bad call
        return GatewayAttributeUpdate(_device_of(data), AttributeUpdate.from_dict(values))

    def parse_attribute_response(self, payload: bytes) -> SubDeviceAttributes:
        """Read ``{"device": name, "id": n}`` and, for one key, ``"value": v``, or for several, ``"values": {key: value}``."""
        data = json_object(payload)
        request_id = data.get("id")
        if not isinstance(request_id, int):
            raise ValueError(f"'id' must be a number in an attribute response, not {request_id!r}")  # noqa: TRY004  # as above
        if not isinstance(data.get("values", {}), dict):
            raise ValueError("'values' must be an object in an attribute response")  # noqa: TRY004  # as above
        return SubDeviceAttributes(_device_of(data), request_id, data)

    def attributes_of(self, request: GatewayAttributeRequest, response: SubDeviceAttributes) -> GatewayRequestedAttributeResponse:
        """Return the requested attributes.

        A single value cannot be assigned if several keys were requested; the response then counts as empty.
        """
        values = response.content.get("values", {})
        keys = request.client_keys or request.shared_keys or []
        if "value" in response.content and len(keys) == 1:
            values = {keys[0]: response.content["value"]}
        elif "value" in response.content:
            logger.warning("The platform returned one value for the %d keys of %r: ignoring it", len(keys), request)
        entries = [AttributeEntry(key, value) for key, value in values.items()]
        shared, client = ([], entries) if request.client_keys else (entries, [])
        return GatewayRequestedAttributeResponse(request.request_id, shared, client, response.device_name)

    def parse_rpc_request(self, payload: bytes) -> GatewayRPCRequest:
        """Read ``{"device": name, "data": {"id": n, "method": m, "params": p}}``."""
        data: dict[str, Any] = {}
        try:
            data = json_object(payload)
            return GatewayRPCRequest.from_dict(data)
        except (KeyError, ValueError) as error:
            complaint = f"Missing {error} in RPC request" if isinstance(error, KeyError) else str(error)
            raise UnreadableRPCRequestError(complaint, *_address_of(data)) from error

    def parse_disconnect_notice(self, payload: bytes) -> tuple[str, int]:
        """Read ``{"device": name, "reason": n}``."""
        notice = json_object(payload)
        reason = notice.get("reason")
        if not isinstance(reason, int):
            raise ValueError(f"the reason must be a number, not {reason!r}")  # noqa: TRY004  # bad data, not a bad call
        return _device_of(notice), reason

    def rename(self, payload: bytes, device_name: str, new_name: str) -> bytes:
        """Return ``{"new name": ...}`` for ``{"name": ...}``."""
        return b"{" + dumps(new_name) + payload[1 + len(dumps(device_name)) :]

    def empty_attributes(self, device_names: Iterable[str], max_size: int) -> tuple[bytes, int]:
        """Write ``{name: {}, ...}``."""
        entries: list[bytes] = []
        size = 1
        for name in device_names:
            entry = dumps(name) + b":{}"
            size += len(entry) + 1
            if entries and size > max_size:
                break
            entries.append(entry)
        return b"{" + b",".join(entries) + b"}", len(entries)


def _device_of(data: dict[str, Any]) -> str:
    name = data.get("device")
    if not isinstance(name, str) or not name:
        raise ValueError(f"'device' must be a name, not {name!r}")
    return name


def _address_of(data: dict[str, Any]) -> tuple[str | None, int | None]:
    """Return the device and the number of an RPC request, each if it can be read."""
    rpc = data.get("data")
    device_name, request_id = data.get("device"), rpc.get("id") if isinstance(rpc, dict) else None
    return (
        device_name if isinstance(device_name, str) and device_name else None,
        request_id if type(request_id) is int else None,
    )
