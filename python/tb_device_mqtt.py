"""The module ``tb_device_mqtt`` of SDK 1.x; see docs/from_sdk_1x.md."""

import sys
from logging import Logger
from typing import TYPE_CHECKING

from tb_mqtt_client.one_x.constants import (
    ATTRIBUTES_TOPIC,
    ATTRIBUTES_TOPIC_REQUEST,
    ATTRIBUTES_TOPIC_RESPONSE,
    CLAIMING_TOPIC,
    FW_CHECKSUM_ALG_ATTR,
    FW_CHECKSUM_ATTR,
    FW_ERROR_ATTR,
    FW_SIZE_ATTR,
    FW_STATE_ATTR,
    FW_TITLE_ATTR,
    FW_VERSION_ATTR,
    OPT_NON_STR_KEYS,
    PROVISION_TOPIC_REQUEST,
    PROVISION_TOPIC_RESPONSE,
    REQUIRED_SHARED_KEYS,
    RESULT_CODES,
    RPC_REQUEST_TOPIC,
    RPC_RESPONSE_TOPIC,
    TELEMETRY_TOPIC,
    TBFirmwareState,
    TBQoSException,
    TBSendMethod,
    TBTimeoutException,
)
from tb_mqtt_client.one_x.device import TBDeviceMqttClient
from tb_mqtt_client.one_x.paho_names import MQTT_ERR_QUEUE_SIZE, ReasonCodes
from tb_mqtt_client.one_x.provisioning import ProvisionClient
from tb_mqtt_client.one_x.publish_info import TBPublishInfo
from tb_mqtt_client.one_x.rate_limits import GreedyTokenBucket, RateLimit
from tb_mqtt_client.one_x.reexports import become_one_x_module, reexports
from tb_mqtt_client.one_x.settings import DEFAULT_RATE_LIMIT_PERCENTAGE

__all__ = [
    "ATTRIBUTES_TOPIC",
    "ATTRIBUTES_TOPIC_REQUEST",
    "ATTRIBUTES_TOPIC_RESPONSE",
    "CLAIMING_TOPIC",
    "DEFAULT_RATE_LIMIT_PERCENTAGE",
    "DEFAULT_TIMEOUT",
    "FW_CHECKSUM_ALG_ATTR",
    "FW_CHECKSUM_ATTR",
    "FW_ERROR_ATTR",
    "FW_SIZE_ATTR",
    "FW_STATE_ATTR",
    "FW_TITLE_ATTR",
    "FW_VERSION_ATTR",
    "MQTT_ERR_QUEUE_SIZE",
    "OPT_NON_STR_KEYS",
    "PROVISION_TOPIC_REQUEST",
    "PROVISION_TOPIC_RESPONSE",
    "REQUIRED_SHARED_KEYS",
    "RESULT_CODES",
    "RPC_REQUEST_TOPIC",
    "RPC_RESPONSE_TOPIC",
    "TELEMETRY_TOPIC",
    "GreedyTokenBucket",
    "ProvisionClient",
    "RateLimit",
    "ReasonCodes",
    "TBDeviceMqttClient",
    "TBFirmwareState",
    "TBPublishInfo",
    "TBQoSException",
    "TBSendMethod",
    "TBTimeoutException",
    "log",
]

if TYPE_CHECKING:
    DEFAULT_TIMEOUT: float
    log: Logger
else:
    become_one_x_module(sys.modules[__name__])
    __getattr__ = reexports(
        __name__,
        {
            "CallbackAPIVersion": "tb_mqtt_client.one_x.paho_names:CallbackAPIVersion",
            "Enum": "enum:Enum",
            "JSONDecodeError": "json:JSONDecodeError",
            "RLock": "threading:RLock",
            "Thread": "threading:Thread",
            "ceil": "math:ceil",
            "deepcopy": "copy:deepcopy",
            "dumps": "tb_mqtt_client.one_x.values:dumps",
            "environ": "os:environ",
            "install_package": "tb_mqtt_client.one_x.install:install_package",
            "loads": "json:loads",
            "logging": "logging",
            "metadata": "importlib.metadata",
            "monotonic": "time:monotonic",
            "paho": "tb_mqtt_client.one_x.paho_names",
            "signature": "inspect:signature",
            "sleep": "time:sleep",
            "ssl": "ssl",
            "timestamp": "time:time",
            "verify_checksum": "sdk_utils:verify_checksum",
        },
    )


def check_tb_paho_mqtt_installed() -> None:
    """Do nothing: this package does not use paho."""
