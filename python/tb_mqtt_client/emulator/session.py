"""One client's session, from its CONNECT to its end: what the platform answers to each packet (contract sections 1, 2 and 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tb_mqtt_client.emulator import codec, payloads
from tb_mqtt_client.emulator.background import Background
from tb_mqtt_client.emulator.codec import MQTT_5, PacketType, ProtocolViolationError, PublishPacket
from tb_mqtt_client.emulator.connection import UNEXPECTED, Connection
from tb_mqtt_client.emulator.device_uplinks import DeviceUplinks
from tb_mqtt_client.emulator.devices import Device
from tb_mqtt_client.emulator.gateway_uplinks import GatewayUplinks
from tb_mqtt_client.emulator.hooks import Hooks, Publish, Verdict
from tb_mqtt_client.emulator.ota import OtaError
from tb_mqtt_client.emulator.platform import Platform
from tb_mqtt_client.emulator.provisioning import ProvisionFormError
from tb_mqtt_client.emulator.rpc import RpcCall
from tb_mqtt_client.emulator.topics import (
    ATTRIBUTE_UPDATES,
    GATEWAY_PREFIX,
    OTA_ERROR,
    PROVISION_REQUEST,
    PROVISION_RESPONSE,
    RPC_REQUESTS,
    SUBSCRIBABLE,
    Uplink,
    classify,
    matching_filter,
    needs_subscription,
)

SUCCESS: Final = 0x00
NO_SUBSCRIPTION_EXISTED: Final = 0x11
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_SPECIFIC: Final = 0x83
TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
CREDENTIALS_CHANGED: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99

# CONNACK codes by what is wrong with the credentials: (MQTT 5, MQTT 3.1.1).
_WRONG_CREDENTIALS: Final = (0x86, 5)
_ONLY_CLIENT_ID: Final = (0x85, 2)
_NOTHING_USABLE: Final = (0x87, 5)

# The user name or client id of who has no credentials yet (contract section 6).
_PROVISION: Final = "provision"

# Seconds that the platform waits for the PUBACK of an RPC (contract section 2).
_RPC_ACKNOWLEDGEMENT_TIMEOUT: Final = 10.0

_GATEWAY_DATA: Final = frozenset({Uplink.GATEWAY_TELEMETRY, Uplink.GATEWAY_ATTRIBUTES})
_DATA: Final = frozenset({Uplink.TELEMETRY, Uplink.ATTRIBUTES}) | _GATEWAY_DATA


class Session(Connection):
    """The rule: every packet that can be read is answered at once and in order, unless a hook decides otherwise."""

    def __init__(
        self,
        platform: Platform,
        hooks: Hooks,
        sessions: set[Session],
        background: Background,
        report: Callable[[Exception], None],
    ) -> None:
        super().__init__(platform.max_payload_size, report)
        self.platform = platform
        self.hooks = hooks
        self.background = background
        self._sessions = sessions
        self._device: Device | None = None
        self._provisions = False
        self._subscriptions: dict[str, int] = {}
        # The family of the latest subscription serves the downlinks (contract section 2).
        self._attributes_filter: str | None = None
        self._rpc_filter: str | None = None
        self._downlink_id = 0
        self._unacknowledged_rpc: dict[int, RpcCall] = {}
        self._replies: list[tuple[str, bytes]] = []
        self._device_uplinks = DeviceUplinks(self)
        self._gateway_uplinks = GatewayUplinks(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sessions.discard(self)
        for device in [self._device, *self._gateway_uplinks.devices.values()]:
            if device is not None and device.session is self:
                device.session = None
        super().connection_lost(exc)

    def taken_over(self, device: Device) -> None:
        """The device has a newer session: its own connection ends, a gateway's goes on without it."""
        if device is self._device:
            self.close(TAKEN_OVER)
        else:
            self._gateway_uplinks.forget(device)

    def device_deleted(self, device: Device) -> None:
        """The device is gone: its own connection ends, a gateway's goes on without it."""
        if device is self._device:
            self.close(CREDENTIALS_CHANGED)
        else:
            self._gateway_uplinks.forget(device)

    # Packets.

    def _handle(self, first_byte: int, body: bytes) -> None:
        packet_type = first_byte >> 4
        if self._device is None and not self._provisions:
            if packet_type != PacketType.CONNECT:
                raise ProtocolViolationError("the first packet is no CONNECT", PROTOCOL_ERROR)
            self._connect(codec.decode_connect(body))
        elif packet_type == PacketType.PUBLISH:
            packet = codec.decode_publish(first_byte, body, self.level)
            if self._device is None:
                self._provision(packet)
            else:
                self._publish(packet, self._device)
        elif packet_type == PacketType.PUBACK:
            self._acknowledged(codec.decode_puback(body))
        elif packet_type == PacketType.SUBSCRIBE:
            self._subscribe(first_byte, body)
        elif packet_type == PacketType.UNSUBSCRIBE:
            self._unsubscribe(first_byte, body)
        elif packet_type == PacketType.PINGREQ:
            self.write(codec.encode_pingresp())
        elif packet_type == PacketType.DISCONNECT:
            # MQTT 5 clients get it echoed (contract section 1).
            self.close(SUCCESS)
        else:
            raise ProtocolViolationError(f"a client must not send a packet of type {packet_type}", PROTOCOL_ERROR)

    def _connect(self, connect: codec.Connect) -> None:
        self.level = connect.level
        if _PROVISION in (connect.username, connect.client_id):
            self._provisions = True
            self._accept(connect)
            return
        certificate = self.peer_certificate
        device = self.platform.authenticate(connect, certificate)
        if device is None:
            self._refuse(connect, _NOTHING_USABLE if certificate is not None else _refusal(connect))
            return
        if device.session is not None:
            device.session.taken_over(device)
        self._device = device
        device.session = self
        self._count("connections")
        self._accept(connect)

    def _accept(self, connect: codec.Connect) -> None:
        self.write(codec.encode_connack(SUCCESS, self.level, session_present=not connect.clean_start))

    def _refuse(self, connect: codec.Connect, codes: tuple[int, int]) -> None:
        self.platform.total.refused_connections += 1
        for_version_5, for_older = codes
        reason_code = for_version_5 if self.level >= MQTT_5 else for_older
        self.write(codec.encode_connack(reason_code, self.level, session_present=not connect.clean_start))
        self.close(for_version_5)

    def _subscribe(self, first_byte: int, body: bytes) -> None:
        packet_id, subscriptions = codec.decode_subscribe(first_byte, body, self.level)
        granted = []
        for topic_filter, qos in subscriptions:
            if topic_filter in SUBSCRIBABLE:
                self._begin_subscription(topic_filter, min(qos, 1))
                granted.append(min(qos, 1))
            else:
                granted.append(TOPIC_FILTER_INVALID if self.level >= MQTT_5 else 0x80)
        self.write(codec.encode_suback(packet_id, granted, self.level))
        if self._device is not None and any(topic_filter in RPC_REQUESTS for topic_filter, _ in subscriptions):
            self.platform.rpc.subscribed(self._device)

    def _begin_subscription(self, topic_filter: str, qos: int) -> None:
        self._subscriptions[topic_filter] = qos
        if topic_filter in ATTRIBUTE_UPDATES:
            self._attributes_filter = topic_filter
        elif topic_filter in RPC_REQUESTS:
            self._rpc_filter = topic_filter

    def _unsubscribe(self, first_byte: int, body: bytes) -> None:
        packet_id, filters = codec.decode_unsubscribe(first_byte, body, self.level)
        codes = []
        for topic_filter in filters:
            if topic_filter not in SUBSCRIBABLE:
                codes.append(TOPIC_FILTER_INVALID)
            elif self._subscriptions.pop(topic_filter, None) is None:
                codes.append(NO_SUBSCRIPTION_EXISTED)
            else:
                codes.append(SUCCESS)
                # The platform knows one subscription of each kind, whatever family it was made in.
                if topic_filter in ATTRIBUTE_UPDATES:
                    self._attributes_filter = None
                elif topic_filter in RPC_REQUESTS:
                    self._rpc_filter = None
        self.write(codec.encode_unsuback(packet_id, codes, self.level))

    # Downlinks.

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a downlink; False when the device has to be subscribed to it and is not."""
        topic_filter = matching_filter(topic) or ""
        if self._closing or (needs_subscription(topic_filter) and topic_filter not in self._subscriptions):
            return False
        # Without a subscription the platform sends at QoS 1 (contract, fact 7); its counter is never wrapped.
        qos = self._subscriptions.get(topic_filter, 1)
        if qos:
            self._downlink_id += 1
        self._count("downlinks")
        self.write(codec.encode_publish(topic, payload, qos, self._downlink_id % 65536, self.level))
        return True

    def send_attributes(self, device: Device, values: dict[str, Any]) -> bool:
        """Send an update (or `{"deleted": [...]}`) to the device itself or through the gateway; False when not subscribed."""
        if device is not self._device:
            return self._gateway_uplinks.send_attributes(device, values)
        return self._attributes_filter is not None and self.send(self._attributes_filter, payloads.encode_json(values))

    def send_rpc(self, device: Device, call: RpcCall) -> bool:
        """Send a call to the device itself or through the gateway; False when not subscribed."""
        request = {"method": call.method, "params": call.params}
        if device is not self._device:
            # The platform does not track the PUBACK of these (contract section 4).
            return self._gateway_uplinks.send_rpc(device, {"id": call.id} | request)
        topic_filter = self._rpc_filter
        if topic_filter is None or not self.send(f"{topic_filter[:-1]}{call.id}", payloads.encode_json(request)):
            return False
        if self._subscriptions[topic_filter]:
            self._unacknowledged_rpc[self._downlink_id] = call
            self.timers.after(_RPC_ACKNOWLEDGEMENT_TIMEOUT, self._rpc_unacknowledged, device, self._downlink_id)
        else:
            self.platform.rpc.acknowledged(device, call)
        return True

    def send_disconnect_notice(self, device: Device, reason: int) -> bool:
        """Tell a gateway of trouble with a device behind it; not in MQTT 3.1.1."""
        return device is not self._device and self.level >= MQTT_5 and self._gateway_uplinks.send_disconnect_notice(device, reason)

    def _acknowledged(self, packet_id: int) -> None:
        self._count("downlink_pubacks")
        # Keyed by the counter, not by what of it fits a packet: beyond 65535 nothing is found (contract section 1).
        call = self._unacknowledged_rpc.pop(packet_id, None)
        if call is not None and self._device is not None:
            self.platform.rpc.acknowledged(self._device, call)

    def _rpc_unacknowledged(self, device: Device, downlink_id: int) -> None:
        call = self._unacknowledged_rpc.pop(downlink_id, None)
        if call is not None:
            self.platform.rpc.unacknowledged(device, call)

    # Publishes.

    def reply(self, topic: str, payload: bytes) -> None:
        """Send after the PUBACK of the message that is being processed."""
        self._replies.append((topic, payload))

    def _provision(self, packet: PublishPacket) -> None:
        """The only thing that a client without credentials may do (contract section 6)."""
        if packet.topic != PROVISION_REQUEST:
            self._acknowledge(packet, TOPIC_NAME_INVALID)
            self.close(TOPIC_NAME_INVALID)
            return
        try:
            reply = self.platform.provisioning.answer(payloads.decode_json(packet.payload))
        except payloads.BadPayloadError:
            self._refuse_payload(packet)
        except ProvisionFormError:
            self._acknowledge(packet, IMPLEMENTATION_SPECIFIC)
            self.close(IMPLEMENTATION_SPECIFIC)
        else:
            self._acknowledge(packet, SUCCESS)
            self.send(PROVISION_RESPONSE, payloads.encode_json(reply))
            self.timers.after(self.platform.provision_timeout, self.close)

    def _publish(self, packet: PublishPacket, device: Device) -> None:
        self._count("publishes")
        self._count("payload_bytes", len(packet.payload))
        for counters in (device.counters, self.platform.total):
            counters.largest_remaining_length = max(counters.largest_remaining_length, packet.remaining_length)
        verdict = self._ask_hook(packet, device)
        if verdict is None:
            self._process(packet, device, None)
            return
        if verdict.store:
            self._process(packet, device, verdict)
        elif verdict.acknowledges:
            self._acknowledge(packet, verdict.reason_code or SUCCESS, verdict.delay_seconds)
        if verdict.closes:
            self.close(verdict.disconnect_reason)

    def _ask_hook(self, packet: PublishPacket, device: Device) -> Verdict | None:
        if self.hooks.on_publish is None:
            return None
        return self.hooks.on_publish(
            Publish(device, packet.topic, packet.payload, packet.qos, packet.packet_id, packet.duplicate, packet.remaining_length)
        )

    def _process(self, packet: PublishPacket, device: Device, verdict: Verdict | None) -> None:
        uplink, rest = classify(packet.topic)
        if packet.topic.startswith(GATEWAY_PREFIX) and not device.is_gateway:
            # Dropped without a word (contract section 4).
            return
        if uplink in _DATA:
            self._count("data_publishes")
            self._count("data_bytes", packet.remaining_length)
        try:
            acknowledged = self._take(uplink, rest, packet, device)
        except payloads.BadPayloadError:
            self._refuse_payload(packet)
        except payloads.GatewayFormError:
            self._acknowledge(packet, IMPLEMENTATION_SPECIFIC)
            self.close(IMPLEMENTATION_SPECIFIC)
        except payloads.UnexpectedPayloadError:
            self.close(UNEXPECTED)
        except OtaError as error:
            self.send(OTA_ERROR, str(error).encode())
            self.close(IMPLEMENTATION_SPECIFIC)
        else:
            if acknowledged is not None and (verdict is None or verdict.acknowledges):
                code = acknowledged if verdict is None or verdict.reason_code is None else verdict.reason_code
                self._acknowledge(packet, code, verdict.delay_seconds if verdict else 0.0)
        if self._replies:
            for topic, payload in self._replies:
                self.send(topic, payload)
            self._replies.clear()

    def _take(self, uplink: Uplink, rest: str, packet: PublishPacket, device: Device) -> int | None:
        """Return the reason code of the PUBACK, or None for no PUBACK."""
        if uplink is Uplink.UNKNOWN:
            return TOPIC_NAME_INVALID
        if packet.topic.startswith(GATEWAY_PREFIX):
            return self._gateway_uplinks.take(uplink, packet, device)
        return self._device_uplinks.take(uplink, rest, packet, device)

    def _refuse_payload(self, packet: PublishPacket) -> None:
        if self.level < MQTT_5:
            self.close()
        elif packet.qos == 0:
            self.close(PAYLOAD_FORMAT_INVALID)
        else:
            self._acknowledge(packet, PAYLOAD_FORMAT_INVALID)

    def _acknowledge(self, packet: PublishPacket, reason_code: int, delay: float = 0.0) -> None:
        if packet.qos == 0:
            return
        if delay:
            self.timers.after(delay, self._acknowledge, packet, reason_code)
            return
        self._count("pubacks")
        if reason_code >= 0x80:
            self._count("refusals")
        self.write(codec.encode_puback(packet.packet_id, reason_code, self.level))

    def _count(self, name: str, amount: int = 1) -> None:
        for counters in (self._device.counters if self._device else None, self.platform.total):
            if counters is not None:
                setattr(counters, name, getattr(counters, name) + amount)


def _refusal(connect: codec.Connect) -> tuple[int, int]:
    if connect.username is not None or connect.password is not None:
        return _WRONG_CREDENTIALS
    return _ONLY_CLIENT_ID if connect.client_id else _NOTHING_USABLE
