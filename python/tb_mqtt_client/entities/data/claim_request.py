"""Requests that let a user claim the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import validate_json_compatibility
from tb_mqtt_client.entities.factory_made import FactoryMade

LONGEST_DURATION = (2**63 - 1) // 1000
"""Seconds: the platform stores milliseconds as a 64-bit integer."""


@dataclass(frozen=True, init=False, repr=False)
class ClaimRequest(FactoryMade):
    """A claiming request of a device, made by ``build``. ``repr()`` hides the secret key."""

    secret_key: str | None = None
    """The secret key that a user must know to claim the device."""
    duration: int | None = None
    """Seconds for which the device can be claimed; ``None`` for the platform's default."""

    @classmethod
    def build(cls, secret_key: str = "", duration: int | None = 60000) -> Self:
        """Make a request to let users claim the device.

        Args:
            secret_key: The key that a user must know to claim the device. It may be empty.
            duration: Seconds for which the device can be claimed. The default of 60000 (16 hours and 40 minutes) is SDK 2.0's.
                ``None`` uses the platform's default, 24 hours.

        Raises:
            ValueError: The key is not a ``str``, or the duration is not a whole number of seconds.
        """
        if not isinstance(secret_key, str):
            raise ValueError("Secret key must be a string")  # noqa: TRY004  # published type and text
        validate_json_compatibility(secret_key)
        if duration is not None and (type(duration) is not int or not 0 <= duration <= LONGEST_DURATION):
            raise ValueError("Duration must be a non-negative integer representing seconds")
        return cls._made(secret_key=secret_key, duration=duration)

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{"secretKey": s, "durationMs": n}``, without a duration if it is ``None``."""
        duration = {} if self.duration is None else {"durationMs": self.duration * 1000}
        return {"secretKey": self.secret_key} | duration

    def __repr__(self) -> str:
        secret_key = "***" if self.secret_key else self.secret_key
        return f"ClaimRequest(secret_key={secret_key}, duration={self.duration})"
