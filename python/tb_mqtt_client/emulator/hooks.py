"""Hooks: functions that a test sets to observe packets and to override what the emulator does with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tb_mqtt_client.emulator import payloads
from tb_mqtt_client.emulator.codec import encode_properties
from tb_mqtt_client.emulator.devices import Device


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH that the emulator received.

    Attributes:
        device: The device or gateway that published it.
        topic: The topic.
        payload: The payload as received.
        qos: The quality of service, 0 to 2.
        packet_id: The packet id; 0 at QoS 0.
        duplicate: The DUP flag.
        remaining_length: The remaining length of the packet, in bytes.
    """

    device: Device
    topic: str
    payload: bytes
    qos: int
    packet_id: int
    duplicate: bool
    remaining_length: int

    def json(self) -> Any:
        """Parse the payload.

        Returns:
            The JSON document.

        Raises:
            ValueError: The payload is not JSON.
        """
        try:
            return payloads.decode_json(self.payload)
        except payloads.BadPayloadError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Verdict:
    """Overrides what the emulator does with a PUBLISH. Use the class methods to create one.

    `store` is True if the message counts as received and its data is kept.
    """

    store: bool
    acknowledges: bool = True
    # None for the code that the platform sends.
    reason_code: int | None = None
    delay_seconds: float = 0.0
    closes: bool = False
    disconnect_reason: int | None = None
    resets: bool = False

    @classmethod
    def acknowledge(cls, reason_code: int = 0) -> Verdict:
        """Store the message and send a PUBACK with a reason code.

        Args:
            reason_code: The reason code, for example 0x10 (no matching subscribers). MQTT 3.1.1 does not carry it.
        """
        return cls(store=True, reason_code=reason_code)

    @classmethod
    def refuse(cls, reason_code: int, *, closes: bool = False) -> Verdict:
        """Drop the message and send a PUBACK with a reason code.

        Args:
            reason_code: The reason code, 0x80 or higher. In MQTT 3.1.1 the PUBACK looks like a success.
            closes: Close the connection afterwards, as the platform does to a gateway that exceeds a limit.
        """
        return cls(store=False, reason_code=reason_code, closes=closes)

    @classmethod
    def ignore(cls, *, store: bool = False) -> Verdict:
        """Send no PUBACK.

        Args:
            store: Whether the message counts as received and its data is kept.
        """
        return cls(store=store, acknowledges=False)

    @classmethod
    def delay(cls, seconds: float) -> Verdict:
        """Store the message now and send the PUBACK later; other PUBACKs overtake it.

        Args:
            seconds: The delay of the PUBACK.
        """
        return cls(store=True, delay_seconds=seconds)

    @classmethod
    def close(cls, disconnect_reason: int | None = None, *, store: bool = False) -> Verdict:
        """Send no PUBACK and close the connection.

        Args:
            disconnect_reason: The reason code of a DISCONNECT to send first; MQTT 3.1.1 clients do not get it.
            store: Whether the message counts as received and its data is kept.
        """
        return cls(store=store, acknowledges=False, closes=True, disconnect_reason=disconnect_reason)

    @classmethod
    def cut(cls, *, store: bool = False) -> Verdict:
        """Send no PUBACK and reset the connection, discarding unsent bytes.

        Args:
            store: Whether the message counts as received and its data is kept.
        """
        return cls(store=store, acknowledges=False, resets=True)


