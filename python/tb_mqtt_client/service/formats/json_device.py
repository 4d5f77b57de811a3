"""The requests and responses of a device as JSON."""

from __future__ import annotations

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_CLAIM_TOPIC,
    INT32,
    PROVISION_REQUEST_TOPIC,
    build_device_attributes_request_topic,
    build_device_rpc_request_topic,
    build_device_rpc_response_topic,
    number_of,
    request_id_of,
)
from tb_mqtt_client.constants.option_values import RPCReply
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.formats.json_values import json_object, json_publish, json_value
from tb_mqtt_client.service.formats.protocol import DeviceFormat


class JsonDeviceFormat(DeviceFormat):
    """The platform's JSON format for devices (docs/platform_contract.md, sections 2 and 3)."""

    def __init__(self, rpc_reply: RPCReply = RPCReply.WRAPPED) -> None:
        """Write responses to server-side RPC requests in the form ``rpc_reply``, unless a response names its own."""
        self._rpc_reply = rpc_reply

    def build_attribute_request(self, request: AttributeRequest) -> MqttPublishMessage:
        """Write ``{"sharedKeys": "a,b", "clientKeys": "c"}``."""
        _check_id(request.request_id, "AttributeRequest must have a valid ID.")
        return json_publish(build_device_attributes_request_topic(request.request_id), request.to_payload_format(), datapoints=1)

    def build_claim_request(self, claim_request: ClaimRequest) -> MqttPublishMessage:
        """Write ``{"secretKey": s, "durationMs": n}``."""
        return json_publish(DEVICE_CLAIM_TOPIC, claim_request.to_payload_format(), datapoints=1)

    def build_rpc_request(self, rpc_request: RPCRequest) -> MqttPublishMessage:
        """Write ``{"id": n, "method": m, "params": p}``."""
        request_id = _check_id(rpc_request.request_id, "RPCRequest must have a valid ID.")
        return json_publish(build_device_rpc_request_topic(request_id), rpc_request.to_payload_format(), datapoints=1)

    def build_rpc_response(self, rpc_response: RPCResponse) -> MqttPublishMessage:
        """Write ``{"result": r}``, ``r`` or ``{"error": e}``, as the response or the client's ``rpc_reply`` says."""
        # The id is the platform's, an int32 counter that may have passed its end.
        request_id = _check_id(rpc_response.request_id, "RPCResponse must have a valid request ID.", lowest=INT32.start)
        reply = rpc_response.to_payload_format(self._rpc_reply)
        return json_publish(build_device_rpc_response_topic(request_id), reply, datapoints=1)

    def parse_attribute_response(self, topic: str, payload: bytes) -> RequestedAttributeResponse:
        """Read ``{"client": {...}, "shared": {...}}``; either may be missing."""
        try:
            data = json_object(payload) | {"request_id": _number_of(topic)}
            return RequestedAttributeResponse.from_dict(data)
        except ValueError as error:
            raise ValueError("Invalid attribute request response format") from error

    def parse_attribute_update(self, payload: bytes) -> AttributeUpdate:
        """Read ``{key: value}`` or ``{"deleted": [key, ...]}``."""
        try:
            return AttributeUpdate.from_dict(json_object(payload))
        except ValueError as error:
            raise ValueError("Invalid attribute update format") from error

    def parse_rpc_request(self, topic: str, payload: bytes) -> RPCRequest:
        """Read ``{"method": m, "params": p}``; the request number is in the topic."""
        try:
            return RPCRequest.from_dict(_number_of(topic), json_object(payload))
        except ValueError as error:
            raise ValueError("Invalid RPC request format") from error

    def parse_rpc_response(self, topic: str, payload: bytes) -> RPCResponse:
        """Read any JSON as a result, except ``{"error": e}``; a payload that is not JSON becomes an error."""
        try:
            request_id = _number_of(topic)
        except ValueError as error:
            raise ValueError("Invalid RPC response format") from error
        try:
            return RPCResponse.of_reply(request_id, json_value(payload))
        except ValueError as error:
            return RPCResponse.build(request_id, error=error)

    def build_provision_request(self, provision_request: ProvisioningRequest) -> MqttPublishMessage:
        """Write ``{"provisionDeviceKey": k, "provisionDeviceSecret": s, ...}``."""
        return json_publish(PROVISION_REQUEST_TOPIC, provision_request.to_payload_format(), datapoints=1)

    def parse_provisioning_response(self, request: ProvisioningRequest, payload: bytes) -> ProvisioningResponse:
        """Read the status and the credentials. An error does not quote the payload, which may hold a secret."""
        try:
            return ProvisioningResponse.build(request, json_object(payload))
        except KeyError as missing:
            return ProvisioningResponse.failure(f"the platform's response lacks {missing}")
        except ValueError as error:
            return ProvisioningResponse.failure(f"the platform's response cannot be read: {error}")


def _number_of(topic: str) -> int:
    request_id = request_id_of(topic)
    if request_id is None:
        raise ValueError(f"the topic {topic!r} does not end with a number")
    return request_id


def _check_id(request_id: int | str | None, complaint: str, *, lowest: int = 0) -> int:
    """Return the number of a request, which the caller gave as an int or as its digits.

    The server disconnects for other ids (docs/platform_contract.md, section 8).
    """
    number = number_of(request_id) if isinstance(request_id, str) else request_id
    if type(number) is not int or not max(lowest, INT32.start) <= number < INT32.stop:
        raise ValueError(complaint)
    return number
