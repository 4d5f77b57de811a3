"""Datapoints of one sub-device on their way to the platform."""

from __future__ import annotations

from typing import ClassVar

from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType

DEFAULT_FIELDS_SIZE = 50
"""Bytes that ``size`` counts for a message without entries."""


class GatewayUplinkMessage(DeviceUplinkMessage, BaseGatewayEvent):
    """As ``DeviceUplinkMessage``, and an event of its device's session."""

    FIELDS_SIZE: ClassVar[int] = DEFAULT_FIELDS_SIZE
    BUILDER: ClassVar[str] = "GatewayUplinkMessageBuilder"

    _event_type = GatewayEventType.DEVICE_UPLINK


class GatewayUplinkMessageBuilder(DeviceUplinkMessageBuilder):
    """As ``DeviceUplinkMessageBuilder``; the profile is ``"default"`` unless set. ``len()`` is the size so far."""

    _message_class = GatewayUplinkMessage
    _default_profile = "default"

    def __len__(self) -> int:
        entries = [*self._attributes, *(entry for group in self._timeseries.values() for entry in group)]
        names = len(self._device_name or "") + len(self._device_profile or "")
        return DEFAULT_FIELDS_SIZE + names + sum(entry.size for entry in entries)
