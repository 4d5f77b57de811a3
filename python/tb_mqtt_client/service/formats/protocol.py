"""What a payload format does: it writes requests and responses as MQTT publishes, and reads the payloads of the platform.

The datapoints of a send are not written here: the native core encodes and packs them (`delivery/packing.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.device_disconnect_message import DeviceDisconnectMessage
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_attribute_update import GatewayAttributeUpdate
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse


class DeviceFormat(Protocol):
    """The requests and responses of a device.

    The ``build_...`` methods raise ``ValueError`` for values that cannot be sent, the ``parse_...`` methods for payloads that
    cannot be read.
    """

    def build_attribute_request(self, request: AttributeRequest) -> MqttPublishMessage:
        """Return the publish that requests attributes."""

    def build_claim_request(self, claim_request: ClaimRequest) -> MqttPublishMessage:
        """Return the publish that allows users to claim the device."""

    def build_rpc_request(self, rpc_request: RPCRequest) -> MqttPublishMessage:
        """Return the publish of a client-side RPC request."""

    def build_rpc_response(self, rpc_response: RPCResponse) -> MqttPublishMessage:
        """Return the publish of the response to a server-side RPC request."""

    def build_provision_request(self, provision_request: ProvisioningRequest) -> MqttPublishMessage:
        """Return the publish that requests credentials for a device."""

    def parse_attribute_response(self, topic: str, payload: bytes) -> RequestedAttributeResponse:
        """Return the response to an attribute request."""

    def parse_attribute_update(self, payload: bytes) -> AttributeUpdate:
        """Return an update of shared attributes."""

    def parse_rpc_request(self, topic: str, payload: bytes) -> RPCRequest:
        """Return a server-side RPC request."""

    def parse_rpc_response(self, topic: str, payload: bytes) -> RPCResponse:
        """Return the response to a client-side RPC request."""

    def parse_provisioning_response(self, request: ProvisioningRequest, payload: bytes) -> ProvisioningResponse:
        """Return the response to a provisioning request; a payload that cannot be read becomes a failure. Raises nothing."""


@dataclass(frozen=True, slots=True)
class SubDeviceAttributes:
    """The response to an attribute request of a sub-device. It does not say which scope and keys were requested."""

    device_name: str
    request_id: int
    content: dict[str, Any]
    """The content as the format parsed it; ``attributes_of`` interprets it for a given request."""


class GatewayFormat(Protocol):
    """The requests and responses of a gateway for its sub-devices. Raises as ``DeviceFormat`` does."""

    def build_connect(self, message: DeviceConnectMessage) -> MqttPublishMessage:
        """Return the publish that announces a sub-device."""

    def build_disconnect(self, message: DeviceDisconnectMessage) -> MqttPublishMessage:
        """Return the publish that ends the session of a sub-device."""

    def build_attribute_request(self, request: GatewayAttributeRequest) -> MqttPublishMessage:
        """Return the publish that requests attributes of one scope of a sub-device."""

    def build_rpc_response(self, response: GatewayRPCResponse) -> MqttPublishMessage:
        """Return the publish of a sub-device's response to a server-side RPC request."""

    def build_claim_request(self, request: GatewayClaimRequest) -> MqttPublishMessage:
        """Return the publish that allows users to claim sub-devices."""

    def parse_attribute_update(self, payload: bytes) -> GatewayAttributeUpdate:
        """Return an update of a sub-device's shared attributes."""

    def parse_attribute_response(self, payload: bytes) -> SubDeviceAttributes:
        """Return the response to an attribute request, whose meaning depends on the request."""

    def attributes_of(self, request: GatewayAttributeRequest, response: SubDeviceAttributes) -> GatewayRequestedAttributeResponse:
        """Return the requested attributes, given the request that they are the response to."""

    def parse_rpc_request(self, payload: bytes) -> GatewayRPCRequest:
        """Return a server-side RPC request to a sub-device.

        Raises:
            UnreadableRPCRequestError: The payload is not one; device and number are given if they can be read.
        """

    def parse_disconnect_notice(self, payload: bytes) -> tuple[str, int]:
        """Return the name of a sub-device that the platform reports as disconnected, and the reason code."""

    def rename(self, payload: bytes, device_name: str, new_name: str) -> bytes:
        """Return a payload that holds datapoints of one sub-device, with the new name of the sub-device."""

    def empty_attributes(self, device_names: Iterable[str], max_size: int) -> tuple[bytes, int]:
        """Return a payload with empty attributes of the first sub-devices, and how many it holds.

        It holds as many as fit in ``max_size`` bytes, and at least one.
        """


class UnreadableRPCRequestError(ValueError):
    """A server-side RPC request to a sub-device that cannot be read."""

    def __init__(self, complaint: str, device_name: str | None = None, request_id: int | None = None) -> None:
        super().__init__(complaint)
        self.device_name = device_name
        self.request_id = request_id
