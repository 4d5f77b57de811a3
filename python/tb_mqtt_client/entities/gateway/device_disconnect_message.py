"""Messages that end the session of a sub-device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway.device_connect_message import checked_device_name
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class DeviceDisconnectMessage(FactoryMade, BaseGatewayEvent):
    """Ends the platform's session of a sub-device. Made by ``build``."""

    device_name: str
    """The sub-device's name."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_DISCONNECT

    @classmethod
    def build(cls, device_name: str) -> Self:
        """Make a message.

        Args:
            device_name: The sub-device's name.

        Raises:
            ValueError: The name is empty or not a ``str``.
        """
        return cls._made(device_name=checked_device_name(device_name))

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{"device": name}``."""
        return {"device": self.device_name}

    def __repr__(self) -> str:
        return f"DeviceDisconnectMessage(device_name={self.device_name})"
