"""Topics of the platform, each with the kind of its messages (docs/platform_contract.md, sections 2 and 4)."""

import re
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

WILDCARD: Final = "+"
REQUEST_TOPIC_SUFFIX: Final = "/request"
RESPONSE_TOPIC_SUFFIX: Final = "/response"

# Topics of devices. Those that contain `{...}` are format strings.
DEVICE_TELEMETRY_TOPIC: Final = "v1/devices/me/telemetry"
DEVICE_ATTRIBUTES_TOPIC: Final = "v1/devices/me/attributes"
DEVICE_ATTRIBUTES_REQUEST_TOPIC: Final = DEVICE_ATTRIBUTES_TOPIC + REQUEST_TOPIC_SUFFIX + "/{request_id}"
DEVICE_ATTRIBUTES_RESPONSE_TOPIC: Final = f"{DEVICE_ATTRIBUTES_TOPIC}{RESPONSE_TOPIC_SUFFIX}/{WILDCARD}"
DEVICE_RPC_TOPIC: Final = "v1/devices/me/rpc"
DEVICE_RPC_REQUEST_TOPIC: Final = f"{DEVICE_RPC_TOPIC}{REQUEST_TOPIC_SUFFIX}/"
DEVICE_RPC_RESPONSE_TOPIC: Final = f"{DEVICE_RPC_TOPIC}{RESPONSE_TOPIC_SUFFIX}/"
DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION: Final = f"{DEVICE_RPC_REQUEST_TOPIC}{WILDCARD}"
DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION: Final = f"{DEVICE_RPC_RESPONSE_TOPIC}{WILDCARD}"
DEVICE_CLAIM_TOPIC: Final = "v1/devices/me/claim"
PROVISION_REQUEST_TOPIC: Final = "/provision/request"
PROVISION_RESPONSE_TOPIC: Final = "/provision/response"
DEVICE_FIRMWARE_UPDATE_RESPONSE_TOPIC: Final = "v2/fw/response/+/chunk/+"
DEVICE_FIRMWARE_UPDATE_REQUEST_TOPIC: Final = "v2/fw/request/{request_id}/chunk/{current_chunk}"
DEVICE_FIRMWARE_ERROR_TOPIC: Final = "v2/fw/error"
DEVICE_SOFTWARE_UPDATE_RESPONSE_TOPIC: Final = "v2/sw/response/+/chunk/+"
DEVICE_SOFTWARE_UPDATE_REQUEST_TOPIC: Final = "v2/sw/request/{request_id}/chunk/{current_chunk}"
DEVICE_SOFTWARE_ERROR_TOPIC: Final = "v2/sw/error"

# Topics of gateways.
BASE_GATEWAY_TOPIC: Final = "v1/gateway"
GATEWAY_CONNECT_TOPIC: Final = f"{BASE_GATEWAY_TOPIC}/connect"
GATEWAY_DISCONNECT_TOPIC: Final = f"{BASE_GATEWAY_TOPIC}/disconnect"
GATEWAY_TELEMETRY_TOPIC: Final = f"{BASE_GATEWAY_TOPIC}/telemetry"
GATEWAY_ATTRIBUTES_TOPIC: Final = f"{BASE_GATEWAY_TOPIC}/attributes"
GATEWAY_ATTRIBUTES_REQUEST_TOPIC: Final = f"{GATEWAY_ATTRIBUTES_TOPIC}{REQUEST_TOPIC_SUFFIX}"
GATEWAY_ATTRIBUTES_RESPONSE_TOPIC: Final = f"{GATEWAY_ATTRIBUTES_TOPIC}{RESPONSE_TOPIC_SUFFIX}"
GATEWAY_RPC_TOPIC: Final = f"{BASE_GATEWAY_TOPIC}/rpc"
GATEWAY_CLAIM_TOPIC: Final = f"{BASE_GATEWAY_TOPIC}/claim"

# Short forms of the device's topics for telemetry and attributes, the last part of which names the payload format.
SHORT_TELEMETRY_TOPICS: Final = ("v2/t", "v2/t/j", "v2/t/p")
SHORT_ATTRIBUTES_TOPICS: Final = ("v2/a", "v2/a/j", "v2/a/p")


class MessageKind(Enum):
    """The purpose of a message from a client, on which its limits and the effects of a refusal depend."""

    TELEMETRY = "telemetry"
    ATTRIBUTES = "attributes"
    DEVICE_CONNECT = "device connect"
    """The announcement of a sub-device."""
    DEVICE_DISCONNECT = "device disconnect"
    """The end of a sub-device's session."""
    REQUEST = "request"
    """A request to the platform: a client-side RPC, or a request for attributes, credentials or a part of a package."""
    RESPONSE = "response"
    """The response to a server-side RPC."""
    CLAIM = "claim"
    KEEP_ALIVE = "keep-alive"
    """Attributes without a datapoint, which the platform counts as it counts requests."""
    OTHER = "other"
    """A message to a topic that the platform does not have."""

    def __init__(self, name: str) -> None:
        self.has_datapoints: bool = name in {"telemetry", "attributes"}
        """Whether the message takes from `telemetryMessages` and `telemetryDataPoints`; all others take from `messages`."""


