"""The limits that the platform announces (contract section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Windows as the platform writes them ("100:1,3000:60"); None is unlimited."""

    messages: str | None = None
    telemetry_messages: str | None = None
    telemetry_datapoints: str | None = None

    def reply(self) -> dict[str, str | None]:
        return {
            "messages": self.messages,
            "telemetryMessages": self.telemetry_messages,
            "telemetryDataPoints": self.telemetry_datapoints,
        }


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The answer to getSessionLimits; all unlimited, as in the default tenant profile. Announced, not enforced."""

    max_inflight_messages: int = 100
    rate_limits: RateLimits = RateLimits()
    gateway_rate_limits: RateLimits = RateLimits()

    def reply(self, *, max_payload_size: int, is_gateway: bool) -> dict[str, Any]:
        reply: dict[str, Any] = {
            "maxPayloadSize": max_payload_size,
            "maxInflightMessages": self.max_inflight_messages,
            "rateLimits": self.rate_limits.reply(),
        }
        if is_gateway:
            reply["gatewayRateLimits"] = self.gateway_rate_limits.reply()
        return reply