@dataclass(frozen=True, slots=True)
class ConnectAttempt:
    """A CONNECT that the emulator received.

    Attributes:
        client_id: The client id.
        username: The user name, or None.
        password: The password, or None.
        version: 3 (MQTT 3.1), 4 (MQTT 3.1.1) or 5 (MQTT 5).
        certificate: The client's TLS certificate (DER), or None.
    """

    client_id: str
    username: str | None
    password: str | None
    version: int
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class ConnectVerdict:
    """Overrides what the emulator does with a CONNECT. Use the class methods to create one."""

    reason_code: int | None = None
    delay_seconds: float | None = 0.0
    drops: bool = False
    # Encoded properties of the CONNACK, without their length.
    properties: bytes = b""

    @classmethod
    def accept(cls, properties: Mapping[str, int | str] | bytes) -> ConnectVerdict:
        """Continue as the platform does, with properties in the CONNACK; the platform itself sends none.

        Args:
            properties: Values by name, for example ``{"receive_maximum": 10}``. Or encoded bytes without their length, to send
                properties that MQTT does not allow.

        Raises:
            ValueError: MQTT 5 does not have a name or a value.
        """
        return cls(properties=properties if isinstance(properties, bytes) else encode_properties(properties))

    @classmethod
    def refuse(cls, reason_code: int) -> ConnectVerdict:
        """Refuse the connection with a CONNACK, followed by a DISCONNECT as the platform sends it.

        Args:
            reason_code: A reason code of MQTT 5; MQTT 3.1.1 clients get the corresponding code. The platform uses 0x85, 0x86 and
                0x87 (credentials), 0x88 (the core did not respond) and 0x9F (the rate of new sessions is limited).
        """
        return cls(reason_code=reason_code)

    @classmethod
    def delay(cls, seconds: float) -> ConnectVerdict:
        """Process the CONNECT later.

        Packets that the client sends in between are queued, at most `max_inflight_messages` of them, as in the platform.

        Args:
            seconds: The delay.
        """
        return cls(delay_seconds=seconds)

    @classmethod
    def ignore(cls) -> ConnectVerdict:
        """Send no CONNACK and keep the connection open."""
        return cls(delay_seconds=None)

    @classmethod
    def drop(cls) -> ConnectVerdict:
        """Close the connection without a CONNACK, as the platform does to a blocked address."""
        return cls(drops=True)


@dataclass(frozen=True, slots=True)
class Sending:
    """A packet that the emulator is about to send.

    Attributes:
        device: The device or gateway that the packet is for; None before it is authenticated.
        kind: The MQTT name of the packet, for example "SUBACK".
        packet: The encoded packet.
    """

    device: Device | None
    kind: str
    packet: bytes


@dataclass(frozen=True, slots=True)
class SendVerdict:
    """Overrides how the emulator sends a packet. Use the class methods to create one."""

    packet: bytes | None = None
    delay_seconds: float = 0.0
    drops: bool = False

    @classmethod
    def drop(cls) -> SendVerdict:
        """Do not send the packet."""
        return cls(drops=True)

    @classmethod
    def delay(cls, seconds: float) -> SendVerdict:
        """Send the packet later; other packets overtake it.

        Args:
            seconds: The delay.
        """
        return cls(delay_seconds=seconds)

    @classmethod
    def replace(cls, packet: bytes) -> SendVerdict:
        """Send other bytes instead.

        Args:
            packet: The bytes to send.
        """
        return cls(packet=packet)


# A hook returns None to leave the decision to the emulator. `records.append` of a list is a hook that only records.
OnPublish: TypeAlias = Callable[[Publish], Verdict | None]
OnConnect: TypeAlias = Callable[[ConnectAttempt], ConnectVerdict | None]
OnSend: TypeAlias = Callable[[Sending], SendVerdict | None]

# A function that gets one line of text.
OnEvent: TypeAlias = Callable[[str], object]


class ClientRpcError(Exception):
    """Raised by a handler of client-side RPC to make the reply ``{"error": text}``."""


# (device, method, params) -> the reply, a value that JSON can represent.
OnClientRpc: TypeAlias = Callable[[Device, str, Any], Any | Awaitable[Any]]


@dataclass(slots=True)
class Hooks:
    """The hooks of one emulator, shared with its sessions so that a change applies immediately."""

    on_connect: OnConnect | None = field(default=None)
    on_publish: OnPublish | None = field(default=None)
    on_client_rpc: OnClientRpc | None = field(default=None)
    on_send: OnSend | None = field(default=None)
    on_event: OnEvent | None = field(default=None)
