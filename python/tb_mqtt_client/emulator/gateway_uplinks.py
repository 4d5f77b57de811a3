"""Publishes on the gateway topics, and downlinks to sub-devices (docs/platform_contract.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

from tb_mqtt_client.emulator import attributes, payloads
from tb_mqtt_client.emulator.codec import (
    IMPLEMENTATION_SPECIFIC,
    MQTT_5,
    PAYLOAD_FORMAT_INVALID,
    QUOTA_EXCEEDED,
    SERVER_SHUTTING_DOWN,
    SUCCESS,
    UNSPECIFIED_ERROR,
    PublishPacket,
)
from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE, Device, PendingRpc
from tb_mqtt_client.emulator.limits import DeviceLimitError, RateLimitedError
from tb_mqtt_client.emulator.platform import ACCEPTED, UNACKNOWLEDGED, Outcome, SessionView
from tb_mqtt_client.emulator.sub_sessions import CoreRefusedError, SubSessionRefusedError, SubSessions
from tb_mqtt_client.emulator.topics import Uplink

_DISCONNECT_NOTICE: Final = "v1/gateway/disconnect"
# The reason in a notice about a message that exceeds a limit.
_OVER_LIMIT: Final = 150

# One device's part of a message: the device name and a function that processes it, and returns False if it is not acknowledged.
_Part: TypeAlias = tuple[str, Callable[[Device], bool]]


class GatewayUplinks:
    """Processes the publishes on gateway topics in one session."""

    def __init__(self, session: SessionView) -> None:
        self._session = session
        self._platform = session.platform
        self.sub_sessions: SubSessions = SubSessions(session)

    def take(self, uplink: Uplink, packet: PublishPacket, gateway: Device) -> Outcome:
        """Process a message and return how it is acknowledged.

        Raises:
            BadPayloadError: The payload is refused.
            GatewayFormError: The payload lacks a required part.
        """
        document = payloads.decode_json(packet.payload, exact=self._platform.keep_data)
        try:
            if uplink is Uplink.GATEWAY_CONNECT:
                return self._connect(document, gateway)
            if uplink is Uplink.GATEWAY_DISCONNECT:
                self.sub_sessions.end(payloads.device_name(document), gateway)
                return ACCEPTED
            # The reason code for a device that the core does not find or create.
            refusal = IMPLEMENTATION_SPECIFIC if uplink is Uplink.GATEWAY_ATTRIBUTE_REQUEST else UNSPECIFIED_ERROR
            return self._take_parts(self._parts(uplink, document, gateway), gateway, refusal)
        except SubSessionRefusedError:
            # The platform closes the connection since 4.2.1; earlier versions only log the error.
            escapes = self._platform.version.acknowledges_gateway_once
            return self._platform.over_limit_outcome(SERVER_SHUTTING_DOWN) if escapes else UNACKNOWLEDGED

    # Downlinks.

    def send_attributes(self, device: Device, values: dict[str, Any]) -> bool:
        """Send an attribute update of a sub-device."""
        return self._send("v1/gateway/attributes", {"device": self.sub_sessions.names[device], "data": values})

    def send_rpc(self, device: Device, rpc: PendingRpc) -> bool:
        """Send an RPC request to a sub-device."""
        data = {"id": rpc.id, "method": rpc.method, "params": rpc.params}
        return self._send("v1/gateway/rpc", {"device": self.sub_sessions.names[device], "data": data})

    def send_disconnect_notice(self, device: Device, reason: int) -> bool:
        """Send a notice. Return False if the gateway does not use MQTT 5."""
        return self._notify(self.sub_sessions.names[device], reason)

    def _notify(self, name: str, reason: int) -> bool:
        return self._session.level >= MQTT_5 and self._send(_DISCONNECT_NOTICE, {"device": name, "reason": reason})

    def _send(self, topic: str, message: dict[str, Any]) -> bool:
        return self._session.send(topic, payloads.encode_json(message))

    # Uplinks.

    def _connect(self, document: Any, gateway: Device) -> Outcome:
        name = payloads.device_name(document)
        profile = document.get("type")
        try:
            self.sub_sessions.get(name, gateway, profile if isinstance(profile, str) and profile else DEFAULT_PROFILE)
        except DeviceLimitError:
            acknowledges = self._platform.version.acknowledges_connect_over_device_limit
            return Outcome((QUOTA_EXCEEDED,)) if acknowledges else UNACKNOWLEDGED
        except CoreRefusedError:
            return self._core_refused(UNSPECIFIED_ERROR)
        return ACCEPTED

    def _parts(self, uplink: Uplink, document: Any, gateway: Device) -> Iterable[_Part]:
        """Yield the part of each device."""
        if uplink is Uplink.GATEWAY_TELEMETRY:
            for name, elements in payloads.gateway_entries(document, list).items():
                yield name, partial(self._telemetry, elements=elements, gateway=gateway)
        elif uplink is Uplink.GATEWAY_ATTRIBUTES:
            for name, values in payloads.gateway_entries(document, dict).items():
                yield name, partial(self._platform.take_attributes, attributes=values, gateway=gateway)
        elif uplink is Uplink.GATEWAY_CLAIM:
            for name, claim in payloads.gateway_entries(document, dict).items():
                yield name, partial(self._claim, claim=claim, gateway=gateway)
        elif uplink is Uplink.GATEWAY_RPC:
            name, request_id, payload = payloads.gateway_rpc_response(document)
            yield name, partial(self._platform.take_rpc_response, request_id=request_id, payload=payload, gateway=gateway)
        else:
            request = payloads.gateway_attribute_request(document)
            yield request.device, partial(self._attribute_request, request=request, gateway=gateway)

    def _core_refused(self, code: int) -> Outcome:
        """Refuse the message after the core timeout; before 4.2.1 it is not acknowledged."""
        once = self._platform.version.acknowledges_gateway_once
        return Outcome((code,), delay_seconds=self._platform.core_timeout) if once else UNACKNOWLEDGED

    def _take_parts(self, parts: Iterable[_Part], gateway: Device, core_refusal: int) -> Outcome:
        """Process the part of each device, even if others fail."""
        codes: list[int | None] = []
        refused_by_core = False
        limited: list[str] = []
        for name, take in parts:
            try:
                device = self.sub_sessions.get(name, gateway)
                self.sub_sessions.keep_alive(device)
                codes.append(SUCCESS if take(device) else None)
            except CoreRefusedError:
                refused_by_core = True
            except payloads.BadPayloadError:
                codes.append(PAYLOAD_FORMAT_INVALID)
            except DeviceLimitError:
                codes.append(QUOTA_EXCEEDED if self._platform.version.acknowledges_gateway_once else None)
            except SubSessionRefusedError:
                if self._platform.over_limit == "platform":
                    raise
                limited.append(name)
                codes.append(QUOTA_EXCEEDED)
            except RateLimitedError:
                limited.append(name)
                codes.append(QUOTA_EXCEEDED)
        if refused_by_core and all(code in (SUCCESS, None) for code in codes):
            # Other failures are reported immediately.
            return self._core_refused(core_refusal)
        return self._outcome(codes, limited)

    def _outcome(self, codes: list[int | None], limited: list[str]) -> Outcome:
        once = self._platform.version.acknowledges_gateway_once
        failure = next((code for code in codes if code not in (SUCCESS, None)), None)
        if PAYLOAD_FORMAT_INVALID in codes and self._session.level < MQTT_5:
            raise payloads.BadPayloadError("a device's part is not valid data")
        if once:
            # The PUBACK reports the first device over the limit, notices report the others (docs/platform_contract.md, section 4).
            if self._session.level >= MQTT_5:
                for name in limited[1:]:
                    self._session.reply(_DISCONNECT_NOTICE, payloads.encode_json({"device": name, "reason": _OVER_LIMIT}))
            # The PUBACK has the code of the first failure. Without a failure, one part without acknowledgement suppresses it.
            acknowledged: tuple[int, ...] = (failure,) if failure is not None else (SUCCESS,) if None not in codes else ()
        else:
            if limited:
                self._notify(limited[0], _OVER_LIMIT)
            # One PUBACK per device, but none for a device that exceeds a limit (docs/platform_contract.md, fact 10).
            acknowledged = tuple(code for code in codes if code not in (None, QUOTA_EXCEEDED))
        return self._platform.over_limit_outcome(None, acknowledged) if limited else Outcome(acknowledged)

    def _telemetry(self, device: Device, elements: list[Any], gateway: Device) -> bool:
        platform = self._platform
        records, metadata = payloads.gateway_telemetry(elements, platform.now(), platform.version.reads_metadata)
        if not records:
            # `[]` is accepted and never acknowledged (docs/platform_contract.md, section 3).
            return False
        platform.take_telemetry(device, records, gateway)
        if metadata and platform.keep_data:
            device.metadata.extend(metadata)
        return True

    def _claim(self, device: Device, claim: Any, gateway: Device) -> bool:
        try:
            taken = payloads.claim(claim)
        except payloads.UnexpectedPayloadError as error:
            # On gateway topics the platform reports the failure of a device in the PUBACK (docs/platform_contract.md, section 4).
            raise payloads.BadPayloadError(str(error)) from error
        return self._platform.take_claim(device, taken, gateway)

    def _attribute_request(self, device: Device, request: payloads.GatewayAttributeRequest, gateway: Device) -> bool:
        self._platform.spend(device, gateway)
        if "" in request.keys:
            # The core fails and the platform sends no reply.
            return True
        response = attributes.gateway_response(device, request)
        self._session.reply("v1/gateway/attributes/response", payloads.encode_json(response))
        return True
