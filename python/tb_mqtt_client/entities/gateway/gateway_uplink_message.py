"""Messages with telemetry and attributes of one sub-device."""

from __future__ import annotations

from typing import ClassVar

from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType

DEFAULT_FIELDS_SIZE = 50
"""Bytes: the ``size`` of a message without entries and names."""


class GatewayUplinkMessage(DeviceUplinkMessage, BaseGatewayEvent):
    """A ``DeviceUplinkMessage`` of a sub-device, which is also an event of its session."""

    FIELDS_SIZE: ClassVar[int] = DEFAULT_FIELDS_SIZE
    BUILDER: ClassVar[str] = "GatewayUplinkMessageBuilder"

    _event_type = GatewayEventType.DEVICE_UPLINK


class GatewayUplinkMessageBuilder(DeviceUplinkMessageBuilder):
    """Collects the parts of a ``GatewayUplinkMessage``. The default profile is ``"default"``; ``len()`` is the size in bytes."""

    _message_class = GatewayUplinkMessage
    _default_profile = "default"

    def __len__(self) -> int:
        entries = [*self._attributes, *(entry for group in self._timeseries.values() for entry in group)]
        names = len(self._device_name or "") + len(self._device_profile or "")
        return DEFAULT_FIELDS_SIZE + names + sum(entry.size for entry in entries)
