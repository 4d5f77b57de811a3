"""Reason codes of MQTT 5 that the platform sends, and what a processed message is answered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
# The platform's answer to every exception that it did not expect.
SERVER_SHUTTING_DOWN: Final = 0x8B
TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
MESSAGE_RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
CONNECTION_RATE_EXCEEDED: Final = 0x9F


@dataclass(frozen=True, slots=True)
class Answer:
    """The PUBACKs of a publish (none, one, or before 4.2.1 one a device) and whether the connection ends after them.

    `delay_seconds` is the time until the PUBACKs. With `drops_pubacks` those that are still unsent are lost (contract section 4).
    """

    codes: tuple[int, ...] = (SUCCESS,)
    closes: bool = False
    disconnect_reason: int | None = None
    delay_seconds: float = 0.0
    drops_pubacks: bool = False


ACCEPTED: Final = Answer()
NO_ANSWER: Final = Answer(())
