"""The names of paho-mqtt that programs use through SDK 1.x. Nothing of paho itself is needed.

A program that uses other names of paho gets them from paho, if it is installed.
"""

from __future__ import annotations

import importlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from tb_mqtt_client.constants.reason_codes import reason_name


class MQTTErrorCode(IntEnum):
    """Return codes of paho's methods."""

    MQTT_ERR_AGAIN = -1
    MQTT_ERR_SUCCESS = 0
    MQTT_ERR_NOMEM = 1
    MQTT_ERR_PROTOCOL = 2
    MQTT_ERR_INVAL = 3
    MQTT_ERR_NO_CONN = 4
    MQTT_ERR_CONN_REFUSED = 5
    MQTT_ERR_NOT_FOUND = 6
    MQTT_ERR_CONN_LOST = 7
    MQTT_ERR_TLS = 8
    MQTT_ERR_PAYLOAD_SIZE = 9
    MQTT_ERR_NOT_SUPPORTED = 10
    MQTT_ERR_AUTH = 11
    MQTT_ERR_ACL_DENIED = 12
    MQTT_ERR_UNKNOWN = 13
    MQTT_ERR_ERRNO = 14
    MQTT_ERR_QUEUE_SIZE = 15
    MQTT_ERR_KEEPALIVE = 16


MQTT_ERR_AGAIN = MQTTErrorCode.MQTT_ERR_AGAIN
MQTT_ERR_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
MQTT_ERR_NOMEM = MQTTErrorCode.MQTT_ERR_NOMEM
MQTT_ERR_PROTOCOL = MQTTErrorCode.MQTT_ERR_PROTOCOL
MQTT_ERR_INVAL = MQTTErrorCode.MQTT_ERR_INVAL
MQTT_ERR_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
MQTT_ERR_CONN_REFUSED = MQTTErrorCode.MQTT_ERR_CONN_REFUSED
MQTT_ERR_NOT_FOUND = MQTTErrorCode.MQTT_ERR_NOT_FOUND
MQTT_ERR_CONN_LOST = MQTTErrorCode.MQTT_ERR_CONN_LOST
MQTT_ERR_TLS = MQTTErrorCode.MQTT_ERR_TLS
MQTT_ERR_PAYLOAD_SIZE = MQTTErrorCode.MQTT_ERR_PAYLOAD_SIZE
MQTT_ERR_NOT_SUPPORTED = MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED
MQTT_ERR_AUTH = MQTTErrorCode.MQTT_ERR_AUTH
MQTT_ERR_ACL_DENIED = MQTTErrorCode.MQTT_ERR_ACL_DENIED
MQTT_ERR_UNKNOWN = MQTTErrorCode.MQTT_ERR_UNKNOWN
MQTT_ERR_ERRNO = MQTTErrorCode.MQTT_ERR_ERRNO
MQTT_ERR_QUEUE_SIZE = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
MQTT_ERR_KEEPALIVE = MQTTErrorCode.MQTT_ERR_KEEPALIVE


class CallbackAPIVersion(IntEnum):
    """The forms of paho's callbacks."""

    VERSION1 = 1
    VERSION2 = 2


class ReasonCodes:
    """A reason code, as callbacks get it. Equal to its number, to its name, and to another reason code."""

    def __init__(self, value: int, name: str | None = None) -> None:
        """Keep a code.

        Args:
            value: The number.
            name: The name; ``None`` for that of MQTT 5.
        """
        self.value = value
        self._name = reason_name(value) if name is None else name

    @property
    def is_failure(self) -> bool:
        """Whether the code is a failure."""
        return self.value >= 0x80

    def getName(self) -> str:
        """Return the name."""
        return self._name

    def getId(self, name: str) -> int:
        """Return the number of this code.

        Raises:
            KeyError: It has another name.
        """
        if name != self._name:
            raise KeyError(name)
        return self.value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.value == other
        if isinstance(other, str):
            return self._name == other
        return self.value == other.value if isinstance(other, ReasonCodes) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.value)

    def __int__(self) -> int:
        return self.value

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"ReasonCode({self.value}, {self._name!r})"


ReasonCode = ReasonCodes

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        try:
            paho = importlib.import_module("paho.mqtt.client")
        except ModuleNotFoundError:
            raise AttributeError(
                f"{name!r} of paho.mqtt.client is not available: install paho-mqtt, if the program needs it"
            ) from None
        return getattr(paho, name)
