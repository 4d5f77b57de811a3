"""MQTT topics of the platform (docs/platform_contract.md, sections 2 and 4).

The emulator does not import the client's constants, so that tests find a wrong topic in the client.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final


class Uplink(Enum):
    """The kinds of messages that a client can publish."""

    TELEMETRY = auto()
    ATTRIBUTES = auto()
    ATTRIBUTE_REQUEST = auto()
    RPC_REQUEST = auto()
    RPC_RESPONSE = auto()
    CLAIM = auto()
    OTA_REQUEST = auto()
    GATEWAY_CONNECT = auto()
    GATEWAY_DISCONNECT = auto()
    GATEWAY_TELEMETRY = auto()
    GATEWAY_ATTRIBUTES = auto()
    GATEWAY_ATTRIBUTE_REQUEST = auto()
    GATEWAY_RPC = auto()
    GATEWAY_CLAIM = auto()
    PROTOBUF = auto()
    UNKNOWN = auto()


GATEWAY_PREFIX: Final = "v1/gateway/"
PROVISION_REQUEST: Final = "/provision/request"
PROVISION_RESPONSE: Final = "/provision/response"
OTA_ERROR: Final = "v2/fw/error"
# Only this topic family supports getSessionLimits (docs/platform_contract.md, section 5).
RPC_REQUEST_V1: Final = "v1/devices/me/rpc/request/"
RPC_RESPONSE_V1: Final = "v1/devices/me/rpc/response/"

_ATTRIBUTE_REQUEST_V1: Final = "v1/devices/me/attributes/request/"

_EXACT: Final = {
    "v1/devices/me/telemetry": Uplink.TELEMETRY,
    "v2/t": Uplink.TELEMETRY,
    "v2/t/j": Uplink.TELEMETRY,
    "v1/devices/me/attributes": Uplink.ATTRIBUTES,
    "v2/a": Uplink.ATTRIBUTES,
    "v2/a/j": Uplink.ATTRIBUTES,
    "v2/t/p": Uplink.PROTOBUF,
    "v2/a/p": Uplink.PROTOBUF,
    "v1/devices/me/claim": Uplink.CLAIM,
    "v1/gateway/connect": Uplink.GATEWAY_CONNECT,
    "v1/gateway/disconnect": Uplink.GATEWAY_DISCONNECT,
    "v1/gateway/telemetry": Uplink.GATEWAY_TELEMETRY,
    "v1/gateway/attributes": Uplink.GATEWAY_ATTRIBUTES,
    "v1/gateway/attributes/request": Uplink.GATEWAY_ATTRIBUTE_REQUEST,
    "v1/gateway/rpc": Uplink.GATEWAY_RPC,
    "v1/gateway/claim": Uplink.GATEWAY_CLAIM,
}

# Longer prefixes come first, because "v2/a/req/j/" also starts with "v2/a/req/".
_PREFIXES: Final = (
    (_ATTRIBUTE_REQUEST_V1, Uplink.ATTRIBUTE_REQUEST),
    ("v2/a/req/j/", Uplink.ATTRIBUTE_REQUEST),
    ("v2/a/req/p/", Uplink.PROTOBUF),
    ("v2/a/req/", Uplink.ATTRIBUTE_REQUEST),
    (RPC_REQUEST_V1, Uplink.RPC_REQUEST),
    ("v2/r/req/j/", Uplink.RPC_REQUEST),
    ("v2/r/req/p/", Uplink.PROTOBUF),
    ("v2/r/req/", Uplink.RPC_REQUEST),
    (RPC_RESPONSE_V1, Uplink.RPC_RESPONSE),
    ("v2/r/res/j/", Uplink.RPC_RESPONSE),
    ("v2/r/res/p/", Uplink.PROTOBUF),
    ("v2/r/res/", Uplink.RPC_RESPONSE),
)
_OTA_REQUEST: Final = re.compile(r"v2/(?P<kind>fw|sw)/request/(?P<id>[0-9]+)/chunk/(?P<chunk>[0-9]+)")

# A response uses the topic family of the latest request in the session (docs/platform_contract.md, section 2).
_RESPONSES: Final = {
    _ATTRIBUTE_REQUEST_V1: "v1/devices/me/attributes/response/",
    "v2/a/req/j/": "v2/a/res/j/",
    "v2/a/req/": "v2/a/res/",
    RPC_REQUEST_V1: RPC_RESPONSE_V1,
    "v2/r/req/j/": "v2/r/res/j/",
    "v2/r/req/": "v2/r/res/",
}

# Only these need a subscription; the platform sends all other downlinks at QoS 1 without one (docs/platform_contract.md, fact 7).
ATTRIBUTE_UPDATES: Final = frozenset({"v1/devices/me/attributes", "v2/a", "v2/a/j", "v2/a/p"})
RPC_REQUESTS: Final = frozenset(
    {"v1/devices/me/rpc/request/+", "v2/r/req/+", "v2/r/req/j/+", "v2/r/req/p/+"},
)
_NEEDS_SUBSCRIPTION: Final = ATTRIBUTE_UPDATES | RPC_REQUESTS

SUBSCRIBABLE: Final = _NEEDS_SUBSCRIPTION | {
    "v1/devices/me/attributes/response/+",
    "v2/a/res/+",
    "v2/a/res/j/+",
    "v2/a/res/p/+",
    "v1/devices/me/rpc/response/+",
    "v2/r/res/+",
    "v2/r/res/j/+",
    "v2/r/res/p/+",
    "v2/fw/response/+/chunk/+",
    "v2/sw/response/+/chunk/+",
    "v2/fw/error",
    "v2/sw/error",
    "/provision/response",
    "v1/gateway/attributes",
    "v1/gateway/rpc",
    "v1/gateway/attributes/response",
}


def classify(topic: str) -> tuple[Uplink, str]:
    """Return the kind of a PUBLISH on this topic and the part of the topic after the prefix, which may be empty."""
    if (exact := _EXACT.get(topic)) is not None:
        return exact, ""
    for prefix, uplink in _PREFIXES:
        if topic.startswith(prefix):
            return uplink, topic[len(prefix) :]
    return (Uplink.OTA_REQUEST if _OTA_REQUEST.fullmatch(topic) else Uplink.UNKNOWN), ""


def response_prefix(topic: str, rest: str) -> str:
    """Return the response topic of a request topic, without the id; `rest` is the second result of `classify`."""
    return _RESPONSES[topic.removesuffix(rest)]


def ota_request(topic: str) -> tuple[str, str, str]:
    """Return the kind (`fw` or `sw`), request id and chunk number of an OTA_REQUEST topic as strings."""
    found = _OTA_REQUEST.fullmatch(topic)
    assert found is not None
    return found["kind"], found["id"], found["chunk"]


def matching_filter(topic: str) -> str | None:
    """Return the topic filter that matches a downlink topic, or None if clients cannot subscribe to it."""
    if topic in SUBSCRIBABLE:
        return topic
    levels = topic.split("/")
    return next((one for one in SUBSCRIBABLE if "+" in one and _matches(one.split("/"), levels)), None)


def needs_subscription(topic_filter: str) -> bool:
    """Return True if the platform sends messages of this topic filter only to subscribers."""
    return topic_filter in _NEEDS_SUBSCRIPTION


def _matches(pattern: list[str], levels: list[str]) -> bool:
    return len(pattern) == len(levels) and all(p in ("+", level) for p, level in zip(pattern, levels, strict=True))
