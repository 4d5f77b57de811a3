"""A session as its parts see it: what one of them asks of the whole."""

from __future__ import annotations

from typing import Protocol

from tb_mqtt_client.emulator.background import Background, Timers
from tb_mqtt_client.emulator.devices import Carrier, Device
from tb_mqtt_client.emulator.hooks import Hooks
from tb_mqtt_client.emulator.platform import Platform


class SessionView(Carrier, Protocol):
    """The client that a session is of, and the way to it."""

    platform: Platform
    hooks: Hooks
    background: Background
    timers: Timers
    # of MQTT: 3, 4 or 5
    level: int
    # None until the client is authenticated
    device: Device | None

    def reply(self, topic: str, payload: bytes) -> None:
        """Send after the PUBACK of the message that is being processed."""

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the client and of the platform."""
