"""The server side of MQTT 3.1, 3.1.1 and 5: decodes client packets and encodes server packets, without I/O.

A packet that the platform's decoder refuses raises `ProtocolViolationError` with the reason code of the DISCONNECT that
follows. The platform sends no properties and reads none (docs/platform_contract.md, section 1), so properties are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MQTT_3_1: Final = 3
MQTT_3_1_1: Final = 4
MQTT_5: Final = 5

# The reason codes of MQTT 5 that the platform sends.
SUCCESS: Final = 0x00
NO_SUBSCRIPTION_EXISTED: Final = 0x11
UNSPECIFIED_ERROR: Final = 0x80
MALFORMED_PACKET: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_SPECIFIC: Final = 0x83
CLIENT_ID_NOT_VALID: Final = 0x85
BAD_USERNAME_OR_PASSWORD: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
# The platform sends it for every unexpected exception.
SERVER_SHUTTING_DOWN: Final = 0x8B
TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
MESSAGE_RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
CONNECTION_RATE_EXCEEDED: Final = 0x9F

_LONGEST_VARIABLE_INTEGER: Final = 4
_LONGEST_CLIENT_ID_3_1: Final = 23
# Identifier and size of the value in bytes, or 0 for a string (MQTT 5, section 3.2.2.3).
_CONNACK_PROPERTIES: Final = {
    "session_expiry_interval": (0x11, 4),
    "assigned_client_identifier": (0x12, 0),
    "server_keep_alive": (0x13, 2),
    "response_information": (0x1A, 0),
    "server_reference": (0x1C, 0),
    "reason_string": (0x1F, 0),
    "receive_maximum": (0x21, 2),
    "topic_alias_maximum": (0x22, 2),
    "maximum_qos": (0x24, 1),
    "retain_available": (0x25, 1),
    "maximum_packet_size": (0x27, 4),
    "wildcard_subscription_available": (0x28, 1),
    "subscription_identifiers_available": (0x29, 1),
    "shared_subscription_available": (0x2A, 1),
}


class PacketType(IntEnum):
    """Control packet types, the upper four bits of the first byte (MQTT 5, section 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class ProtocolViolationError(Exception):
    """The client violated MQTT. `reason_code` is the reason code of the DISCONNECT."""

    def __init__(self, detail: str, reason_code: int = MALFORMED_PACKET) -> None:
        super().__init__(f"{detail} (0x{reason_code:02X})")
        self.reason_code = reason_code


@dataclass(frozen=True, slots=True)
class Connect:
    """The fields of a CONNECT that the platform uses; will and properties are ignored."""

    level: int
    clean_start: bool
    client_id: str
    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class PublishPacket:
    """A received PUBLISH. `packet_id` is 0 at QoS 0; the size limit applies to `remaining_length`, in bytes."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    duplicate: bool
    remaining_length: int


class PacketReader:
    """Splits a byte stream into packets, independently of the chunks in which it arrives."""

    def __init__(self, max_remaining_length: int) -> None:
        self._max_remaining_length = max_remaining_length
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._buffer += data

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte and the body of each complete packet.

        Raises:
            ProtocolViolationError: A packet exceeds the size limit; raised as soon as its length is known.
        """
        buffer = self._buffer
        while (header := self._header()) is not None:
            start, remaining_length = header
            end = start + remaining_length
            if len(buffer) < end:
                return
            first_byte = buffer[0]
            with memoryview(buffer) as view:
                body = bytes(view[start:end])
            del buffer[:end]
            yield first_byte, body

    def _header(self) -> tuple[int, int] | None:
        """Return the size of the fixed header and the remaining length, or None if more bytes are needed."""
        buffer = self._buffer
        remaining_length = 0
        for index in range(1, min(len(buffer), _LONGEST_VARIABLE_INTEGER + 1)):
            byte = buffer[index]
            remaining_length |= (byte & 0x7F) << (7 * (index - 1))
            if byte < 0x80:
                if remaining_length > self._max_remaining_length:
                    raise ProtocolViolationError(f"a remaining length of {remaining_length} exceeds the limit")
                return index + 1, remaining_length
        if len(buffer) > _LONGEST_VARIABLE_INTEGER:
            raise ProtocolViolationError("a remaining length of more than four bytes")
        return None


class _Fields:
    """Reads the fields of a packet body in order."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    @property
    def exhausted(self) -> bool:
        return self._offset >= len(self._body)

    def take(self, size: int) -> bytes:
        end = self._offset + size
        if end > len(self._body):
            raise ProtocolViolationError("a packet that ends inside a field")
        taken = self._body[self._offset : end]
        self._offset = end
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._offset)

    def byte(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.take(2))

    def packet_id(self) -> int:
        if (packet_id := self.uint16()) == 0:
            raise ProtocolViolationError("packet id 0")
        return packet_id

    def binary(self) -> bytes:
        return self.take(self.uint16())

    def text(self) -> str:
        try:
            return self.binary().decode()
        except UnicodeDecodeError as error:
            raise ProtocolViolationError("a string that is not UTF-8") from error

    def skip_properties(self, level: int) -> None:
        if level < MQTT_5:
            return
        size = 0
        for index in range(_LONGEST_VARIABLE_INTEGER):
            byte = self.byte()
            size |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                self.take(size)
                return
        raise ProtocolViolationError("a property length of more than four bytes")


def _level(byte: int) -> int:
    """Return 3, 4 or 5; the platform treats unknown protocol levels as MQTT 3.1.1 (docs/platform_contract.md, section 1)."""
    return byte if byte in (MQTT_3_1, MQTT_5) else MQTT_3_1_1


def decode_connect(body: bytes) -> Connect:
    """Decode the body of a CONNECT."""
    fields = _Fields(body)
    if fields.text() not in {"MQTT", "MQIsdp"}:
        raise ProtocolViolationError("an unknown protocol name")
    level, flags = _level(fields.byte()), fields.byte()
    fields.uint16()  # keep alive, which the platform does not enforce
    fields.skip_properties(level)
    client_id = fields.text()
    if level == MQTT_3_1 and not 1 <= len(client_id) <= _LONGEST_CLIENT_ID_3_1:
        raise ProtocolViolationError("a client id in MQTT 3.1 must have 1 to 23 characters")
    if flags & 0x04:
        fields.skip_properties(level)
        fields.text()
        fields.binary()
    username = fields.text() if flags & 0x80 else None
    password = fields.text() if flags & 0x40 else None
    return Connect(level, bool(flags & 0x02), client_id, username, password)


def decode_publish(first_byte: int, body: bytes, level: int) -> PublishPacket:
    """Decode a PUBLISH."""
    qos = first_byte >> 1 & 0x03
    if qos == 3:
        raise ProtocolViolationError("QoS 3")
    fields = _Fields(body)
    topic = fields.text()
    if "+" in topic or "#" in topic:
        raise ProtocolViolationError("a wildcard in the topic of a PUBLISH")
    packet_id = fields.packet_id() if qos else 0
    fields.skip_properties(level)
    return PublishPacket(topic, fields.rest(), qos, packet_id, bool(first_byte & 0x08), len(body))


def decode_puback(body: bytes) -> int:
    """Return the packet id.

    The platform refuses packet id 0, although its own counter reaches it (docs/platform_contract.md, section 1).
    """
    return _Fields(body).packet_id()


def decode_subscribe(first_byte: int, body: bytes, level: int) -> tuple[int, list[tuple[str, int]]]:
    """Return the packet id and the pairs of topic filter and requested QoS."""
    fields = _request_fields(first_byte, body)
    packet_id = fields.packet_id()
    fields.skip_properties(level)
    subscriptions = []
    while not fields.exhausted:
        topic_filter = fields.text()
        qos = fields.byte() & 0x03
        if qos == 3:
            raise ProtocolViolationError("QoS 3")
        subscriptions.append((topic_filter, qos))
    return packet_id, subscriptions


def decode_unsubscribe(first_byte: int, body: bytes, level: int) -> tuple[int, list[str]]:
    """Return the packet id and the topic filters."""
    fields = _request_fields(first_byte, body)
    packet_id = fields.packet_id()
    fields.skip_properties(level)
    filters = []
    while not fields.exhausted:
        filters.append(fields.text())
    return packet_id, filters


def _request_fields(first_byte: int, body: bytes) -> _Fields:
    if first_byte & 0x0F != 0x02:
        raise ProtocolViolationError("SUBSCRIBE and UNSUBSCRIBE must have the flags 0010")
    return _Fields(body)


def encode_connack(reason_code: int, level: int, *, session_present: bool, properties: bytes = b"") -> bytes:
    """Encode a CONNACK. `properties` come without their length; MQTT 3.1.1 has none."""
    after = _variable_integer(len(properties)) + properties if level >= MQTT_5 else b""
    return _packet(PacketType.CONNACK, bytes((session_present, reason_code)) + after)


def encode_properties(properties: Mapping[str, int | str]) -> bytes:
    """Encode CONNACK properties by name. Raise `ValueError` for a name or a value that MQTT 5 does not have."""
    encoded = b""
    for name, value in properties.items():
        if name not in _CONNACK_PROPERTIES:
            raise ValueError(f"{name!r} is not a CONNACK property; the properties are {', '.join(_CONNACK_PROPERTIES)}")
        identifier, size = _CONNACK_PROPERTIES[name]
        if size and isinstance(value, int) and 0 <= value < 1 << 8 * size:
            encoded += bytes([identifier]) + int(value).to_bytes(size)
        elif not size and isinstance(value, str):
            text = value.encode()
            encoded += bytes([identifier]) + len(text).to_bytes(2) + text
        else:
            allowed = f"from 0 to {(1 << 8 * size) - 1}" if size else "a string"
            raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return encoded


def encode_puback(packet_id: int, reason_code: int, level: int) -> bytes:
    """Encode a PUBACK. MQTT 3.1.1 has no reason code, so there a refusal looks like a success."""
    if reason_code == 0 or level < MQTT_5:
        return _packet(PacketType.PUBACK, packet_id.to_bytes(2))
    return _packet(PacketType.PUBACK, packet_id.to_bytes(2) + bytes((reason_code, 0)))


def encode_suback(packet_id: int, reason_codes: Sequence[int], level: int) -> bytes:
    """Encode a SUBACK with one reason code per subscription."""
    properties = b"\0" if level >= MQTT_5 else b""
    return _packet(PacketType.SUBACK, packet_id.to_bytes(2) + properties + bytes(reason_codes))


def encode_unsuback(packet_id: int, reason_codes: Sequence[int], level: int) -> bytes:
    """Encode an UNSUBACK with one reason code per topic filter; MQTT 3.1.1 has none."""
    outcome = b"\0" + bytes(reason_codes) if level >= MQTT_5 else b""
    return _packet(PacketType.UNSUBACK, packet_id.to_bytes(2) + outcome)


def encode_publish(topic: str, payload: bytes, qos: int, packet_id: int, level: int) -> bytes:
    """Encode a PUBLISH; `packet_id` is not used at QoS 0."""
    encoded_topic = topic.encode()
    identifier = packet_id.to_bytes(2) if qos else b""
    properties = b"\0" if level >= MQTT_5 else b""
    body = len(encoded_topic).to_bytes(2) + encoded_topic + identifier + properties + payload
    return _packet(PacketType.PUBLISH, body, flags=qos << 1)


def encode_pingresp() -> bytes:
    """Encode a PINGRESP."""
    return _packet(PacketType.PINGRESP, b"")


def encode_disconnect(reason_code: int) -> bytes:
    """Encode a DISCONNECT of MQTT 5; in 3.1.1 servers do not send one."""
    return _packet(PacketType.DISCONNECT, bytes((reason_code, 0)) if reason_code else b"")


def _packet(packet_type: PacketType, body: bytes, flags: int = 0) -> bytes:
    return bytes((packet_type << 4 | flags,)) + _variable_integer(len(body)) + body


def _variable_integer(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
