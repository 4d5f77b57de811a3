"""JSON in the payloads of messages without datapoints."""

from __future__ import annotations

import json
from typing import Any

from tb_mqtt_client._native import dumps
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage


def json_publish(topic: str, document: Any, qos: int = 1, datapoints: int = 0) -> MqttPublishMessage:
    """A publish of a document. Raises ``ValueError`` for what JSON cannot carry, as ``validate_json_compatibility`` does."""
    return MqttPublishMessage(topic, dumps(document), qos, datapoints=datapoints)


def json_text(text: str) -> bytes:
    """A text as JSON."""
    return dumps(text)


def json_value(payload: bytes) -> Any:
    """What a payload holds. Raises ``ValueError`` when it is no JSON."""
    try:
        return json.loads(payload.decode())
    except RecursionError as error:
        raise ValueError("the payload is nested too deeply") from error


def json_object(payload: bytes) -> dict[str, Any]:
    """The object that a payload holds. Raises ``ValueError`` when it is none."""
    document = json_value(payload)
    if not isinstance(document, dict):
        raise ValueError("the payload is no JSON object")  # noqa: TRY004  # bad data, not a bad call
    return document
