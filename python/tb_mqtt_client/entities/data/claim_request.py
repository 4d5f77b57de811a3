"""Lets a customer's user claim the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import validate_json_compatibility
from tb_mqtt_client.entities.factory_made import FactoryMade

LONGEST_DURATION = (2**63 - 1) // 1000
"""Seconds that the platform can count, in milliseconds and 64 bits."""


@dataclass(frozen=True, init=False, repr=False)
class ClaimRequest(FactoryMade):
    """Made by ``build``."""

    secret_key: str | None = None
    duration: int | None = None

    @classmethod
    def build(cls, secret_key: str = "", duration: int | None = 60000) -> Self:
        """Who knows ``secret_key`` (which may be empty) can claim the device for ``duration`` seconds.

        The default is SDK 2.0's: 60000 seconds, 16 hours and 40 minutes. ``None`` leaves the duration to the platform, whose own
        default is 24 hours. Raises ``ValueError`` for a key that is no ``str`` and a duration that is no whole number of seconds.
        """
        if not isinstance(secret_key, str):
            raise ValueError("Secret key must be a string")  # noqa: TRY004  # published type and text
        validate_json_compatibility(secret_key)
        if duration is not None and (type(duration) is not int or not 0 <= duration <= LONGEST_DURATION):
            raise ValueError("Duration must be a non-negative integer representing seconds")
        return cls._made(secret_key=secret_key, duration=duration)

    def to_payload_format(self) -> dict[str, Any]:
        """``{"secretKey": s, "durationMs": n}`` in milliseconds, without a duration that is ``None``."""
        duration = {} if self.duration is None else {"durationMs": self.duration * 1000}
        return {"secretKey": self.secret_key} | duration

    def __repr__(self) -> str:
        secret_key = "***" if self.secret_key else self.secret_key
        return f"ClaimRequest(secret_key={secret_key}, duration={self.duration})"
