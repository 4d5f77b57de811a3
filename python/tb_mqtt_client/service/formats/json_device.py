"""From a device's messages to MQTT publishes, and back."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.async_utils import FutureMap, future_map
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.provisioning_response import ProvisioningResponse
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_CLAIM_TOPIC,
    DEVICE_TELEMETRY_TOPIC,
    PROVISION_REQUEST_TOPIC,
    build_device_attributes_request_topic,
    build_device_rpc_request_topic,
    build_device_rpc_response_topic,
)
from tb_mqtt_client.constants.rpc_reply import RPCReply
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage
from tb_mqtt_client.entities.data.provisioning_request import ProvisioningRequest
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.delivery.packing import UplinkPacker, build_uplink_messages
from tb_mqtt_client.service.device.message_splitter import MessageSplitter


def json_publish(topic: str, document: Any, qos: int = 1, datapoints: int = 0) -> MqttPublishMessage:
    """A publish of a document. Raises ``ValueError`` for what JSON cannot carry, as ``validate_json_compatibility`` does."""
    return MqttPublishMessage(topic, dumps(document), qos, datapoints=datapoints)


def json_text(text: str) -> bytes:
    """A text as JSON."""
    return dumps(text)


def json_value(payload: bytes) -> Any:
    """What a payload holds. Raises ``ValueError`` when it is no JSON."""
    try:
        return json.loads(payload.decode())
    except RecursionError as error:
        raise ValueError("the payload is nested too deeply") from error


def json_object(payload: bytes) -> dict[str, Any]:
    """The object that a payload holds. Raises ``ValueError`` when it is none."""
    document = json_value(payload)
    if not isinstance(document, dict):
        raise ValueError("the payload is no JSON object")  # noqa: TRY004  # bad data, not a bad call
    return document


_INT32 = range(-(2**31), 2**31)
# Python's int() also takes blanks, underscores and the digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]{1,10}")


class MessageAdapter(ABC):
    """What a payload format must give for a device.

    ``build_…`` raise ``ValueError`` for requests that cannot be sent, ``parse_…`` for messages that cannot be read.
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
        self._splitter = MessageSplitter(max_payload_size, max_datapoints, futures=futures)
        self.packer = UplinkPacker(DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, self._splitter, futures, gateway=False)

    @property
    def splitter(self) -> MessageSplitter:
        """Limits of the payloads."""
        return self._splitter

    @abstractmethod
    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Publishes that carry the data of ``messages``; messages with bytes come first and unchanged."""

    @abstractmethod
    def build_attribute_request(self, request: AttributeRequest) -> MqttPublishMessage:
        """The publish that asks for attributes."""

    @abstractmethod
    def build_claim_request(self, claim_request: ClaimRequest) -> MqttPublishMessage:
        """The publish that lets the device be claimed."""

    @abstractmethod
    def build_rpc_request(self, rpc_request: RPCRequest) -> MqttPublishMessage:
        """The publish of a call to the platform."""

    @abstractmethod
    def build_rpc_response(self, rpc_response: RPCResponse) -> MqttPublishMessage:
        """The publish of an answer to a call of the platform."""

    @abstractmethod
    def parse_requested_attribute_response(self, topic: str, payload: bytes) -> RequestedAttributeResponse:
        """The answer to an attribute request."""

    @abstractmethod
    def parse_attribute_update(self, payload: bytes) -> AttributeUpdate:
        """Attributes that have changed."""

    @abstractmethod
    def parse_rpc_request(self, topic: str, payload: bytes) -> RPCRequest:
        """A call of the platform."""

    @abstractmethod
    def parse_rpc_response(self, topic: str, payload: bytes) -> RPCResponse:
        """The answer to a call to the platform."""

    @abstractmethod
    def build_provision_request(self, provision_request: ProvisioningRequest) -> MqttPublishMessage:
        """The publish that asks for a device's credentials. Raises ``ValueError`` for a request that lacks something."""

    @abstractmethod
    def parse_provisioning_response(self, provisioning_request: ProvisioningRequest, payload: bytes) -> ProvisioningResponse:
        """The platform's answer; one that cannot be read gives a failure. Never raises."""


