"""One client's connection, from its CONNECT to its end: what the platform answers to each packet (contract sections 1 to 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from tb_mqtt_client.emulator import codec, payloads
from tb_mqtt_client.emulator.codec import MQTT_5, PacketReader, PacketType, ProtocolViolationError, PublishPacket
from tb_mqtt_client.emulator.hooks import Hooks, Publish, Verdict
from tb_mqtt_client.emulator.platform import DEFAULT_PROFILE, Device, Platform
from tb_mqtt_client.emulator.topics import (
    GATEWAY_PREFIX,
    RPC_REQUEST_V1,
    RPC_RESPONSE_V1,
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
UNEXPECTED: Final = 0x8B
TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PAYLOAD_FORMAT_INVALID: Final = 0x99

# CONNACK codes by what is wrong with the credentials: (MQTT 5, MQTT 3.1.1).
_WRONG_CREDENTIALS: Final = (0x86, 5)
_ONLY_CLIENT_ID: Final = (0x85, 2)
_NOTHING_USABLE: Final = (0x87, 5)

_GATEWAY_DATA: Final = frozenset({Uplink.GATEWAY_TELEMETRY, Uplink.GATEWAY_ATTRIBUTES})
_DATA: Final = frozenset({Uplink.TELEMETRY, Uplink.ATTRIBUTES}) | _GATEWAY_DATA


class Session(asyncio.Protocol):
    """The rule: every packet that can be read is answered at once and in order, unless a hook decides otherwise."""

    def __init__(self, platform: Platform, hooks: Hooks, sessions: set[Session], report: Callable[[Exception], None]) -> None:
        self._platform = platform
        self._hooks = hooks
        self._sessions = sessions
        self._report = report
        self._reader = PacketReader(platform.max_payload_size)
        self._transport: asyncio.Transport | None = None
        self._level = MQTT_5
        self._device: Device | None = None
        self._sub_devices: dict[str, Device] = {}
        self._subscriptions: dict[str, int] = {}
        self._downlink_id = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._closing = False
        self.ended = asyncio.Event()

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sessions.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._reader.feed(data)
        try:
            for first_byte, body in self._reader.packets():
                self._handle(first_byte, body)
                if self._closing:
                    return
        except ProtocolViolationError as violation:
            self.close(violation.reason_code)
        except Exception as error:  # noqa: BLE001  # reported to whoever runs the emulator, and raised at its end
            self._report(error)
            self.close(UNEXPECTED)

    def pause_writing(self) -> None:
        """The client does not read: neither does the emulator, so that answers do not pile up."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._closing = True
        self._sessions.discard(self)
        for timer in self._timers:
            timer.cancel()
        for device in [self._device, *self._sub_devices.values()]:
            if device is not None and device.session is self:
                device.session = None
        self.ended.set()

    def close(self, reason_code: int | None = None) -> None:
        """Close, after a DISCONNECT when a reason is given and the client speaks MQTT 5."""
        if self._closing or self._transport is None:
            return
        if reason_code is not None and self._level >= MQTT_5:
            self._write(codec.encode_disconnect(reason_code))
        self._closing = True
        self._transport.close()

    def abort(self) -> None:
        """End at once, whatever is unsent."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _write(self, packet: bytes) -> None:
        if self._transport is not None and not self._closing:
            self._transport.write(packet)

    # Packets.

    def _handle(self, first_byte: int, body: bytes) -> None:
        packet_type = first_byte >> 4
        if self._device is None:
            if packet_type != PacketType.CONNECT:
                raise ProtocolViolationError("the first packet is no CONNECT", PROTOCOL_ERROR)
            self._connect(body)
        elif packet_type == PacketType.PUBLISH:
            self._publish(codec.decode_publish(first_byte, body, self._level), self._device)
        elif packet_type == PacketType.PUBACK:
            codec.decode_puback(body)
            self._count("downlink_pubacks")
        elif packet_type == PacketType.SUBSCRIBE:
            self._subscribe(first_byte, body)
        elif packet_type == PacketType.UNSUBSCRIBE:
            self._unsubscribe(first_byte, body)
        elif packet_type == PacketType.PINGREQ:
            self._write(codec.encode_pingresp())
        elif packet_type == PacketType.DISCONNECT:
            # MQTT 5 clients get it echoed (contract section 1).
            self.close(SUCCESS)
        else:
            raise ProtocolViolationError(f"a client must not send a packet of type {packet_type}", PROTOCOL_ERROR)

    def _connect(self, body: bytes) -> None:
        connect = codec.decode_connect(body)
        # 3 is MQTT 3.1, 5 is MQTT 5, the platform takes everything else as 3.1.1.
        self._level = connect.level
        device = self._platform.authenticate(connect)
        if device is None:
            self._platform.total.refused_connections += 1
            for_version_5, for_older = _refusal(connect)
            reason_code = for_version_5 if self._level >= MQTT_5 else for_older
            self._write(codec.encode_connack(reason_code, self._level, session_present=not connect.clean_start))
            self.close(for_version_5)
            return
        if device.session is not None:
            device.session.close(TAKEN_OVER)
        self._device = device
        device.session = self
        self._count("connections")
        self._write(codec.encode_connack(SUCCESS, self._level, session_present=not connect.clean_start))

    def _subscribe(self, first_byte: int, body: bytes) -> None:
        packet_id, subscriptions = codec.decode_subscribe(first_byte, body, self._level)
        granted = []
        for topic_filter, qos in subscriptions:
            if topic_filter in SUBSCRIBABLE:
                self._subscriptions[topic_filter] = min(qos, 1)
                granted.append(min(qos, 1))
            else:
                granted.append(TOPIC_FILTER_INVALID if self._level >= MQTT_5 else 0x80)
        self._write(codec.encode_suback(packet_id, granted, self._level))

    def _unsubscribe(self, first_byte: int, body: bytes) -> None:
        packet_id, filters = codec.decode_unsubscribe(first_byte, body, self._level)
        codes = []
        for topic_filter in filters:
            if topic_filter not in SUBSCRIBABLE:
                codes.append(TOPIC_FILTER_INVALID)
            elif self._subscriptions.pop(topic_filter, None) is None:
                codes.append(NO_SUBSCRIPTION_EXISTED)
            else:
                codes.append(SUCCESS)
        self._write(codec.encode_unsuback(packet_id, codes, self._level))

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a downlink; False when the device has to be subscribed to it and is not."""
        topic_filter = matching_filter(topic) or ""
        if needs_subscription(topic_filter) and topic_filter not in self._subscriptions:
            return False
        # Without a subscription the platform sends at QoS 1 (contract, fact 7); its counter is never wrapped.
        qos = self._subscriptions.get(topic_filter, 1)
        if qos:
            self._downlink_id += 1
        self._count("downlinks")
        self._write(codec.encode_publish(topic, payload, qos, self._downlink_id % 65536, self._level))
        return True

    # Publishes.

    def _publish(self, packet: PublishPacket, device: Device) -> None:
        self._count("publishes")
        self._count("payload_bytes", len(packet.payload))
        for counters in (device.counters, self._platform.total):
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
        if self._hooks.on_publish is None:
            return None
        return self._hooks.on_publish(
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
        else:
            if acknowledged is not None and (verdict is None or verdict.acknowledges):
                code = acknowledged if verdict is None or verdict.reason_code is None else verdict.reason_code
                self._acknowledge(packet, code, verdict.delay_seconds if verdict else 0.0)

    def _refuse_payload(self, packet: PublishPacket) -> None:
        if self._level < MQTT_5:
            self.close()
        elif packet.qos == 0:
            self.close(PAYLOAD_FORMAT_INVALID)
        else:
            self._acknowledge(packet, PAYLOAD_FORMAT_INVALID)

    def _take(self, uplink: Uplink, rest: str, packet: PublishPacket, device: Device) -> int | None:
        """Process a message; the reason code of its PUBACK, or None for no PUBACK."""
        platform = self._platform
        if uplink is Uplink.UNKNOWN:
            return TOPIC_NAME_INVALID
        if uplink is Uplink.TELEMETRY:
            records = payloads.telemetry_records(self._json(packet), platform.now())
            if not records:
                # `[]` is accepted and never acknowledged (contract section 3).
                return None
            platform.take_telemetry(device, records)
        elif uplink is Uplink.ATTRIBUTES:
            platform.take_attributes(device, payloads.attributes(self._json(packet)))
        elif uplink is Uplink.RPC_REQUEST:
            self._rpc_request(packet, payloads.request_id(rest), device)
        elif uplink in {Uplink.ATTRIBUTE_REQUEST, Uplink.RPC_RESPONSE}:
            payloads.request_id(rest)
        elif packet.topic.startswith(GATEWAY_PREFIX):
            return self._take_gateway(uplink, packet)
        return SUCCESS

    def _rpc_request(self, packet: PublishPacket, request_id: int, device: Device) -> None:
        request = self._json(packet)
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            raise payloads.UnexpectedPayloadError("'method' is missing")
        limits = self._platform.limits
        if request["method"] == "getSessionLimits" and packet.topic.startswith(RPC_REQUEST_V1) and limits is not None:
            reply = limits.reply(max_payload_size=self._platform.max_payload_size, is_gateway=device.is_gateway)
            self.send(f"{RPC_RESPONSE_V1}{request_id}", json.dumps(reply).encode())

    def _take_gateway(self, uplink: Uplink, packet: PublishPacket) -> int | None:
        document = self._json(packet)
        platform = self._platform
        if uplink is Uplink.GATEWAY_TELEMETRY:
            entries = payloads.gateway_entries(document, list)
            for name, elements in entries.items():
                if elements:
                    records = payloads.gateway_telemetry_records(elements, platform.now())
                    platform.take_telemetry(self._sub_device(name), records)
            return SUCCESS if any(entries.values()) else None
        if uplink is Uplink.GATEWAY_ATTRIBUTES:
            for name, attributes in payloads.gateway_entries(document, dict).items():
                platform.take_attributes(self._sub_device(name), attributes)
        elif uplink is Uplink.GATEWAY_CONNECT:
            profile = document.get("type") if isinstance(document, dict) else None
            self._sub_device(payloads.device_name(document), profile or DEFAULT_PROFILE)
        elif uplink is Uplink.GATEWAY_DISCONNECT:
            device = self._sub_devices.pop(payloads.device_name(document), None)
            if device is not None:
                device.session = None
        return SUCCESS

    def _sub_device(self, name: str, profile: str = DEFAULT_PROFILE) -> Device:
        """The sub-device's session; any uplink begins one (contract section 4)."""
        device = self._sub_devices.get(name)
        if device is None:
            device = self._sub_devices[name] = self._platform.sub_device(name, profile)
            device.session = self
            device.counters.connections += 1
        return device

    def _json(self, packet: PublishPacket) -> Any:
        return payloads.decode_json(packet.payload, exact=self._platform.keep_data)

    def _acknowledge(self, packet: PublishPacket, reason_code: int, delay: float = 0.0) -> None:
        if packet.qos == 0:
            return
        if delay:
            timer = asyncio.get_running_loop().call_later(delay, self._acknowledge, packet, reason_code)
            self._timers.add(timer)
            return
        self._count("pubacks")
        if reason_code >= 0x80:
            self._count("refusals")
        self._write(codec.encode_puback(packet.packet_id, reason_code, self._level))

    def _count(self, name: str, amount: int = 1) -> None:
        for counters in (self._device.counters if self._device else None, self._platform.total):
            if counters is not None:
                setattr(counters, name, getattr(counters, name) + amount)


def _refusal(connect: codec.Connect) -> tuple[int, int]:
    if connect.username:
        return _WRONG_CREDENTIALS
    if connect.password:
        return _WRONG_CREDENTIALS
    return _ONLY_CLIENT_ID if connect.client_id else _NOTHING_USABLE
