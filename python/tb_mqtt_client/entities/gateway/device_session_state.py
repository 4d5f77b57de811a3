"""States of a sub-device's session."""

from enum import Enum


class DeviceSessionState(Enum):
    """Whether the platform has a session of the device."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    RECONNECTING = "RECONNECTING"
    CONNECTION_LOST = "CONNECTION_LOST"
    CONNECTION_FAILED = "CONNECTION_FAILED"

    def is_connected(self) -> bool:
        """Whether it has."""
        return self is DeviceSessionState.CONNECTED
