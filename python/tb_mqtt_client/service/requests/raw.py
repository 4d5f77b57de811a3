"""Messages that a program writes itself."""

from __future__ import annotations

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import route_of


def raw_message(topic: str, payload: bytes | str) -> MqttPublishMessage:
    """Return the message of a program, see ``DeviceClient.publish``.

    Raises:
        ValueError: The topic is not valid, or is one of telemetry or attributes.
        TypeError: The payload is neither ``bytes`` nor a ``str``.
    """
    if not isinstance(topic, str) or not topic or {"+", "#", "\0"} & {*topic}:
        raise ValueError(f"topic must be a topic without wildcards, not {topic!r}")
    if route_of(topic).kind.has_datapoints:
        raise ValueError(f"topic: the datapoints on {topic} have to be counted for the limits: use the send_... methods")
    if not isinstance(payload, bytes | str):
        raise TypeError(f"payload must be bytes or a str, not {payload!r}")
    return MqttPublishMessage(topic, payload.encode() if isinstance(payload, str) else payload)
