"""Reason codes: those of MQTT 5, the return codes of MQTT 3.1.1, and the client's own.

``PublishResult.reason_code`` is one of these:

- 0 to 255: the server's, as defined by MQTT 5 (section 2.4). Codes from 0x80 on are failures.
- Negative: the client's own (``LocalReasonCode``), when the server did not acknowledge or refuse the message.
"""

from enum import IntEnum
from typing import Final


class ReasonCode(IntEnum):
    """Reason codes of MQTT 5, section 2.4, for CONNACK, PUBACK, SUBACK, UNSUBACK, DISCONNECT and AUTH.

    Code 0 has three names; which one applies depends on the packet.
    """

    SUCCESS = 0x00
    NORMAL_DISCONNECTION = 0x00
    GRANTED_QOS_0 = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL_MESSAGE = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    RE_AUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


class LocalReasonCode(IntEnum):
    """Reason codes of the client, for messages that the server did not acknowledge. Negative, so that no server can send them."""

    NOT_DELIVERED = -1
    """Not acknowledged: the caller stopped waiting, the client was stopped, or the message could not be published.
    ``PublishResult.certainty`` distinguishes these cases."""
    DROPPED = -2
    """Dropped from the full queue by the queue policy that the user chose (``QueuePolicy``), or from the full store."""
    EXPIRED = -3
    """Dropped because the time of its ``expires_after`` passed before it was written into a message."""
    KEPT = -4
    """Left in the store when the client was stopped: the next client that opens the store sends it."""


class ConnectReturnCode(IntEnum):
    """Return codes of a CONNACK of MQTT 3.1.1, section 3.2.2.3."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


FIRST_FAILURE: Final = 0x80
"""The lowest reason code of MQTT 5 that is a failure (section 2.4)."""

QUOTA_REFUSALS: Final = frozenset({ReasonCode.MESSAGE_RATE_TOO_HIGH, ReasonCode.QUOTA_EXCEEDED})
"""Refusals of a PUBLISH that are temporary: the client publishes it again when the limits allow it."""

DATA_REFUSALS: Final = frozenset(
    {ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, ReasonCode.PACKET_TOO_LARGE, ReasonCode.PAYLOAD_FORMAT_INVALID}
)
"""Refusals of a PUBLISH for something in its payload: a part of its data may be accepted."""

BLAMING_DISCONNECTS: Final = frozenset(
    {
        ReasonCode.MALFORMED_PACKET,
        ReasonCode.PROTOCOL_ERROR,
        ReasonCode.SERVER_SHUTTING_DOWN,
        ReasonCode.TOPIC_NAME_INVALID,
        ReasonCode.PACKET_TOO_LARGE,
        ReasonCode.PAYLOAD_FORMAT_INVALID,
    }
)
"""Codes of a DISCONNECT that may be caused by a message. The server sends "shutting down" for any unexpected exception
(docs/platform_contract.md, section 8)."""

LIMITING_DISCONNECTS: Final = frozenset(
    {
        ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
        ReasonCode.MESSAGE_RATE_TOO_HIGH,
        ReasonCode.QUOTA_EXCEEDED,
        ReasonCode.CONNECTION_RATE_EXCEEDED,
    }
)
"""Codes of a DISCONNECT after a limit was exceeded (docs/platform_contract.md, fact 1 and section 1)."""

TRANSIENT_CONNECT_REFUSALS: Final[dict[int, frozenset[int]]] = {
    5: frozenset(
        {
            ReasonCode.SERVER_UNAVAILABLE,
            ReasonCode.SERVER_BUSY,
            ReasonCode.MESSAGE_RATE_TOO_HIGH,
            ReasonCode.QUOTA_EXCEEDED,
            ReasonCode.CONNECTION_RATE_EXCEEDED,
        }
    ),
    4: frozenset({ConnectReturnCode.SERVER_UNAVAILABLE}),
}
"""Codes of a CONNACK after which another attempt may succeed, by protocol version (5, or 4 for MQTT 3.1.1)."""

# Names that cannot be derived from the member's name, because the specification capitalizes them irregularly.
_SPELLED: Final[dict[int, str]] = {
    ReasonCode.GRANTED_QOS_1: "Granted QoS 1",
    ReasonCode.GRANTED_QOS_2: "Granted QoS 2",
    ReasonCode.DISCONNECT_WITH_WILL_MESSAGE: "Disconnect with Will Message",
    ReasonCode.RE_AUTHENTICATE: "Re-authenticate",
    ReasonCode.MALFORMED_PACKET: "Malformed Packet",
    ReasonCode.PROTOCOL_ERROR: "Protocol Error",
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: "Unsupported Protocol Version",
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: "Client Identifier not valid",
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: "Bad User Name or Password",
    ReasonCode.KEEP_ALIVE_TIMEOUT: "Keep Alive timeout",
    ReasonCode.TOPIC_FILTER_INVALID: "Topic Filter invalid",
    ReasonCode.TOPIC_NAME_INVALID: "Topic Name invalid",
    ReasonCode.PACKET_IDENTIFIER_IN_USE: "Packet Identifier in use",
    ReasonCode.PACKET_IDENTIFIER_NOT_FOUND: "Packet Identifier not found",
    ReasonCode.RECEIVE_MAXIMUM_EXCEEDED: "Receive Maximum exceeded",
    ReasonCode.TOPIC_ALIAS_INVALID: "Topic Alias invalid",
    ReasonCode.QOS_NOT_SUPPORTED: "QoS not supported",
    ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: "Shared Subscriptions not supported",
    ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: "Subscription Identifiers not supported",
    ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: "Wildcard Subscriptions not supported",
}

_NAMES: Final[dict[int, str]] = (
    {code: code.name.replace("_", " ").capitalize() for code in ReasonCode}
    | _SPELLED
    | {
        LocalReasonCode.NOT_DELIVERED: "not delivered",
        LocalReasonCode.DROPPED: "dropped",
        LocalReasonCode.EXPIRED: "expired",
        LocalReasonCode.KEPT: "kept",
    }
)

_CONNECT_NAMES: Final[dict[int, str]] = {
    ConnectReturnCode.ACCEPTED: "Connection Accepted",
    ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION: "Connection Refused, unacceptable protocol version",
    ConnectReturnCode.IDENTIFIER_REJECTED: "Connection Refused, identifier rejected",
    ConnectReturnCode.SERVER_UNAVAILABLE: "Connection Refused, Server unavailable",
    ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD: "Connection Refused, bad user name or password",
    ConnectReturnCode.NOT_AUTHORIZED: "Connection Refused, not authorized",
}


def reason_name(code: int) -> str:
    """Return the name of a reason code as MQTT 5 writes it, such as "Quota exceeded".

    A code of ``LocalReasonCode`` has a name too. Any other number returns a text such as "unknown reason code 0x55".
    """
    name = _NAMES.get(code)
    if name is not None:
        return name
    return f"unknown reason code {code:#04x}" if code >= 0 else f"unknown reason code {code}"


def connect_return_name(code: int, protocol_version: int) -> str:
    """Return the name of the code in a CONNACK.

    Args:
        code: The reason code of MQTT 5, or the return code of MQTT 3.1.1.
        protocol_version: 5, or 4 for MQTT 3.1.1.
    """
    if protocol_version >= 5:
        return reason_name(code)
    return _CONNECT_NAMES.get(code, f"unknown return code {code}")
