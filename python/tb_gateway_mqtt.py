"""The module ``tb_gateway_mqtt`` of SDK 1.x; see docs/from_sdk_1x.md."""

import sys
from logging import Logger
from typing import TYPE_CHECKING

from tb_mqtt_client.one_x.constants import (
    GATEWAY_ATTRIBUTES_REQUEST_TOPIC,
    GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_CLAIMING_TOPIC,
    GATEWAY_DISCONNECT_TOPIC,
    GATEWAY_MAIN_TOPIC,
    GATEWAY_RPC_RESPONSE_TOPIC,
    GATEWAY_RPC_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
    TBSendMethod,
)
from tb_mqtt_client.one_x.device import TBDeviceMqttClient
from tb_mqtt_client.one_x.gateway import TBGatewayAPI, TBGatewayMqttClient
from tb_mqtt_client.one_x.rate_limits import RateLimit
from tb_mqtt_client.one_x.reexports import become_one_x_module, reexports

__all__ = [
    "GATEWAY_ATTRIBUTES_REQUEST_TOPIC",
    "GATEWAY_ATTRIBUTES_RESPONSE_TOPIC",
    "GATEWAY_ATTRIBUTES_TOPIC",
    "GATEWAY_CLAIMING_TOPIC",
    "GATEWAY_DISCONNECT_TOPIC",
    "GATEWAY_MAIN_TOPIC",
    "GATEWAY_RPC_RESPONSE_TOPIC",
    "GATEWAY_RPC_TOPIC",
    "GATEWAY_TELEMETRY_TOPIC",
    "RateLimit",
    "TBDeviceMqttClient",
    "TBGatewayAPI",
    "TBGatewayMqttClient",
    "TBSendMethod",
    "log",
]

if TYPE_CHECKING:
    log: Logger
else:
    become_one_x_module(sys.modules[__name__])
    __getattr__ = reexports(__name__, {"logging": "logging", "time": "time:monotonic"})
