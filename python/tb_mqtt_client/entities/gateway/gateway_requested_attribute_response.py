"""Responses to attribute requests of sub-devices."""

from __future__ import annotations

from dataclasses import dataclass

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, repr=False)
class GatewayRequestedAttributeResponse(RequestedAttributeResponse, BaseGatewayEvent):
    """The requested attributes of a sub-device by scope. Attributes that do not exist on the platform are missing."""

    request_id: int = -1
    """The id of the request; -1 if unknown."""
    shared: list[AttributeEntry] = None  # type: ignore[assignment]  # the public default
    """Shared attributes; ``None`` becomes an empty list."""
    client: list[AttributeEntry] = None  # type: ignore[assignment]
    """Client attributes; ``None`` becomes an empty list."""
    device_name: str = ""
    """The sub-device's name."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_REQUESTED_ATTRIBUTE_RESPONSE

    def __post_init__(self) -> None:
        for scope in ("shared", "client"):
            if getattr(self, scope) is None:
                object.__setattr__(self, scope, [])

    def __repr__(self) -> str:
        return (
            f"GatewayRequestedAttributeResponse(device_name={self.device_name},request_id={self.request_id}, "
            f"shared={self.shared}, client={self.client})"
        )
