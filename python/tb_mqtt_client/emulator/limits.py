"""The limits that the platform announces, and the buckets in which it counts (docs/platform_contract.md, section 5). No client code
in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tb_mqtt_client.emulator.devices import Device

# What the platform does with a message over a rate limit; see `Emulator`.
OverLimit: TypeAlias = Literal["platform", "refuse", "close"]
OVER_LIMIT: Final[tuple[OverLimit, ...]] = ("platform", "refuse", "close")

_Kind: TypeAlias = Literal["tenant", "device", "gateway"]
_KINDS: Final[tuple[_Kind, ...]] = ("tenant", "device", "gateway")
_WINDOW: Final = re.compile(r"([0-9]+):([0-9]+)")


class RateLimitedError(Exception):
    """A message is over a limit of the tenant, the device or the gateway, and was not taken."""


class DeviceLimitError(Exception):
    """The tenant has as many devices as it may have."""


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
    """The answer to getSessionLimits; all unlimited, as in the default tenant profile.

    `rate_limits` are a device's, and a gateway's for its own traffic; `gateway_rate_limits` are for all devices behind one
    gateway together. Two limits are never announced: `tenant_rate_limits`, which all devices and gateways share, and
    `sub_sessions`, the number of sub-device sessions that one gateway may begin ("4:2": four in two seconds).
    """

    max_inflight_messages: int = 100
    rate_limits: RateLimits = RateLimits()
    gateway_rate_limits: RateLimits = RateLimits()
    tenant_rate_limits: RateLimits = RateLimits()
    sub_sessions: str | None = None

    def reply(self, *, max_payload_size: int, is_gateway: bool) -> dict[str, Any]:
        reply: dict[str, Any] = {
            "maxPayloadSize": max_payload_size,
            "maxInflightMessages": self.max_inflight_messages,
            "rateLimits": self.rate_limits.reply(),
        }
        if is_gateway:
            reply["gatewayRateLimits"] = self.gateway_rate_limits.reply()
        return reply


def windows(text: str | None) -> list[tuple[int, int]]:
    """(capacity, seconds) of each window. Raises `ValueError` for any other text."""
    found = []
    for window in (text or "").removesuffix(",").split(",") if text else []:
        matched = _WINDOW.fullmatch(window)
        if matched is None or not int(matched[1]) or not int(matched[2]):
            raise ValueError(f"{text!r} is not a rate limit; write CAPACITY:SECONDS,... like '100:1,3000:60'")
        found.append((int(matched[1]), int(matched[2])))
    return found


class Buckets:
    """Token buckets of one limit: full at first, refilled continuously, and a take succeeds in all of them or in none."""

    def __init__(self, text: str | None, now: float) -> None:
        self.text = text or None
        self._windows = windows(text)
        self._levels = [float(capacity) for capacity, _ in self._windows]
        self._updated = now

    def take(self, amount: int, now: float) -> bool:
        if not self._windows:
            return True
        passed = now - self._updated
        self._updated = now
        levels = [
            min(float(capacity), level + passed * capacity / seconds)
            for level, (capacity, seconds) in zip(self._levels, self._windows, strict=True)
        ]
        admitted = all(level >= amount for level in levels)
        self._levels = [level - amount for level in levels] if admitted else levels
        return admitted


class _Entity:
    """The limits of a tenant, a device or a gateway."""

    def __init__(self, limits: RateLimits, sub_sessions: str | None, now: float) -> None:
        self._messages = Buckets(limits.messages, now)
        self._telemetry_messages = Buckets(limits.telemetry_messages, now)
        self._telemetry_datapoints = Buckets(limits.telemetry_datapoints, now)
        self._sub_sessions = Buckets(sub_sessions, now)

    def change(self, limits: RateLimits, sub_sessions: str | None, now: float) -> None:
        """Give each changed limit full buckets. An unchanged limit keeps its level, as in the platform."""
        self._messages = _changed(self._messages, limits.messages, now)
        self._telemetry_messages = _changed(self._telemetry_messages, limits.telemetry_messages, now)
        self._telemetry_datapoints = _changed(self._telemetry_datapoints, limits.telemetry_datapoints, now)
        self._sub_sessions = _changed(self._sub_sessions, sub_sessions, now)

    def take(self, datapoints: int, now: float) -> bool:
        """The message token first: when the datapoints are refused then, it is lost."""
        if datapoints:
            return self._telemetry_messages.take(1, now) and self._telemetry_datapoints.take(datapoints, now)
        return self._messages.take(1, now)

    def take_sub_session(self, now: float) -> bool:
        return self._sub_sessions.take(1, now)


def _changed(buckets: Buckets, text: str | None, now: float) -> Buckets:
    return buckets if buckets.text == (text or None) else Buckets(text, now)


class Meter:
    """Counts what devices send. Its buckets belong to devices, not to connections: they survive reconnects."""

    def __init__(self, limits: SessionLimits | None, *, enforces: bool, clock: Callable[[], float]) -> None:
        self._enforces = enforces
        self._clock = clock
        self._entities: dict[tuple[_Kind, Device | None], _Entity] = {}
        # The tenant has used up its API usage: everything is over a limit.
        self.transport_disabled = False
        self._limits = SessionLimits()
        self._counts = False
        self.configure(limits)

    def configure(self, limits: SessionLimits | None) -> None:
        """Apply limits at once. Raises `ValueError` for limits that cannot be counted."""
        limits = limits or SessionLimits()
        if self._enforces:
            for kind in _KINDS:
                _Entity(*_limits_of(limits, kind), 0.0)
        self._limits = limits
        self._counts = self._enforces and any(_limits_of(limits, kind) != (RateLimits(), None) for kind in _KINDS)
        if self._counts:
            now = self._clock()
            for (kind, _), entity in self._entities.items():
                entity.change(*_limits_of(limits, kind), now)
        else:
            self._entities.clear()

    def take(self, device: Device | None, gateway: Device | None, datapoints: int = 0) -> bool:
        """Take a message (of telemetry, when it has datapoints) from the tenant, then the device or else its gateway.

        What an earlier one gave is lost when a later one refuses. `device` is None for a device that is being created.
        """
        if self.transport_disabled:
            return False
        if not self._counts:
            return True
        now = self._clock()
        return self._entity("tenant", None, now).take(datapoints, now) and (
            self._entity("device", device, now).take(datapoints, now)
            if gateway is None
            else self._entity("gateway", gateway, now).take(datapoints, now)
        )

    def take_sub_session(self, gateway: Device) -> bool:
        """Take what the session of a sub-device costs: one message to find or create the device, one to open the session."""
        if self._counts and not self.transport_disabled:
            now = self._clock()
            if not self._entity("gateway", gateway, now).take_sub_session(now):
                return False
        return self.take(None, gateway) and self.take(None, gateway)

    def forget(self, device: Device) -> None:
        for kind in _KINDS:
            self._entities.pop((kind, device), None)

    def _entity(self, kind: _Kind, device: Device | None, now: float) -> _Entity:
        entity = self._entities.get((kind, device))
        if entity is None:
            entity = self._entities[kind, device] = _Entity(*_limits_of(self._limits, kind), now)
        return entity


def _limits_of(limits: SessionLimits, kind: _Kind) -> tuple[RateLimits, str | None]:
    """Return the rate limits of a tenant, device or gateway, and its limit on new sub-device sessions."""
    if kind == "gateway":
        return limits.gateway_rate_limits, limits.sub_sessions
    return limits.tenant_rate_limits if kind == "tenant" else limits.rate_limits, None
