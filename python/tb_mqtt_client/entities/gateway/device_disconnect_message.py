"""Tells that a sub-device is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.gateway.base_gateway_event import BaseGatewayEvent
from tb_mqtt_client.entities.gateway.event_type import GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class DeviceDisconnectMessage(BaseGatewayEvent):
    """Made by ``build``."""

    device_name: str

    _event_type = GatewayEventType.DEVICE_DISCONNECT

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        raise TypeError(f"Direct instantiation of {cls.__name__} is not allowed. Use {cls.__name__}.build(...).")

    @classmethod
    def build(cls, device_name: str) -> Self:
        """Raises ``ValueError`` for an empty name."""
        if not device_name:
            raise ValueError("Device name must not be empty.")
        message = object.__new__(cls)
        object.__setattr__(message, "device_name", device_name)
        return message

    def to_payload_format(self) -> dict[str, Any]:
        """``{"device": name}``"""
        return {"device": self.device_name}

    def __repr__(self) -> str:
        return f"DeviceDisconnectMessage(device_name={self.device_name})"
