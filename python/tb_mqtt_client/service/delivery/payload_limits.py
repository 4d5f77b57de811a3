"""The limits of one message: a single value for its bytes, datapoints and devices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tb_mqtt_client.common.mqtt_message import DEFAULT_MAX_PACKET_SIZE
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_TELEMETRY_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
)
from tb_mqtt_client.constants.option_values import MQTT_5


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """How much a message may hold in this session."""

    max_packet_size: int
    """Bytes of the MQTT remaining length: the packet without its first two to five bytes."""
    mqtt_version: int
    max_payload_size: int
    """Bytes of a payload with telemetry or attributes."""
    max_datapoints: int = 0
    """Datapoints of a message; 0 for no limit."""
    max_devices: int = 0
    """Sub-devices in a message; 0 for no limit."""

    @classmethod
    def of_device(cls, max_packet_size: int = DEFAULT_MAX_PACKET_SIZE, mqtt_version: int = MQTT_5) -> PayloadLimits:
        """Return the limits that the size of packets sets to the device's own data."""
        return cls._of_topics(max_packet_size, mqtt_version, DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC)

    @classmethod
    def of_sub_devices(cls, max_packet_size: int = DEFAULT_MAX_PACKET_SIZE, mqtt_version: int = MQTT_5) -> PayloadLimits:
        """Return the limits that the size of packets sets to data of sub-devices."""
        return cls._of_topics(max_packet_size, mqtt_version, GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC)

    @classmethod
    def _of_topics(cls, max_packet_size: int, mqtt_version: int, *topics: str) -> PayloadLimits:
        """Return limits of payloads that fit in a publish to each topic: a few bytes less than possible for the shorter one."""
        return cls(max_packet_size, mqtt_version, min(payload_size(topic, max_packet_size, mqtt_version) for topic in topics))

    def narrowed(self, max_datapoints: int, max_devices: int) -> PayloadLimits:
        """Return these limits with other bounds of datapoints and devices; the same object if nothing changes."""
        if max_datapoints == self.max_datapoints and max_devices == self.max_devices:
            return self
        return replace(self, max_datapoints=max_datapoints, max_devices=max_devices)

    def payload_size(self, topic: str) -> int:
        """Return the bytes of payload that a publish to a topic may have."""
        return payload_size(topic, self.max_packet_size, self.mqtt_version)


def payload_size(topic: str, max_packet_size: int, mqtt_version: int) -> int:
    """Return the bytes of payload that a QoS 1 PUBLISH may have.

    The server's limit is on the whole MQTT remaining length (docs/platform_contract.md, fact 6): the topic with its length,
    the packet id and, in MQTT 5, the length of the properties (none are sent) count too.
    """
    return max_packet_size - (2 + len(topic.encode())) - 2 - (1 if mqtt_version == MQTT_5 else 0)


def smallest_bound(*bounds: int) -> int:
    """Return the smallest of bounds in which 0 stands for no bound."""
    return min((bound for bound in bounds if bound), default=0)
