"""The server's reply to ``getSessionLimits``, with the limits of a session (docs/platform_contract.md, section 5)."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field, replace

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.mqtt_message import DEFAULT_MAX_PACKET_SIZE
from tb_mqtt_client.common.rate_limit.rate_limit import parse_window, split_windows
from tb_mqtt_client.service.formats.json_values import json_object

logger: ExtendedLogger = get_logger(__name__)

REQUEST = b'{"method":"getSessionLimits","params":{}}'
"""The payload of the RPC request."""

MAX_REMAINING_LENGTH = 268_435_455
"""Bytes: no MQTT packet can be longer (MQTT 5, section 1.5.5)."""
MIN_REMAINING_LENGTH = 80
"""Bytes: a smaller limit cannot be true, because the request that it answers was about as long."""
MAX_ANNOUNCED_SIZE = 2**31 - 1
"""The platform's own type for this size is a 32-bit integer."""
LIMIT_NAMES = ("messages", "telemetryMessages", "telemetryDataPoints")
"""The platform's names of the limits in ``RateLimiter.values()``, in the same order."""

RateLimitTexts = dict[str, str | None]
"""``"100:1,3000:60"`` by the platform's names: messages, telemetryMessages, telemetryDataPoints. ``None``: no limit."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of one session. The defaults are for servers that do not announce theirs."""

    max_packet_size: int = DEFAULT_MAX_PACKET_SIZE
    """Bytes of the MQTT remaining length (docs/platform_contract.md, fact 6)."""
    device: RateLimitTexts = field(default_factory=dict)
    """For the connected device's own traffic."""
    gateway: RateLimitTexts = field(default_factory=dict)
    """For the sum of a gateway's sub-devices (docs/platform_contract.md, fact 4)."""
    announced: bool = False
    """Whether the server announced them."""

    def within(self, max_remaining_length: int) -> SessionLimits:
        """Return these limits for a session whose packets may not be larger than this either."""
        return replace(self, max_packet_size=min(self.max_packet_size, max_remaining_length))

    @classmethod
    def parse(cls, payload: bytes) -> SessionLimits:
        """Read the server's reply to ``getSessionLimits``.

        Fields that are missing or unusable get their defaults; one warning names all unusable ones.

        Raises:
            ValueError: The payload is something else, such as the error of an old server, or is not JSON.
        """
        reply = json_object(payload)
        if "error" in reply:
            raise ValueError(f"not a response to getSessionLimits: {payload[:200]!r}")
        reader = _Reader()
        limits = cls(
            reader.packet_size(reply.get("maxPayloadSize")),
            reader.rate_limits(reply.get("rateLimits"), "rateLimits"),
            reader.rate_limits(reply.get("gatewayRateLimits"), "gatewayRateLimits"),
            announced=True,
        )
        if reader.unusable:
            logger.warning("Using the server's limits without these unusable fields: %s", ", ".join(reader.unusable))
        return limits


class _Reader:
    """Reads the fields of one reply, and collects descriptions of those that are unusable."""

    def __init__(self) -> None:
        self.unusable: list[str] = []

    def packet_size(self, value: object) -> int:
        """Return a size in bytes that a client can keep to."""
        if value is None:
            return DEFAULT_MAX_PACKET_SIZE
        if type(value) is not int or not MIN_REMAINING_LENGTH <= value <= MAX_ANNOUNCED_SIZE:
            self._skip("maxPayloadSize", value)
            return DEFAULT_MAX_PACKET_SIZE
        return min(value, MAX_REMAINING_LENGTH)

    def rate_limits(self, value: object, name: str) -> RateLimitTexts:
        """Return the texts of the three limits, each with its usable windows only."""
        if isinstance(value, dict):
            return {key: self._windows(value[key], f"{name}.{key}") for key in LIMIT_NAMES if key in value}
        if value is not None:
            self._skip(name, value)
        return {}

    def _windows(self, value: object, name: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            self._skip(name, value)
            return None
        usable = [window for window in split_windows(value) if self._is_usable(window, name)]
        return ",".join(usable)

    def _is_usable(self, window: str, name: str) -> bool:
        try:
            parse_window(window)
        except ValueError:
            self._skip(name, window)
            return False
        return True

    def _skip(self, name: str, value: object) -> None:
        self.unusable.append(f"{name}={reprlib.repr(value)}")
