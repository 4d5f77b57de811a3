"""Base of the events of a gateway."""

from __future__ import annotations

from typing import Any

from tb_mqtt_client.entities.gateway.event_type import GatewayEventType


class BaseGatewayEvent:
    """An event, and the session of the device that it belongs to."""

    _event_type: GatewayEventType
    _device_session: Any = None

    def __init__(self, event_type: GatewayEventType) -> None:
        self._event_type = event_type

    @property
    def event_type(self) -> GatewayEventType:
        """What happened."""
        return self._event_type

    @property
    def device_session(self) -> Any:
        """The device's session, ``None`` until it is set."""
        return self._device_session

    def set_device_session(self, device_session: Any) -> None:
        """Say which session the event belongs to."""
        object.__setattr__(self, "_device_session", device_session)

    def __str__(self) -> str:
        return repr(self)
