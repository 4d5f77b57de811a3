"""What a test may decide before the emulator does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tb_mqtt_client.emulator import payloads
from tb_mqtt_client.emulator.codec import encode_properties
from tb_mqtt_client.emulator.devices import Device


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH as it reached the emulator. `packet_id` is 0 at QoS 0; `remaining_length` is in bytes."""

    device: Device
    topic: str
    payload: bytes
    qos: int
    packet_id: int
    duplicate: bool
    remaining_length: int

    def json(self) -> Any:
        """Return the payload, parsed; raises `ValueError` if it is not JSON."""
        try:
            return payloads.decode_json(self.payload)
        except payloads.BadPayloadError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Verdict:
    """How to treat a publish otherwise than the platform would. Made by the class methods below.

    `store` says whether the message counts as received and its data is kept.
    """

    store: bool
    acknowledges: bool = True
    # None: the code that the platform would give
    reason_code: int | None = None
    delay_seconds: float = 0.0
    closes: bool = False
    disconnect_reason: int | None = None
    resets: bool = False

    @classmethod
    def acknowledge(cls, reason_code: int = 0) -> Verdict:
        """Store it and send a PUBACK with this code, for example 0x10 (no matching subscribers)."""
        return cls(store=True, reason_code=reason_code)

    @classmethod
    def refuse(cls, reason_code: int, *, closes: bool = False) -> Verdict:
        """Drop it and send a PUBACK with this code. On MQTT 3.1.1 the client cannot tell it from a success.

        With ``closes`` the connection ends after it, as the platform does to a gateway over its limits.
        """
        return cls(store=False, reason_code=reason_code, closes=closes)

    @classmethod
    def ignore(cls, *, store: bool = False) -> Verdict:
        """Send no PUBACK."""
        return cls(store=store, acknowledges=False)

    @classmethod
    def delay(cls, seconds: float) -> Verdict:
        """Store it now and send the PUBACK later; others overtake it."""
        return cls(store=True, delay_seconds=seconds)

    @classmethod
    def close(cls, disconnect_reason: int | None = None, *, store: bool = False) -> Verdict:
        """Send no PUBACK and close the connection, after a DISCONNECT if a reason is given and the client speaks MQTT 5."""
        return cls(store=store, acknowledges=False, closes=True, disconnect_reason=disconnect_reason)

    @classmethod
    def cut(cls, *, store: bool = False) -> Verdict:
        """Send no PUBACK and reset the connection, whatever is unsent."""
        return cls(store=store, acknowledges=False, resets=True)


@dataclass(frozen=True, slots=True)
class ConnectAttempt:
    """A CONNECT as it reached the emulator. `version` is 3 (MQTT 3.1), 4 (3.1.1) or 5; the certificate is DER."""

    client_id: str
    username: str | None
    password: str | None
    version: int
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class ConnectVerdict:
    """How to treat a CONNECT otherwise than the platform would. Made by the class methods below."""

    reason_code: int | None = None
    delay_seconds: float | None = 0.0
    drops: bool = False
    # of the CONNACK, encoded, without their length
    properties: bytes = b""

    @classmethod
    def accept(cls, properties: Mapping[str, int | str] | bytes) -> ConnectVerdict:
        """Go on as the platform does, with these properties in the CONNACK, of which the platform itself sends none.

        Args:
            properties: Values by name, for example ``{"receive_maximum": 10}``; or bytes as they stand in the packet, without
                their length, for what a server should not send.

        Raises:
            ValueError: A name or a value that MQTT 5 does not have.
        """
        return cls(properties=properties if isinstance(properties, bytes) else encode_properties(properties))

    @classmethod
    def refuse(cls, reason_code: int) -> ConnectVerdict:
        """Send a CONNACK with this code of MQTT 5, and then what the platform sends after it; MQTT 3.1.1 gets its own code.

        The platform's are 0x85, 0x86, 0x87 (credentials), 0x88 (the core did not answer) and 0x9F (session opening is limited).
        """
        return cls(reason_code=reason_code)

    @classmethod
    def delay(cls, seconds: float) -> ConnectVerdict:
        """Answer later. What the client sends until then waits, `max_inflight_messages` packets at most, as in the platform."""
        return cls(delay_seconds=seconds)

    @classmethod
    def ignore(cls) -> ConnectVerdict:
        """Never answer."""
        return cls(delay_seconds=None)

    @classmethod
    def drop(cls) -> ConnectVerdict:
        """Close the connection without an answer, as the platform does to an address that it has blocked."""
        return cls(drops=True)


@dataclass(frozen=True, slots=True)
class Sending:
    """A packet that the emulator is about to send; `kind` is its name in MQTT, for example "SUBACK"."""

    device: Device | None
    kind: str
    packet: bytes


@dataclass(frozen=True, slots=True)
class SendVerdict:
    """How to treat a packet otherwise than to send it at once. Made by the class methods below."""

    packet: bytes | None = None
    delay_seconds: float = 0.0
    drops: bool = False

    @classmethod
    def drop(cls) -> SendVerdict:
        """Never send it."""
        return cls(drops=True)

    @classmethod
    def delay(cls, seconds: float) -> SendVerdict:
        """Send it later; others overtake it."""
        return cls(delay_seconds=seconds)

    @classmethod
    def replace(cls, packet: bytes) -> SendVerdict:
        """Send these bytes instead."""
        return cls(packet=packet)


# Each returns None for "as the platform does". `[].append` is a useful one: it records and decides nothing.
OnPublish: TypeAlias = Callable[[Publish], Verdict | None]
OnConnect: TypeAlias = Callable[[ConnectAttempt], ConnectVerdict | None]
OnSend: TypeAlias = Callable[[Sending], SendVerdict | None]

# Called with one line of text.
OnEvent: TypeAlias = Callable[[str], object]


class ClientRpcError(Exception):
    """Raised by a handler of client-side RPC: the device gets ``{"error": text}``."""


# (device, method, params) -> the reply, which JSON must be able to carry.
OnClientRpc: TypeAlias = Callable[[Device, str, Any], Any | Awaitable[Any]]


@dataclass(slots=True)
class Hooks:
    """The hooks of one emulator, shared with its sessions so that a change applies at once."""

    on_connect: OnConnect | None = field(default=None)
    on_publish: OnPublish | None = field(default=None)
    on_client_rpc: OnClientRpc | None = field(default=None)
    on_send: OnSend | None = field(default=None)
    on_event: OnEvent | None = field(default=None)
