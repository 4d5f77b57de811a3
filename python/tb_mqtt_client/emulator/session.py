"""The session of one client: processes its packets from CONNECT on (docs/platform_contract.md, sections 1, 2 and 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tb_mqtt_client.emulator import codec, handshake, payloads
from tb_mqtt_client.emulator.background import Background
from tb_mqtt_client.emulator.codec import (
    ADMINISTRATIVE_ACTION,
    CONNECTION_RATE_EXCEEDED,
    IMPLEMENTATION_SPECIFIC,
    MQTT_5,
    PAYLOAD_FORMAT_INVALID,
    PROTOCOL_ERROR,
    QUOTA_EXCEEDED,
    SERVER_SHUTTING_DOWN,
    SUCCESS,
    TAKEN_OVER,
    TOPIC_NAME_INVALID,
    Connect,
    PacketType,
    ProtocolViolationError,
    PublishPacket,
)
from tb_mqtt_client.emulator.connection import Connection
from tb_mqtt_client.emulator.device_uplinks import DeviceUplinks
from tb_mqtt_client.emulator.devices import Device, PendingRpc
from tb_mqtt_client.emulator.downlinks import Downlinks
from tb_mqtt_client.emulator.gateway_uplinks import GatewayUplinks
from tb_mqtt_client.emulator.handshake import Refusal
from tb_mqtt_client.emulator.hooks import ConnectAttempt, Hooks, Publish, Sending, Verdict
from tb_mqtt_client.emulator.limits import RateLimitedError, SessionLimits
from tb_mqtt_client.emulator.ota import OtaError
from tb_mqtt_client.emulator.platform import UNACKNOWLEDGED, Outcome, Platform
from tb_mqtt_client.emulator.provisioning import ProvisionFormError
from tb_mqtt_client.emulator.topics import (
    GATEWAY_PREFIX,
    OTA_ERROR,
    PROVISION_REQUEST,
    PROVISION_RESPONSE,
    Uplink,
    classify,
)

_DATA: Final = frozenset({Uplink.TELEMETRY, Uplink.ATTRIBUTES, Uplink.GATEWAY_TELEMETRY, Uplink.GATEWAY_ATTRIBUTES})
_MQTT_VERSIONS: Final = {codec.MQTT_3_1: "3.1", codec.MQTT_3_1_1: "3.1.1", MQTT_5: "5"}


class Session(Connection):
    """Processes packets immediately and in order, unless a hook decides otherwise.

    PUBACKs are written when all packets that arrived together are processed, or before the next packet of another type. A
    message that exceeds a limit discards the unwritten PUBACKs, as in the platform (docs/platform_contract.md, section 4).
    """

    def __init__(
        self,
        platform: Platform,
        hooks: Hooks,
        sessions: set[Session],
        background: Background,
        report: Callable[[Exception], None],
    ) -> None:
        super().__init__(platform.max_payload_size, platform.inactivity_timeout, report)
        self.platform = platform
        self.hooks = hooks
        self.background = background
        self.device: Device | None = None
        self.last_downlink_id = 0
        self._sessions = sessions
        # Packets that arrived while the CONNACK is delayed (docs/platform_contract.md, fact 5); None if it is not delayed.
        self._waiting: list[tuple[int, bytes]] | None = None
        self._provisions = False
        self._replies: list[tuple[str, bytes]] = []
        # Reason codes and packets of the unwritten PUBACKs.
        self._pubacks: list[tuple[int, bytes]] = []
        self.downlinks: Downlinks = Downlinks(self)
        self._device_uplinks = DeviceUplinks(self)
        self._gateway_uplinks = GatewayUplinks(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sessions.discard(self)
        if self.device is not None:
            if self.hooks.on_event is not None:
                self.hooks.on_event(f"{self.device.name} disconnected")
            # Closing a session takes a message token, but the platform does not check the limit.
            self.platform.meter.take(self.device, None)
            self._gateway_uplinks.sub_sessions.end_all(self.device)
            if self.device.session is self:
                self.device.session = None
        super().connection_lost(exc)

    def taken_over(self, device: Device) -> None:
        """Release a device that has a newer session."""
        self._release(device, TAKEN_OVER)

    def device_deleted(self, device: Device) -> None:
        """Release a deleted device."""
        self._release(device, ADMINISTRATIVE_ACTION)

    def _release(self, device: Device, reason_code: int) -> None:
        if device is self.device:
            self.close(reason_code)
        else:
            self._gateway_uplinks.sub_sessions.forget(device)

    def check_sub_device_inactivity(self) -> None:
        """Apply a new value of `Platform.sub_device_inactivity`."""
        self._gateway_uplinks.sub_sessions.check_inactivity()

    # Packets.

    def _handle(self, first_byte: int, body: bytes) -> None:
        if self._waiting is not None:
            self._waiting.append((first_byte, body))
            if len(self._waiting) > (self.platform.limits or SessionLimits()).max_inflight_messages:
                self.close(QUOTA_EXCEEDED)
        elif self.device is not None or self._provisions:
            self._handle_in_session(first_byte >> 4, first_byte, body)
        elif first_byte >> 4 == PacketType.CONNECT:
            self._connect(codec.decode_connect(body))
        else:
            raise ProtocolViolationError("the first packet is not a CONNECT", PROTOCOL_ERROR)

    def _handle_in_session(self, packet_type: int, first_byte: int, body: bytes) -> None:
        if self.platform.restart_code is not None and packet_type in {PacketType.PUBLISH, PacketType.SUBSCRIBE}:
            self.close(self.platform.restart_code)
        elif packet_type == PacketType.PUBLISH:
            packet = codec.decode_publish(first_byte, body, self.level)
            if self.device is None:
                self._provision(packet)
            else:
                self._publish(packet, self.device)
        elif packet_type == PacketType.PUBACK:
            self.downlinks.acknowledged(codec.decode_puback(body))
        elif packet_type == PacketType.SUBSCRIBE:
            self.downlinks.subscribe(first_byte, body)
        elif packet_type == PacketType.UNSUBSCRIBE:
            self.downlinks.unsubscribe(first_byte, body)
        elif packet_type == PacketType.PINGREQ:
            self.write(codec.encode_pingresp())
        elif packet_type == PacketType.DISCONNECT:
            # The platform echoes the DISCONNECT of MQTT 5 clients (docs/platform_contract.md, section 1).
            self.close(SUCCESS)
        else:
            raise ProtocolViolationError(f"a client must not send a packet of type {packet_type}", PROTOCOL_ERROR)

    def _connect(self, connect: Connect) -> None:
        self.level: int = connect.level
        certificate = self.peer_certificate
        verdict = None
        if self.hooks.on_connect is not None:
            attempt = ConnectAttempt(connect.client_id, connect.username, connect.password, connect.level, certificate)
            verdict = self.hooks.on_connect(attempt)
        if verdict is None:
            self._open(connect, certificate)
        elif verdict.properties:
            self._open(connect, certificate, verdict.properties)
        elif verdict.drops:
            self.close()
        elif verdict.reason_code is not None:
            self._refuse(connect, Refusal(verdict.reason_code, by_certificate=certificate is not None))
        else:
            self._waiting = []
            if verdict.delay_seconds is not None:
                self.timers.after(verdict.delay_seconds, self._open_late, connect, certificate)

    def _open(self, connect: Connect, certificate: bytes | None, properties: bytes = b"") -> None:
        if handshake.wants_provisioning(connect):
            self._provisions = True
        else:
            device = self.platform.registry.authenticate(connect, certificate)
            if device is None:
                self._refuse(connect, handshake.wrong_credentials(connect, certificate))
                return
            if not self.platform.meter.take(device, None):
                self._refuse(connect, Refusal(CONNECTION_RATE_EXCEEDED))
                return
            if device.session is not None:
                device.session.taken_over(device)
            self.device = device
            device.session = self
            self.count("connections")
            if self.hooks.on_event is not None:
                self.hooks.on_event(f"{device.name} connected with MQTT {_MQTT_VERSIONS[self.level]}")
        session_present = not connect.clean_start
        self.write(codec.encode_connack(SUCCESS, self.level, session_present=session_present, properties=properties))

    def _open_late(self, connect: Connect, certificate: bytes | None) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._guarded(partial(self._open, connect, certificate))
        for first_byte, body in waiting:
            if not self.closing:
                self._guarded(partial(self._handle, first_byte, body))
        self._received()

    def _refuse(self, connect: Connect, refusal: Refusal) -> None:
        self.platform.total.refused_connections += 1
        if self.hooks.on_event is not None:
            client = f"client id {connect.client_id!r}, user name {connect.username!r}"
            self.hooks.on_event(f"refused a connection with 0x{refusal.code:02X}: {client}")
        self.write(refusal.connack(connect))
        self.close(refusal.disconnect_reason)

    # Downlinks.

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a downlink. Return False if it needs a missing subscription or the connection is closing."""
        return not self.closing and self.downlinks.send(topic, payload)

    def send_attributes(self, device: Device, values: dict[str, Any]) -> bool:
        """Send an attribute update (or `{"deleted": [...]}`) to a device. Return False if the client is not subscribed."""
        if self.closing:
            return False
        own = device is self.device
        return self.downlinks.send_attributes(values) if own else self._gateway_uplinks.send_attributes(device, values)

    def send_rpc(self, device: Device, rpc: PendingRpc) -> bool:
        """Send an RPC request to a device. Return False if the client is not subscribed."""
        if self.closing:
            return False
        own = device is self.device
        return self.downlinks.send_rpc(device, rpc) if own else self._gateway_uplinks.send_rpc(device, rpc)

    def send_disconnect_notice(self, device: Device, reason: int) -> bool:
        """Notify a gateway of a problem with a sub-device. Return False if the client is not a gateway with MQTT 5."""
        return device is not self.device and self._gateway_uplinks.send_disconnect_notice(device, reason)

    def reply(self, topic: str, payload: bytes) -> None:
        """Send a message after the PUBACK of the message that is being processed."""
        self._replies.append((topic, payload))

    def write(self, packet: bytes) -> None:
        """Write the unwritten PUBACKs, then a packet."""
        self._write_pubacks()
        self._send_packet(packet)

    def close(self, reason_code: int | None = None) -> None:
        """Close the connection, after a DISCONNECT if there is a reason code and the client uses MQTT 5."""
        self._write_pubacks()
        super().close(reason_code)

    def abort(self) -> None:
        """Close the connection immediately and discard unsent bytes."""
        self._write_pubacks()
        super().abort()

    def _received(self) -> None:
        self._write_pubacks()

    # Publishes.

    def _provision(self, packet: PublishPacket) -> None:
        """Process a provisioning request, the only publish allowed without credentials (docs/platform_contract.md, section 6)."""
        if packet.topic != PROVISION_REQUEST:
            self._conclude(packet, Outcome((TOPIC_NAME_INVALID,), closes=True, disconnect_reason=TOPIC_NAME_INVALID))
            return
        try:
            reply = self.platform.provisioning.respond(payloads.decode_json(packet.payload))
        except payloads.BadPayloadError:
            self._conclude(packet, self._bad_payload(packet))
        except ProvisionFormError:
            self._conclude(packet, Outcome((IMPLEMENTATION_SPECIFIC,), closes=True, disconnect_reason=IMPLEMENTATION_SPECIFIC))
        else:
            self._conclude(packet, Outcome())
            self.send(PROVISION_RESPONSE, payloads.encode_json(reply))
            self.timers.after(self.platform.provision_timeout, self.close)

    def _publish(self, packet: PublishPacket, device: Device) -> None:
        self.count("publishes")
        self.count("payload_bytes", len(packet.payload))
        for counters in (device.counters, self.platform.total):
            counters.largest_remaining_length = max(counters.largest_remaining_length, packet.remaining_length)
        if self.hooks.on_event is not None:
            self.hooks.on_event(f"{device.name} -> {packet.topic} {packet.payload.decode(errors='backslashreplace')}")
        verdict = self._ask_hook(packet, device)
        if verdict is None:
            self._process(packet, device, None)
            return
        if verdict.store:
            self._process(packet, device, verdict)
        elif verdict.acknowledges:
            self._acknowledge(packet, verdict.reason_code or SUCCESS, verdict.delay_seconds)
        if verdict.resets:
            self.abort()
        elif verdict.closes:
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
            # The platform drops it without a PUBACK (docs/platform_contract.md, section 4), and the program waits forever.
            if self.hooks.on_event is not None:
                self.hooks.on_event(f"{device.name} is not a gateway: its message on {packet.topic} is dropped, not acknowledged")
            return
        if uplink in _DATA:
            self.count("data_publishes")
            self.count("data_bytes", packet.remaining_length)
        try:
            outcome = self._take(uplink, rest, packet, device)
        except payloads.BadPayloadError:
            self._conclude(packet, self._bad_payload(packet))
        except payloads.GatewayFormError:
            self._conclude(packet, Outcome((IMPLEMENTATION_SPECIFIC,), closes=True, disconnect_reason=IMPLEMENTATION_SPECIFIC))
        except payloads.UnexpectedPayloadError:
            self.close(SERVER_SHUTTING_DOWN)
        except RateLimitedError:
            self._conclude(packet, self.platform.over_limit_outcome(IMPLEMENTATION_SPECIFIC))
        except OtaError as error:
            self.send(OTA_ERROR, str(error).encode())
            self.close(IMPLEMENTATION_SPECIFIC)
        else:
            self._conclude(packet, outcome, verdict)

    def _take(self, uplink: Uplink, rest: str, packet: PublishPacket, device: Device) -> Outcome:
        if uplink is Uplink.UNKNOWN:
            return Outcome((TOPIC_NAME_INVALID,))
        if packet.topic.startswith(GATEWAY_PREFIX):
            return self._gateway_uplinks.take(uplink, packet, device)
        return self._device_uplinks.take(uplink, rest, packet, device)

    def _bad_payload(self, packet: PublishPacket) -> Outcome:
        """Return the outcome of a refused payload (docs/platform_contract.md, section 8).

        The PUBACK has a reason code if there is a PUBACK and it can carry one; otherwise the connection closes.
        """
        if self.level >= MQTT_5 and packet.qos == 0 and packet.topic.startswith(GATEWAY_PREFIX):
            return UNACKNOWLEDGED
        if self.level < MQTT_5 or packet.qos == 0:
            return Outcome((), closes=True, disconnect_reason=PAYLOAD_FORMAT_INVALID)
        return Outcome((PAYLOAD_FORMAT_INVALID,))

    def _conclude(self, packet: PublishPacket, outcome: Outcome, verdict: Verdict | None = None) -> None:
        if outcome.drops_pubacks:
            self._pubacks.clear()
        for code in outcome.codes:
            if verdict is None:
                self._acknowledge(packet, code, outcome.delay_seconds)
            elif verdict.acknowledges:
                given = code if verdict.reason_code is None else verdict.reason_code
                self._acknowledge(packet, given, outcome.delay_seconds + verdict.delay_seconds)
        if self._replies:
            replies, self._replies = self._replies, []
            for topic, payload in replies:
                self.send(topic, payload)
        if outcome.closes:
            self.close(outcome.disconnect_reason)

    def _acknowledge(self, packet: PublishPacket, reason_code: int, delay: float = 0.0) -> None:
        if not packet.qos:
            return
        if reason_code == SUCCESS:
            delay += self.platform.puback_delay
        if delay:
            self.timers.after(delay, self._acknowledge_late, packet.packet_id, reason_code)
        else:
            self._puback(packet.packet_id, reason_code)

    def _acknowledge_late(self, packet_id: int, reason_code: int) -> None:
        self._puback(packet_id, reason_code)
        self._write_pubacks()

    def _puback(self, packet_id: int, reason_code: int) -> None:
        self._pubacks.append((reason_code, codec.encode_puback(packet_id, reason_code, self.level)))

    def _write_pubacks(self) -> None:
        if not self._pubacks or self.closing:
            return
        pubacks, self._pubacks = self._pubacks, []
        self.count("pubacks", len(pubacks))
        self.count("refusals", sum(reason_code >= 0x80 for reason_code, _ in pubacks))
        if self.hooks.on_send is None:
            super().write(b"".join(packet for _, packet in pubacks))
        else:
            for _, packet in pubacks:
                self._send_packet(packet)

    def _send_packet(self, packet: bytes) -> None:
        verdict = None
        if self.hooks.on_send is not None:
            verdict = self.hooks.on_send(Sending(self.device, PacketType(packet[0] >> 4).name, packet))
        if verdict is None:
            super().write(packet)
        elif verdict.delay_seconds:
            self.timers.after(verdict.delay_seconds, super().write, packet)
        elif not verdict.drops:
            super().write(packet if verdict.packet is None else verdict.packet)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the client and to the total."""
        total = self.platform.total
        setattr(total, name, getattr(total, name) + amount)
        if self.device is not None:
            counters = self.device.counters
            setattr(counters, name, getattr(counters, name) + amount)
