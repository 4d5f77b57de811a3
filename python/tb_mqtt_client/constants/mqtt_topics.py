"""Topics of the platform (docs/platform_contract.md, sections 2 and 4)."""

import re
from typing import Final

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

TOPICS_WITH_DATAPOINTS_CHECK: Final = frozenset(
    {DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC}
)
"""Topics whose messages count against the limits `telemetryMessages` and `telemetryDataPoints`. All others count against `messages`
(docs/platform_contract.md, section 5)."""

GATEWAY_TOPICS: Final = frozenset(
    {
        GATEWAY_CONNECT_TOPIC,
        GATEWAY_DISCONNECT_TOPIC,
        GATEWAY_TELEMETRY_TOPIC,
        GATEWAY_ATTRIBUTES_TOPIC,
        GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
        GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
        GATEWAY_RPC_TOPIC,
        GATEWAY_CLAIM_TOPIC,
    }
)
"""All topics to which only a gateway may publish."""


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
