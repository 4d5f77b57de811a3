"""Something that happened at a gateway."""

from __future__ import annotations

from typing import Any

from tb_mqtt_client.entities.gateway.base_gateway_event import BaseGatewayEvent


class GatewayEvent(BaseGatewayEvent):
    """An event that has nothing to tell but its type and its device's session."""

    def get_device_session(self) -> Any:
        """The device's session, ``None`` until it is set."""
        return self.device_session

    def to_dict(self) -> dict[str, Any]:
        """``{"event_type": type, "device_session": session}``"""
        return {"event_type": self.event_type, "device_session": self.device_session}

    def __str__(self) -> str:
        return f"GatewayEvent(type={self.event_type}, device_session={self.device_session})"
