"""Refusals of a CONNECT (docs/platform_contract.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tb_mqtt_client.emulator import codec
from tb_mqtt_client.emulator.codec import (
    BAD_USERNAME_OR_PASSWORD,
    CLIENT_ID_NOT_VALID,
    CONNECTION_RATE_EXCEEDED,
    IMPLEMENTATION_SPECIFIC,
    MESSAGE_RATE_TOO_HIGH,
    MQTT_5,
    NOT_AUTHORIZED,
    SERVER_BUSY,
    SERVER_UNAVAILABLE,
    Connect,
)

# The user name or client id of a device that has no credentials yet (docs/platform_contract.md, section 6).
_PROVISION: Final = "provision"

# CONNACK codes of MQTT 3.1.1 for those of MQTT 5; all others become "server unavailable".
_OLDER: Final = {CLIENT_ID_NOT_VALID: 2, BAD_USERNAME_OR_PASSWORD: 5, NOT_AUTHORIZED: 5}
_SERVER_UNAVAILABLE_3_1_1: Final = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal: a CONNACK with this code, then a DISCONNECT. MQTT 3.1.1 gets its own code and no DISCONNECT."""

    code: int
    by_certificate: bool = False

    def connack(self, connect: Connect) -> bytes:
        """Encode the CONNACK."""
        code = self.code if connect.level >= MQTT_5 else _OLDER.get(self.code, _SERVER_UNAVAILABLE_3_1_1)
        return codec.encode_connack(code, connect.level, session_present=not connect.clean_start)

    @property
    def disconnect_reason(self) -> int:
        """Return the reason code of the DISCONNECT, which repeats the code of the CONNACK with two exceptions."""
        if self.code == SERVER_UNAVAILABLE:
            return IMPLEMENTATION_SPECIFIC if self.by_certificate else SERVER_BUSY
        return MESSAGE_RATE_TOO_HIGH if self.code == CONNECTION_RATE_EXCEEDED else self.code


def wants_provisioning(connect: Connect) -> bool:
    """Return True if the client connects to provision itself."""
    return _PROVISION in (connect.username, connect.client_id)


def wrong_credentials(connect: Connect, certificate: bytes | None) -> Refusal:
    """Return the refusal for unknown credentials, which depends on the kind of credentials."""
    if certificate is not None:
        return Refusal(NOT_AUTHORIZED, by_certificate=True)
    if connect.username is not None or connect.password is not None:
        return Refusal(BAD_USERNAME_OR_PASSWORD)
    return Refusal(CLIENT_ID_NOT_VALID if connect.client_id else NOT_AUTHORIZED)
