"""Read the packets that a server sends, in MQTT 5 and 3.1.1: from bytes to packets, and from their bodies to values.

Invariant: bytes that break MQTT raise ``NotMqttError`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from gmqtt.mqtt.property import Property

from tb_mqtt_client.constants.option_values import MQTT_5
from tb_mqtt_client.constants.reason_codes import ReasonCode

SMALLEST_PACKET: Final = 2
LONGEST_HEADER: Final = 5
"""The first byte and a remaining length of four bytes (MQTT 5, section 1.5.5)."""
CONTINUED: Final = 0x80
"""Set in each byte of a length except the last one."""


class PacketReader:
    """Splits the received bytes into packets, and keeps an incomplete packet until the rest arrives."""

    def __init__(self, max_packet_size: int) -> None:
        self._max_packet_size = max_packet_size
        self.unread: bytearray = bytearray()
        """The beginning of an incomplete packet."""
        self._wanted = 0

    def read(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte and the body of each packet that is complete with ``data``.

        Raises:
            NotMqttError: A length is malformed, or a packet is larger than the limit.
        """
        if self.unread:
            self.unread += data
            if len(self.unread) < self._wanted:
                return
            data = bytes(self.unread)
            self.unread.clear()
        position, end = 0, len(data)
        while end - position >= SMALLEST_PACKET:
            body, size = position + 2, data[position + 1]
            if size & CONTINUED:
                body, size = self.remaining_length(data, position)
            stop = body + size
            if stop - position > self._max_packet_size:
                raise NotMqttError(
                    f"a packet of {stop - position:,} bytes is larger than the {self._max_packet_size:,} that this client accepts",
                    ReasonCode.PACKET_TOO_LARGE,
                )
            if stop > end:
                break
            yield data[position], data[body:stop]
            position = stop
        if position < end:
            self._keep(data, position)

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the beginning of a packet, and set how many bytes are needed to continue."""
        self.unread += data[position:]
        self._wanted = len(self.unread) + 1
        if len(self.unread) >= SMALLEST_PACKET:
            body, size = self.remaining_length(self.unread, 0)
            self._wanted = max(self._wanted, body + size)

    @staticmethod
    def remaining_length(data: bytes | bytearray, position: int) -> tuple[int, int]:
        """Return where the body of a packet begins, and its size. If the length is incomplete, the body begins after the data."""
        size = 0
        for index in range(1, LONGEST_HEADER):
            if position + index >= len(data):
                return position + index + 1, 0
            byte = data[position + index]
            size |= (byte & ~CONTINUED) << (7 * (index - 1))
            if not byte & CONTINUED:
                return position + index + 1, size
        raise NotMqttError("the length of a packet has more than four bytes")


Properties = dict[str, Any]
"""Lists of values by the name of the property."""

REPEATABLE: Final = frozenset({"user_property", "subscription_identifier"})
"""Properties that a packet may have several times (MQTT 5, section 2.2.2.2)."""


class PacketType(IntEnum):
    """The upper four bits of the first byte of a packet (MQTT 5, section 2.1.2)."""

    CONNECT = 0x10
    CONNACK = 0x20
    PUBLISH = 0x30
    PUBACK = 0x40
    PUBREC = 0x50
    PUBREL = 0x60
    PUBCOMP = 0x70
    SUBSCRIBE = 0x80
    SUBACK = 0x90
    UNSUBSCRIBE = 0xA0
    UNSUBACK = 0xB0
    PINGREQ = 0xC0
    PINGRESP = 0xD0
    DISCONNECT = 0xE0
    AUTH = 0xF0


TYPE_BITS: Final = 0xF0


class NotMqttError(ConnectionError):
    """The peer sent bytes that break MQTT; the connection ends."""

    def __init__(self, detail: str, reason_code: int = ReasonCode.MALFORMED_PACKET, *, first_byte: int | None = None) -> None:
        """Create the error.

        Args:
            detail: What broke MQTT.
            reason_code: The reason code of the DISCONNECT that the peer gets.
            first_byte: The first byte from a peer that does not speak MQTT at all.
        """
        super().__init__(detail)
        self.reason_code: int = int(reason_code)
        self.first_byte = first_byte


class Connack(NamedTuple):
    """The body of a CONNACK."""

    session_present: bool
    reason_code: int
    properties: Properties


class Publish(NamedTuple):
    """The body of a PUBLISH; ``packet_id`` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    properties: Properties


class SubscriptionAcknowledgement(NamedTuple):
    """The body of a SUBACK or UNSUBACK."""

    packet_id: int
    reason_codes: tuple[int, ...]
    properties: Properties


