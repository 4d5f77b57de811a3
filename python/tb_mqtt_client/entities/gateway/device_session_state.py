"""States of sub-device sessions."""

from enum import Enum


class DeviceSessionState(Enum):
    """State of a sub-device's session on the platform."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    RECONNECTING = "RECONNECTING"
    CONNECTION_LOST = "CONNECTION_LOST"
    CONNECTION_FAILED = "CONNECTION_FAILED"

    def is_connected(self) -> bool:
        """Return True if the platform has an open session for the sub-device."""
        return self is DeviceSessionState.CONNECTED
