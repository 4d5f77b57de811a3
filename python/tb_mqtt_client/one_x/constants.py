"""Constants, enumerations and exceptions of SDK 1.x."""

from __future__ import annotations

from enum import Enum

RPC_REQUEST_TOPIC = "v1/devices/me/rpc/request/"
RPC_RESPONSE_TOPIC = "v1/devices/me/rpc/response/"
ATTRIBUTES_TOPIC = "v1/devices/me/attributes"
ATTRIBUTES_TOPIC_REQUEST = "v1/devices/me/attributes/request/"
ATTRIBUTES_TOPIC_RESPONSE = "v1/devices/me/attributes/response/"
TELEMETRY_TOPIC = "v1/devices/me/telemetry"
CLAIMING_TOPIC = "v1/devices/me/claim"
PROVISION_TOPIC_REQUEST = "/provision/request"
PROVISION_TOPIC_RESPONSE = "/provision/response"

GATEWAY_MAIN_TOPIC = "v1/gateway/"
GATEWAY_ATTRIBUTES_TOPIC = "v1/gateway/attributes"
GATEWAY_ATTRIBUTES_REQUEST_TOPIC = "v1/gateway/attributes/request"
GATEWAY_ATTRIBUTES_RESPONSE_TOPIC = "v1/gateway/attributes/response"
GATEWAY_TELEMETRY_TOPIC = "v1/gateway/telemetry"
GATEWAY_DISCONNECT_TOPIC = "v1/gateway/disconnect"
GATEWAY_RPC_TOPIC = "v1/gateway/rpc"
GATEWAY_RPC_RESPONSE_TOPIC = "v1/gateway/rpc/response"
GATEWAY_CLAIMING_TOPIC = "v1/gateway/claim"

FW_TITLE_ATTR = "fw_title"
FW_VERSION_ATTR = "fw_version"
FW_CHECKSUM_ATTR = "fw_checksum"
FW_CHECKSUM_ALG_ATTR = "fw_checksum_algorithm"
FW_SIZE_ATTR = "fw_size"
FW_STATE_ATTR = "fw_state"
FW_ERROR_ATTR = "fw_error"
REQUIRED_SHARED_KEYS = "fw_checksum,fw_checksum_algorithm,fw_size,fw_title,fw_version"

RESULT_CODES = {
    1: "incorrect protocol version",
    2: "invalid client identifier",
    3: "server unavailable",
    4: "bad username or password",
    5: "not authorized",
}
OPT_NON_STR_KEYS = 4
"""An option of orjson. ``dumps`` of this package always accepts keys that are not text."""


class TBTimeoutException(Exception):
    """A request has no response in time."""


class TBQoSException(Exception):
    """The QoS is neither 0 nor 1."""


class TBSendMethod(Enum):
    """Kinds of MQTT packets that SDK 1.x sent."""

    SUBSCRIBE = 0
    PUBLISH = 1
    UNSUBSCRIBE = 2


class TBFirmwareState(Enum):
    """States of a firmware update."""

    IDLE = "IDLE"
    DOWNLOADING = "DOWNLOADING"
    DOWNLOADED = "DOWNLOADED"
    VERIFIED = "VERIFIED"
    UPDATING = "UPDATING"
    UPDATED = "UPDATED"
    FAILED = "FAILED"
