"""Tells that a sub-device is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway.device_connect_message import checked_device_name
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class DeviceDisconnectMessage(FactoryMade, BaseGatewayEvent):
    """Made by ``build``."""

    device_name: str
    event_type: GatewayEventType = GatewayEventType.DEVICE_DISCONNECT

    @classmethod
    def build(cls, device_name: str) -> Self:
        """Raises ``ValueError`` for an empty name, and for what is no ``str``."""
        return cls._made(device_name=checked_device_name(device_name))

    def to_payload_format(self) -> dict[str, Any]:
        """``{"device": name}``"""
        return {"device": self.device_name}

    def __repr__(self) -> str:
        return f"DeviceDisconnectMessage(device_name={self.device_name})"
