"""The terms of a session, which the server's CONNACK states (MQTT 5, section 3.2.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from tb_mqtt_client.common.mqtt.packets import NotMqttError, Properties
from tb_mqtt_client.constants.reason_codes import ReasonCode

UNLIMITED_RECEIVE_MAXIMUM: Final = 0xFFFF
UNLIMITED_PACKET_SIZE: Final = 0x0FFFFFFF + 5
"""The largest MQTT packet in bytes (section 2.1.4)."""
SMALLEST_USEFUL_PACKET: Final = 128
"""Bytes of the largest packet that setting up a session needs: the request for the session limits."""


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """The terms of one session. The defaults are those of MQTT 5; they hold for MQTT 3.1.1, too."""

    receive_maximum: int = UNLIMITED_RECEIVE_MAXIMUM
    """The number of unacknowledged publishes that the server accepts."""
    maximum_packet_size: int = UNLIMITED_PACKET_SIZE
    """The largest packet in bytes that the server accepts, including the fixed header."""
    maximum_qos: int = 2
    """The highest QoS at which the server accepts a publish."""
    retain_available: bool = True
    """Whether the server accepts publishes with the retain flag."""
    server_keep_alive: int | None = None
    """Seconds that replace the keep-alive of the CONNECT, or ``None``."""

    @classmethod
    def of(cls, properties: Properties) -> Self:
        """Read the properties of a CONNACK.

        Raises:
            NotMqttError: A value is not allowed, or too small to set up a session.
        """
        terms = cls(
            receive_maximum=_one(properties, "receive_maximum", UNLIMITED_RECEIVE_MAXIMUM, smallest=1),
            maximum_packet_size=_one(properties, "maximum_packet_size", UNLIMITED_PACKET_SIZE, smallest=1),
            maximum_qos=_one(properties, "max_qos", 2, largest=1),
            retain_available=bool(_one(properties, "retain_available", 1, largest=1)),
            server_keep_alive=properties["server_keep_alive"][0] if "server_keep_alive" in properties else None,
        )
        if terms.maximum_packet_size < SMALLEST_USEFUL_PACKET:
            accepted = f"the server accepts packets of {terms.maximum_packet_size} bytes at most"
            raise NotMqttError(f"{accepted}, and a session needs {SMALLEST_USEFUL_PACKET}", ReasonCode.PACKET_TOO_LARGE)
        return terms

    @property
    def max_remaining_length(self) -> int:
        """The largest packet in bytes without its fixed header (the first byte, and a length of one to four bytes)."""
        for length_bytes in range(4, 1, -1):
            remaining = self.maximum_packet_size - 1 - length_bytes
            if remaining >= 1 << (7 * (length_bytes - 1)):
                return min(remaining, (1 << (7 * length_bytes)) - 1)
        return min(self.maximum_packet_size - 2, 127)


def _one(properties: Properties, name: str, default: int, *, smallest: int = 0, largest: int | None = None) -> int:
    value: int = properties.get(name, [default])[0]
    if name in properties and (value < smallest or (largest is not None and value > largest)):
        raise NotMqttError(f"a CONNACK has the {name} {value}, which MQTT forbids", ReasonCode.PROTOCOL_ERROR)
    return value
