"""Announcements of sub-devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType

LONGEST_NAME: Final = 255
"""Most UTF-16 code units in the name of a device or a profile (docs/platform_contract.md, section 4)."""


@dataclass(frozen=True, init=False, repr=False)
class DeviceConnectMessage(FactoryMade, BaseGatewayEvent):
    """Announces a sub-device to the platform. Made by ``build``."""

    device_name: str
    """The sub-device's name."""
    device_profile: str = "default"
    """The device profile with which the platform creates the sub-device."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_CONNECT

    @classmethod
    def build(cls, device_name: str, device_profile: str = "default") -> Self:
        """Make an announcement.

        Args:
            device_name: The sub-device's name.
            device_profile: The device profile with which the platform creates the sub-device.

        Raises:
            ValueError: An argument is not a ``str``, blank, longer than 255 UTF-16 code units, or has a NUL or a lone surrogate.
        """
        return cls._made(
            device_name=checked_device_name(device_name),
            device_profile=_checked("Device profile", device_profile),
        )

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{"device": name, "type": profile}``."""
        return {"device": self.device_name, "type": self.device_profile}

    def __repr__(self) -> str:
        return f"DeviceConnectMessage(device_name={self.device_name}, device_profile={self.device_profile})"


def checked_device_name(name: object) -> str:
    """Return the name of a sub-device.

    Raises:
        ValueError: The name is not a ``str``, blank, longer than 255 UTF-16 code units, or has a NUL or a lone surrogate. No
            version of the platform has such a device. It also refuses to create devices whose names look like markup, but may
            have old ones.
    """
    return _checked("Device name", name)


def _checked(what: str, text: object) -> str:
    if not text:
        raise ValueError(f"{what} must not be empty.")
    if not isinstance(text, str):
        raise ValueError(f"{what} must be a str, not {text!r}")  # noqa: TRY004  # one error for all invalid names
    if text.isspace():
        raise ValueError(f"{what} must have a character that is not white space, not {text!r:.50}")
    if "\0" in text:
        raise ValueError(f"{what} must not have a NUL, which the platform cannot store: {text!r:.50}")
    try:
        units = len(text.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise ValueError(f"{what} must not have lone surrogates, which UTF-8 cannot express: {text!r:.50}") from None
    if units > LONGEST_NAME:
        raise ValueError(f"{what} must have at most {LONGEST_NAME} UTF-16 code units, which {text:.50}... exceeds")
    return text
