"""JSON as all formats of this package read and write it."""

from __future__ import annotations

import json
from typing import Any

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage


def json_publish(topic: str, document: Any, qos: int = 1, datapoints: int = 0) -> MqttPublishMessage:
    """Return a publish that carries a document.

    Raises:
        ValueError: JSON cannot carry the document, see ``validate_json_compatibility``.
    """
    return MqttPublishMessage(topic, dumps(document), qos, datapoints=datapoints)


def json_value(payload: bytes) -> Any:
    """Return the value that a payload holds.

    Raises:
        ValueError: The payload is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(payload.decode())
    except RecursionError as error:
        raise ValueError("the payload is nested too deeply") from error


def json_object(payload: bytes) -> dict[str, Any]:
    """Return the object that a payload holds.

    Raises:
        ValueError: The payload is not JSON, or holds another value than an object.
    """
    document = json_value(payload)
    if not isinstance(document, dict):
        raise ValueError("the payload is not a JSON object")  # noqa: TRY004  # bad data, not a bad call
    return document
