"""What a test may decide before the emulator does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tb_mqtt_client.emulator import payloads
from tb_mqtt_client.emulator.rpc import OnClientRpc

if TYPE_CHECKING:
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
        """Return the payload, parsed; raises `ValueError` if it is no JSON."""
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

    @classmethod
    def acknowledge(cls, reason_code: int = 0) -> Verdict:
        """Store it and send a PUBACK with this code, for example 0x10 (no matching subscribers)."""
        return cls(store=True, reason_code=reason_code)

    @classmethod
    def refuse(cls, reason_code: int) -> Verdict:
        """Drop it and send a PUBACK with this code. On MQTT 3.1.1 the client cannot tell it from a success."""
        return cls(store=False, reason_code=reason_code)

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


# Returns None for "as the platform does". `[].append` is a useful one: it records and decides nothing.
OnPublish: TypeAlias = Callable[[Publish], Verdict | None]


@dataclass(slots=True)
class Hooks:
    """The hooks of one emulator, shared with its sessions so that a change applies at once."""

    on_publish: OnPublish | None = field(default=None)
    on_client_rpc: OnClientRpc | None = field(default=None)