class JsonMessageAdapter(MessageAdapter):
    """The platform's JSON format (docs/platform_contract.md, sections 2 and 3)."""

    def build_uplink_messages(self, messages: Sequence[MqttPublishMessage]) -> list[MqttPublishMessage]:
        """Timeseries first, then attributes. ``[]`` gives ``[]``."""
        return build_uplink_messages(messages, self.packer)

    def build_attribute_request(self, request: AttributeRequest) -> MqttPublishMessage:
        """``{"sharedKeys": "a,b", "clientKeys": "c"}``"""
        _check_id(request.request_id, "AttributeRequest must have a valid ID.")
        return json_publish(build_device_attributes_request_topic(request.request_id), request.to_payload_format(), datapoints=1)

    def build_claim_request(self, claim_request: ClaimRequest) -> MqttPublishMessage:
        """``{"secretKey": s, "durationMs": n}``"""
        return json_publish(DEVICE_CLAIM_TOPIC, claim_request.to_payload_format(), datapoints=1)

    def build_rpc_request(self, rpc_request: RPCRequest) -> MqttPublishMessage:
        """``{"id": n, "method": m, "params": p}``"""
        request_id = _check_id(rpc_request.request_id, "RPCRequest must have a valid ID.")
        return json_publish(build_device_rpc_request_topic(request_id), rpc_request.to_payload_format(), datapoints=1)

    def build_rpc_response(self, rpc_response: RPCResponse) -> MqttPublishMessage:
        """Write ``{"result": r}``, ``r`` or ``{"error": e}``, as the response or the client's ``rpc_reply`` says."""
        # The id is the platform's, an int32 counter that may have passed its end.
        request_id = _check_id(rpc_response.request_id, "RPCResponse must have a valid request ID.", lowest=_INT32.start)
        reply = rpc_response.to_payload_format(self._rpc_reply)
        return json_publish(build_device_rpc_response_topic(request_id), reply, datapoints=1)

    def parse_requested_attribute_response(self, topic: str, payload: bytes) -> RequestedAttributeResponse:
        """``{"client": {...}, "shared": {...}}``, of which either may be missing."""
        try:
            data = json_object(payload) | {"request_id": _number_of(topic)}
            return RequestedAttributeResponse.from_dict(data)
        except ValueError as error:
            raise ValueError("Invalid attribute request response format") from error

    def parse_attribute_update(self, payload: bytes) -> AttributeUpdate:
        """``{key: value}`` or ``{"deleted": [key, ...]}``"""
        try:
            return AttributeUpdate._deserialize_from_dict(json_object(payload))
        except ValueError as error:
            raise ValueError("Invalid attribute update format") from error

    def parse_rpc_request(self, topic: str, payload: bytes) -> RPCRequest:
        """``{"method": m, "params": p}``; the id is the topic's."""
        try:
            return RPCRequest._deserialize_from_dict(_number_of(topic), json_object(payload))
        except ValueError as error:
            raise ValueError("Invalid RPC request format") from error

    def parse_rpc_response(self, topic: str, payload: bytes) -> RPCResponse:
        """Any JSON is a result, except ``{"error": e}``; a payload that is none makes the response an error."""
        try:
            request_id = _number_of(topic)
        except ValueError as error:
            raise ValueError("Invalid RPC response format") from error
        try:
            return RPCResponse.of_reply(request_id, json_value(payload))
        except ValueError as error:
            return RPCResponse.build(request_id, error=error)

    def build_provision_request(self, provision_request: ProvisioningRequest) -> MqttPublishMessage:
        """``{"provisionDeviceKey": k, "provisionDeviceSecret": s, ...}``"""
        return json_publish(PROVISION_REQUEST_TOPIC, provision_request.to_payload_format(), datapoints=1)

    def parse_provisioning_response(self, provisioning_request: ProvisioningRequest, payload: bytes) -> ProvisioningResponse:
        """Without the payload in the error: it may hold a secret."""
        try:
            return ProvisioningResponse.build(provisioning_request, json_object(payload))
        except KeyError as missing:
            return ProvisioningResponse.failure(f"the platform's answer lacks {missing}")
        except ValueError as error:
            return ProvisioningResponse.failure(f"the platform's answer cannot be read: {error}")

    @staticmethod
    def build_payload(msg: DeviceUplinkMessage, build_timeseries_payload: bool) -> bytes:
        """The timeseries, or else the attributes, of one message as a payload."""
        return dumps(
            JsonMessageAdapter.pack_timeseries(msg) if build_timeseries_payload else JsonMessageAdapter.pack_attributes(msg)
        )

    @staticmethod
    def pack_attributes(msg: DeviceUplinkMessage) -> dict[str, Any]:
        """``{key: value}``"""
        return {entry.key: entry.value for entry in msg.attributes}

    @staticmethod
    def pack_timeseries(msg: DeviceUplinkMessage) -> dict[str, Any] | list[dict[str, Any]]:
        """``[{"ts": ms, "values": {key: value}}, ...]`` in order of first appearance; entries without ts get ``main_ts``, or now.

        ``{key: value}`` when no time is known at all.
        """
        entries = msg.encoded.timeseries_entries()
        if msg.main_ts is None and all(entry.ts is None for entry in entries):
            return {entry.key: entry.value for entry in entries}
        default = now_ms() if msg.main_ts is None else msg.main_ts
        groups: dict[int, dict[str, Any]] = {}
        for entry in entries:
            groups.setdefault(default if entry.ts is None else entry.ts, {})[entry.key] = entry.value
        return [{"ts": ts, "values": values} for ts, values in groups.items()]


def request_id_of(topic: str) -> int | None:
    """The number at the end of a topic; ``None`` when it is no int32, which the server does not take either."""
    last = topic.rpartition("/")[2]
    return int(last) if _NUMBER.fullmatch(last) and int(last) in _INT32 else None


def _number_of(topic: str) -> int:
    request_id = request_id_of(topic)
    if request_id is None:
        raise ValueError(f"the topic {topic!r} does not end with a number")
    return request_id


def _check_id(request_id: int | str | None, complaint: str, *, lowest: int = 0) -> int:
    """An int, or its digits, that the server can read: it disconnects for others (docs/platform_contract.md, section 8)."""
    if isinstance(request_id, str) and _NUMBER.fullmatch(request_id):
        request_id = int(request_id)
    if type(request_id) is not int or request_id < lowest or request_id not in _INT32:
        raise ValueError(complaint)
    return request_id
