"""Events of a gateway and its sub-devices."""

from __future__ import annotations

from enum import Enum
from typing import Any


class GatewayEventType(Enum):
    """Types of events; ``str()`` returns the value."""

    GATEWAY_CONNECT = "gateway.connect"
    GATEWAY_DISCONNECT = "gateway.disconnect"
    DEVICE_CONNECT = "gateway.device.connect"
    DEVICE_DISCONNECT = "gateway.device.disconnect"
    DEVICE_UPDATE = "gateway.device.update"
    DEVICE_UPLINK = "gateway.device.uplink"
    DEVICE_ATTRIBUTE_REQUEST = "gateway.device.attribute.request"
    DEVICE_ATTRIBUTE_UPDATE = "gateway.device.attribute.update"
    DEVICE_REQUESTED_ATTRIBUTE_RESPONSE = "gateway.device.requested.attribute.response"
    DEVICE_SESSION_STATE_CHANGE = "gateway.device.session.state.change"
    DEVICE_RPC_REQUEST = "gateway.device.rpc.request"
    DEVICE_RPC_RESPONSE = "gateway.device.rpc.response"
    GATEWAY_CLAIM_REQUEST = "gateway.gateway.claim"
    RPC_REQUEST_RECEIVE = "device.rpc.request"
    RPC_RESPONSE_SEND = "device.rpc.response"

    def __str__(self) -> str:
        return self.value


class BaseGatewayEvent:
    """An event and the session of its sub-device."""

    _event_type: GatewayEventType
    _device_session: Any = None

    def __init__(self, event_type: GatewayEventType) -> None:
        self._event_type = event_type

    @property
    def event_type(self) -> GatewayEventType:
        """The type of the event."""
        return self._event_type

    @property
    def device_session(self) -> Any:
        """The session of the sub-device, or ``None`` until it is set."""
        return self._device_session

    def set_device_session(self, device_session: Any) -> None:
        """Set the session of the event's sub-device."""
        object.__setattr__(self, "_device_session", device_session)

    def __str__(self) -> str:
        return repr(self)


class GatewayEvent(BaseGatewayEvent):
    """An event that consists of a type and a session only."""

    def get_device_session(self) -> Any:
        """Return the session of the sub-device, or ``None`` until it is set."""
        return self.device_session

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"event_type": type, "device_session": session}``."""
        return {"event_type": self.event_type, "device_session": self.device_session}

    def __str__(self) -> str:
        return f"GatewayEvent(type={self.event_type}, device_session={self.device_session})"
