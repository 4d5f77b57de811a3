"""Topics of the platform (docs/platform_contract.md, sections 2 and 4)."""

import re
from typing import Final

WILDCARD: Final = "+"
REQUEST_TOPIC_SUFFIX: Final = "/request"
RESPONSE_TOPIC_SUFFIX: Final = "/response"

# Device. Names that hold `{...}` are format strings.
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

# Gateway.
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
"""Publishes to these take from `telemetryMessages` and `telemetryDataPoints`; all others take from `messages`."""

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


def build_device_attributes_request_topic(request_id: int) -> str:
    return DEVICE_ATTRIBUTES_REQUEST_TOPIC.format(request_id=request_id)


def build_device_rpc_request_topic(request_id: int) -> str:
    return f"{DEVICE_RPC_REQUEST_TOPIC}{request_id}"


def build_device_rpc_response_topic(request_id: int) -> str:
    return f"{DEVICE_RPC_RESPONSE_TOPIC}{request_id}"


def build_firmware_update_request_topic(request_id: int, current_chunk: int) -> str:
    return DEVICE_FIRMWARE_UPDATE_REQUEST_TOPIC.format(request_id=request_id, current_chunk=current_chunk)


def build_software_update_request_topic(request_id: int, current_chunk: int) -> str:
    return DEVICE_SOFTWARE_UPDATE_REQUEST_TOPIC.format(request_id=request_id, current_chunk=current_chunk)


INT32 = range(-(2**31), 2**31)
"""Numbers that the platform reads as a request id."""
# Python's int() also takes blanks, underscores and the digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]{1,10}")


def request_id_of(topic: str) -> int | None:
    """Return the request number at the end of a topic, or ``None`` if it is not an int32, which the server would not accept."""
    return number_of(topic.rpartition("/")[2])


def number_of(text: str) -> int | None:
    """Return an int32 for its digits, or ``None`` for another text."""
    return int(text) if _NUMBER.fullmatch(text) and int(text) in INT32 else None
