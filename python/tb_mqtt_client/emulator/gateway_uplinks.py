"""What a gateway publishes for the devices behind it, and their sub-sessions (contract section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tb_mqtt_client.emulator import attributes, payloads
from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE, Device
from tb_mqtt_client.emulator.topics import Uplink

if TYPE_CHECKING:
    from tb_mqtt_client.emulator.codec import PublishPacket
    from tb_mqtt_client.emulator.session import Session

SUCCESS: Final = 0x00


class GatewayUplinks:
    """The gateway's half of a session. `devices` are its sub-sessions, by the name under which each was announced."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._platform = session.platform
        self.devices: dict[str, Device] = {}
        self._names: dict[Device, str] = {}

    def take(self, uplink: Uplink, packet: PublishPacket, gateway: Device) -> int | None:
        """Process a message; the reason code of its PUBACK, or None for no PUBACK. Raises the errors of `payloads`."""
        document = payloads.decode_json(packet.payload, exact=self._platform.keep_data)
        if uplink is Uplink.GATEWAY_TELEMETRY:
            return self._telemetry(document, gateway)
        if uplink is Uplink.GATEWAY_ATTRIBUTES:
            for name, values in payloads.gateway_entries(document, dict).items():
                self._platform.take_attributes(self._sub_device(name, gateway), values)
        elif uplink is Uplink.GATEWAY_CONNECT:
            profile = document.get("type") if isinstance(document, dict) else None
            self._sub_device(payloads.device_name(document), gateway, profile or DEFAULT_PROFILE)
        elif uplink is Uplink.GATEWAY_DISCONNECT:
            self._end(payloads.device_name(document))
        elif uplink is Uplink.GATEWAY_RPC:
            name, call_id, payload = payloads.gateway_rpc_response(document)
            self._platform.rpc.answered(self._sub_device(name, gateway), call_id, payload)
        elif uplink is Uplink.GATEWAY_ATTRIBUTE_REQUEST:
            request = payloads.gateway_attribute_request(document)
            answer = attributes.gateway_answer(self._sub_device(request.device, gateway), request)
            self._session.reply("v1/gateway/attributes/response", payloads.encode_json(answer))
        elif uplink is Uplink.GATEWAY_CLAIM:
            for name, claim in payloads.gateway_entries(document, dict).items():
                self._platform.take_claim(self._sub_device(name, gateway), payloads.claim(claim))
        return SUCCESS

    def send_attributes(self, device: Device, values: dict[str, Any]) -> bool:
        return self._send("v1/gateway/attributes", device, values)

    def send_rpc(self, device: Device, request: dict[str, Any]) -> bool:
        return self._send("v1/gateway/rpc", device, request)

    def send_disconnect_notice(self, device: Device, reason: int) -> bool:
        notice = {"device": self._names[device], "reason": reason}
        return self._session.send("v1/gateway/disconnect", payloads.encode_json(notice))

    def forget(self, device: Device) -> None:
        """End a device's sub-session."""
        if (name := self._names.get(device)) is not None:
            self._end(name)

    def _telemetry(self, document: Any, gateway: Device) -> int | None:
        platform = self._platform
        entries = payloads.gateway_entries(document, list)
        refused = None
        for name, elements in entries.items():
            device = self._sub_device(name, gateway)
            try:
                records, metadata = payloads.gateway_telemetry(elements, platform.now(), platform.version.reads_metadata)
            except payloads.BadPayloadError as error:
                # The other entries are stored all the same.
                refused = error
                continue
            if metadata and platform.keep_data:
                device.metadata.extend(metadata)
            if records:
                platform.take_telemetry(device, records)
        if refused is not None:
            raise refused
        # `[]` is accepted and never acknowledged (contract section 3).
        return SUCCESS if all(entries.values()) else None

    def _sub_device(self, name: str, gateway: Device, profile: str = DEFAULT_PROFILE) -> Device:
        """The sub-device's session; any uplink begins one."""
        device = self.devices.get(name)
        if device is None:
            device = self._platform.sub_device(name, profile, gateway)
            if device.session is not None:
                # Announced by another gateway, or under the name that it had: the newest session wins.
                device.session.taken_over(device)
            self.devices[name] = device
            self._names[device] = name
            device.session = self._session
            device.counters.connections += 1
            self._platform.rpc.subscribed(device)
        return device

    def _end(self, name: str) -> None:
        device = self.devices.pop(name, None)
        if device is not None:
            del self._names[device]
            device.session = None

    def _send(self, topic: str, device: Device, data: Any) -> bool:
        return self._session.send(topic, payloads.encode_json({"device": self._names[device], "data": data}))
