"""The message that keeps quiet sub-devices reachable."""

from __future__ import annotations

from collections.abc import Iterable

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_ATTRIBUTES_TOPIC
from tb_mqtt_client.service.json_payloads import json_text


class KeepAliveMessage(MqttPublishMessage):
    """Empty attributes of several sub-devices: an uplink of each, of which the platform stores nothing.

    It is published once, in its session or not at all. The server counts each device in it as one of ``messages``
    (platform_contract.md, section 5: data without datapoints).
    """

    def __init__(self, payload: bytes, devices: int) -> None:
        super().__init__(GATEWAY_ATTRIBUTES_TOPIC, payload, 1)
        self.devices = devices
        self.resend = False

    @property
    def is_service_message(self) -> bool:
        """Return True: the message has no datapoints, whatever its topic."""
        return True

    @classmethod
    def build(cls, device_names: Iterable[str], max_size: int) -> KeepAliveMessage:
        """Return a message with as many of the first names as fit in ``max_size`` bytes, and at least one."""
        entries: list[bytes] = []
        size = 1
        for name in device_names:
            entry = json_text(name) + b":{}"
            size += len(entry) + 1
            if entries and size > max_size:
                break
            entries.append(entry)
        return cls(b"{" + b",".join(entries) + b"}", len(entries))