@dataclass(slots=True)
class _Fields:
    """Reads the fields of one body in order."""

    packet: str
    body: bytes
    position: int = field(default=0)

    @property
    def left(self) -> int:
        return len(self.body) - self.position

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise NotMqttError(f"a {self.packet} ends too early")
        self.position += size
        return self.body[self.position - size : self.position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def variable_number(self) -> int:
        value = 0
        for shift in range(0, 28, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise NotMqttError(f"a {self.packet} has a number of more than four bytes")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        data = self.binary()
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise NotMqttError(f"a {self.packet} has a text that is not UTF-8") from None

    def properties(self) -> Properties:
        """Read the properties, with their length."""
        inner = _Fields(self.packet, self.take(self.variable_number()))
        properties: Properties = {}
        while inner.left:
            identifier = inner.variable_number()
            known = Property.factory(id_=identifier)
            if known is None:
                raise NotMqttError(f"a {self.packet} has the unknown property 0x{identifier:02x}")
            if known.name in properties and known.name not in REPEATABLE:
                raise NotMqttError(f"a {self.packet} has the property {known.name} twice", ReasonCode.PROTOCOL_ERROR)
            properties.setdefault(known.name, []).append(inner.value(known.bytes_struct))
        return properties

    def value(self, form: str) -> Any:
        """Read a value of a form named in gmqtt's table of properties."""
        match form:
            case "u8":
                return self.text()
            case "u8x2":
                return self.text(), self.text()
            case "b":
                return self.binary()
            case "vbi":
                return self.variable_number()
            case _:
                return self.number({"!B": 1, "!H": 2, "!L": 4}[form])


def read_properties(data: bytes) -> Properties:
    """Read properties that start with their length (MQTT 5, section 2.2.2); empty data means no properties.

    Raises:
        NotMqttError: The properties are malformed.
    """
    return _Fields("packet", data).properties() if data else {}


def read_connack(body: bytes, version: int) -> Connack:
    """Read the body of a CONNACK. The properties of a refusal are not read: they may be missing or malformed.

    Raises:
        NotMqttError: The CONNACK is malformed.
    """
    fields = _Fields("CONNACK", body)
    flags, reason_code = fields.number(1), fields.number(1)
    if reason_code or version < MQTT_5:
        return Connack(bool(flags & 1), reason_code, {})
    return Connack(bool(flags & 1), reason_code, fields.properties() if fields.left else {})


def read_publish(first_byte: int, body: bytes, version: int) -> Publish:
    """Read a PUBLISH.

    Raises:
        NotMqttError: The PUBLISH is malformed, or uses a topic alias, which this package's clients do not allow.
    """
    qos = first_byte >> 1 & 3
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + 2 if qos else end
    if len(body) < start:
        raise NotMqttError("a PUBLISH ends too early")
    if qos > 2:
        raise NotMqttError("a PUBLISH has QoS 3")
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError:
        raise NotMqttError("the topic of a PUBLISH is not UTF-8") from None
    packet_id = int.from_bytes(body[end:start], "big")
    properties: Properties = {}
    if version >= MQTT_5:
        start, properties = _publish_properties(body, start)
        if "topic_alias" in properties:
            raise NotMqttError("a PUBLISH has a topic alias, although the client allows none", ReasonCode.TOPIC_ALIAS_INVALID)
    if not topic:
        raise NotMqttError("a PUBLISH has no topic", ReasonCode.PROTOCOL_ERROR)
    return Publish(topic, body[start:], qos, packet_id, properties)


def _publish_properties(body: bytes, start: int) -> tuple[int, Properties]:
    """Return where the payload begins, and the properties; the platform sends none."""
    if body[start : start + 1] == b"\0":
        return start + 1, {}
    fields = _Fields("PUBLISH", body, start)
    properties = fields.properties()
    return fields.position, properties


def read_acknowledgement(packet: str, body: bytes, version: int) -> tuple[int, int, Properties]:
    """Read packet id, reason code and properties of a PUBACK, PUBREC, PUBREL or PUBCOMP.

    MQTT 3.1.1 has no reason codes, and an MQTT 5 server may leave out the code of a success.

    Raises:
        NotMqttError: The packet is malformed.
    """
    size = len(body)
    if size < 2:
        raise NotMqttError(f"a {packet} ends too early")
    packet_id = body[0] << 8 | body[1]
    if size == 2 or version < MQTT_5:
        return packet_id, 0, {}
    # Nearly every server sends no properties here: their length is 0, or is left out.
    without = size == 3 or (size == 4 and not body[3])
    return packet_id, body[2], {} if without else _Fields(packet, body, 3).properties()


def read_suback(body: bytes, version: int) -> SubscriptionAcknowledgement:
    """Read a SUBACK.

    Raises:
        NotMqttError: The SUBACK is malformed, or has no reason code.
    """
    acknowledgement = _read_subscription_acknowledgement("SUBACK", body, version)
    if not acknowledgement.reason_codes:
        raise NotMqttError("a SUBACK has no reason code")
    return acknowledgement


def read_unsuback(body: bytes, version: int) -> SubscriptionAcknowledgement:
    """Read an UNSUBACK; MQTT 3.1.1 has no reason codes in it.

    Raises:
        NotMqttError: The UNSUBACK is malformed.
    """
    return _read_subscription_acknowledgement("UNSUBACK", body, version)


def _read_subscription_acknowledgement(packet: str, body: bytes, version: int) -> SubscriptionAcknowledgement:
    fields = _Fields(packet, body)
    packet_id = fields.number(2)
    properties = fields.properties() if version >= MQTT_5 and fields.left else {}
    return SubscriptionAcknowledgement(packet_id, tuple(fields.take(fields.left)), properties)
