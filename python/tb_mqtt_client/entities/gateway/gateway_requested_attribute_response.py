"""The platform's answer to an attribute request of a sub-device."""

from __future__ import annotations

from dataclasses import dataclass

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, repr=False)
class GatewayRequestedAttributeResponse(RequestedAttributeResponse, BaseGatewayEvent):
    """Attributes by scope. A key that was asked for and is missing does not exist on the platform. ``None`` is an empty list."""

    request_id: int = -1
    shared: list[AttributeEntry] = None  # type: ignore[assignment]  # the published default
    client: list[AttributeEntry] = None  # type: ignore[assignment]
    device_name: str = ""
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
