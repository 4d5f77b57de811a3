"""One sub-device of a gateway, as the program sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.clock import now_ms
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState


@dataclass(eq=False)
class DeviceSession:
    """Given by ``GatewayClient.connect_device``. Equal and hashed by the device's id."""

    device_info: DeviceInfo
    _state_change_callback: Callable[[DeviceSession], None] | None = None
    connected_at: int = field(default_factory=now_ms)
    """Milliseconds since the epoch."""
    last_seen_at: int = field(default_factory=now_ms)
    """Milliseconds since the epoch."""
    claimed: bool = False
    provisioned: bool = False
    state: DeviceSessionState = DeviceSessionState.CONNECTED
    _identity: DeviceIdentity | None = field(default=None, init=False, repr=False)
    _identity_name: str | None = field(default=None, init=False, repr=False)

    @property
    def identity(self) -> DeviceIdentity:
        """Name and profile as they are encoded: made once, and again after a rename."""
        info = self.device_info
        if self._identity is None or self._identity_name is not info.device_name:
            self._identity = DeviceIdentity(info.device_name, info.device_profile)
            self._identity_name = info.device_name
        return self._identity

    def update_state(self, new_state: DeviceSessionState) -> None:
        """Change the state, and tell who asked to be told."""
        self.state = new_state
        if self._state_change_callback is not None:
            self._state_change_callback(self)

    def update_last_seen(self) -> None:
        """The device was heard of just now."""
        self.last_seen_at = now_ms()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeviceSession):
            return NotImplemented
        return self.device_info.device_id == other.device_info.device_id

    def __hash__(self) -> int:
        return hash(self.device_info)
