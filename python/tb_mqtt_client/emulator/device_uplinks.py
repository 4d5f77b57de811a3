"""What a device publishes on its own topics (contract sections 2, 3, 5 and 7)."""

from __future__ import annotations

from typing import Any

from tb_mqtt_client.emulator import attributes, payloads
from tb_mqtt_client.emulator.client_rpc import ClientRpc
from tb_mqtt_client.emulator.codec import PublishPacket
from tb_mqtt_client.emulator.devices import Claim, Device
from tb_mqtt_client.emulator.ota_requests import OtaRequests
from tb_mqtt_client.emulator.reason_codes import ACCEPTED, NO_ANSWER, Answer
from tb_mqtt_client.emulator.session_view import SessionView
from tb_mqtt_client.emulator.topics import RPC_REQUEST_V1, Uplink, response_prefix


class DeviceUplinks:
    """The device's half of a session."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._platform = session.platform
        self._rpc = ClientRpc(session)
        self._ota = OtaRequests(session.platform)

    def take(self, uplink: Uplink, rest: str, packet: PublishPacket, device: Device) -> Answer:
        """Process a message. Raises the errors of `payloads`, `RateLimitedError` and `OtaError`."""
        if uplink is Uplink.TELEMETRY:
            records = payloads.telemetry_records(self._json(packet), self._platform.now())
            if not records:
                # `[]` is accepted and never acknowledged (contract section 3).
                return NO_ANSWER
            self._platform.take_telemetry(device, records)
        elif uplink is Uplink.ATTRIBUTES:
            self._platform.take_attributes(device, payloads.attributes(self._json(packet)))
        elif uplink is Uplink.RPC_RESPONSE:
            self._platform.take_rpc_response(device, _adapted_id(rest), packet.payload)
        elif uplink is Uplink.RPC_REQUEST:
            self._rpc_request(packet, rest, device)
        elif uplink is Uplink.ATTRIBUTE_REQUEST:
            self._attribute_request(packet, rest, device)
        elif uplink is Uplink.CLAIM:
            claim = payloads.claim(self._json(packet)) if packet.payload.strip() else Claim()
            self._platform.take_claim(device, claim)
        elif uplink is Uplink.OTA_REQUEST:
            self._session.reply(*self._ota.answer(device, packet.topic, packet.payload))
        elif uplink is Uplink.PROTOBUF:
            raise payloads.BadPayloadError("the emulator has no device profiles with Protobuf")
        else:
            # A topic of provisioning, or one that only the platform publishes on.
            raise AssertionError(f"{uplink} is not an uplink of a device")
        return ACCEPTED

    def _attribute_request(self, packet: PublishPacket, rest: str, device: Device) -> None:
        request_id = _adapted_id(rest)
        keys = payloads.attribute_keys(self._json(packet))
        self._platform.spend(device)
        if any("" in (scope or ()) for scope in keys):
            # The core fails, and the error is swallowed (contract section 2).
            return
        answer = payloads.encode_json(attributes.answer(device, keys))
        self._session.reply(f"{response_prefix(packet.topic, rest)}{request_id}", answer)

    def _rpc_request(self, packet: PublishPacket, rest: str, device: Device) -> None:
        request_id = payloads.request_id(rest)
        method, params = payloads.rpc_request(self._json(packet))
        prefix = response_prefix(packet.topic, rest)
        limits = self._platform.announced_limits
        if method == "getSessionLimits" and packet.topic.startswith(RPC_REQUEST_V1) and limits is not None:
            reply = limits.reply(max_payload_size=self._platform.max_payload_size, is_gateway=device.is_gateway)
            self._session.reply(f"{prefix}{request_id}", payloads.encode_json(reply))
        else:
            self._platform.spend(device)
            self._rpc.begin(device, request_id, method, params, prefix)

    def _json(self, packet: PublishPacket) -> Any:
        return payloads.decode_json(packet.payload, exact=self._platform.keep_data)


def _adapted_id(text: str) -> int:
    """Return the id of a request whose adaptor turns every error into a refusal of the payload (contract section 8)."""
    try:
        return payloads.request_id(text)
    except payloads.UnexpectedPayloadError as error:
        raise payloads.BadPayloadError(str(error)) from error