class Route(NamedTuple):
    """The kind of messages that a topic carries."""

    kind: MessageKind
    of_sub_devices: bool = False
    """Whether the messages are a gateway's, for its sub-devices."""


ROUTES: Final = MappingProxyType(
    {
        **dict.fromkeys((DEVICE_TELEMETRY_TOPIC, *SHORT_TELEMETRY_TOPICS), Route(MessageKind.TELEMETRY)),
        **dict.fromkeys((DEVICE_ATTRIBUTES_TOPIC, *SHORT_ATTRIBUTES_TOPICS), Route(MessageKind.ATTRIBUTES)),
        DEVICE_CLAIM_TOPIC: Route(MessageKind.CLAIM),
        PROVISION_REQUEST_TOPIC: Route(MessageKind.REQUEST),
        GATEWAY_CONNECT_TOPIC: Route(MessageKind.DEVICE_CONNECT, of_sub_devices=True),
        GATEWAY_DISCONNECT_TOPIC: Route(MessageKind.DEVICE_DISCONNECT, of_sub_devices=True),
        GATEWAY_TELEMETRY_TOPIC: Route(MessageKind.TELEMETRY, of_sub_devices=True),
        GATEWAY_ATTRIBUTES_TOPIC: Route(MessageKind.ATTRIBUTES, of_sub_devices=True),
        GATEWAY_ATTRIBUTES_REQUEST_TOPIC: Route(MessageKind.REQUEST, of_sub_devices=True),
        GATEWAY_ATTRIBUTES_RESPONSE_TOPIC: Route(MessageKind.OTHER, of_sub_devices=True),
        GATEWAY_RPC_TOPIC: Route(MessageKind.RESPONSE, of_sub_devices=True),
        GATEWAY_CLAIM_TOPIC: Route(MessageKind.CLAIM, of_sub_devices=True),
    }
)
"""Topics without a request id in them."""

_NUMBERED_ROUTES: Final = (
    (DEVICE_RPC_RESPONSE_TOPIC, Route(MessageKind.RESPONSE)),
    (DEVICE_RPC_REQUEST_TOPIC, Route(MessageKind.REQUEST)),
    (f"{DEVICE_ATTRIBUTES_TOPIC}{REQUEST_TOPIC_SUFFIX}/", Route(MessageKind.REQUEST)),
    ("v2/fw/request/", Route(MessageKind.REQUEST)),
    ("v2/sw/request/", Route(MessageKind.REQUEST)),
    ("v2/r/res/", Route(MessageKind.RESPONSE)),
    ("v2/r/req/", Route(MessageKind.REQUEST)),
    ("v2/a/req/", Route(MessageKind.REQUEST)),
)
"""How topics with a request id begin."""


def route_of(topic: str) -> Route:
    """Return the kind of messages that are published to a topic."""
    route = ROUTES.get(topic)
    if route is not None:
        return route
    return next((route for prefix, route in _NUMBERED_ROUTES if topic.startswith(prefix)), Route(MessageKind.OTHER))


def build_device_attributes_request_topic(request_id: int) -> str:
    """Return the topic of a device's attribute request with this id."""
    return DEVICE_ATTRIBUTES_REQUEST_TOPIC.format(request_id=request_id)


def build_device_rpc_request_topic(request_id: int) -> str:
    """Return the topic of a client-side RPC request with this id."""
    return f"{DEVICE_RPC_REQUEST_TOPIC}{request_id}"


def build_device_rpc_response_topic(request_id: int) -> str:
    """Return the topic of the response to the server-side RPC request with this id."""
    return f"{DEVICE_RPC_RESPONSE_TOPIC}{request_id}"


def build_firmware_update_request_topic(request_id: int, current_chunk: int) -> str:
    """Return the topic of a request for one chunk of a firmware image.

    Args:
        request_id: The id of the download.
        current_chunk: The index of the chunk, from 0.
    """
    return DEVICE_FIRMWARE_UPDATE_REQUEST_TOPIC.format(request_id=request_id, current_chunk=current_chunk)


def build_software_update_request_topic(request_id: int, current_chunk: int) -> str:
    """Return the topic of a request for one chunk of a software image.

    Args:
        request_id: The id of the download.
        current_chunk: The index of the chunk, from 0.
    """
    return DEVICE_SOFTWARE_UPDATE_REQUEST_TOPIC.format(request_id=request_id, current_chunk=current_chunk)


INT32 = range(-(2**31), 2**31)
"""Numbers that the server accepts as a request id (docs/platform_contract.md, section 2)."""
# int() alone would also accept blanks, underscores and the digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]{1,10}")


def request_id_of(topic: str) -> int | None:
    """Return the request id at the end of a topic, or ``None`` if the topic does not end with a 32-bit integer."""
    return number_of(topic.rpartition("/")[2])


def number_of(text: str) -> int | None:
    """Return the 32-bit integer that a text contains, or ``None`` for any other text."""
    return int(text) if _NUMBER.fullmatch(text) and int(text) in INT32 else None
