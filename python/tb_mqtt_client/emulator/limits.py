"""The limits that the platform announces, and the buckets in which it counts (contract section 5). No client code in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tb_mqtt_client.emulator.devices import Device

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
    gateway together. `tenant_rate_limits` are for all devices together and are announced to nobody.
    """

    max_inflight_messages: int = 100
    rate_limits: RateLimits = RateLimits()
    gateway_rate_limits: RateLimits = RateLimits()
    tenant_rate_limits: RateLimits = RateLimits()

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
    """(capacity, seconds) of each window. Raises `ValueError` for what is no list of windows."""
    found = []
    for window in (text or "").removesuffix(",").split(",") if text else []:
        matched = _WINDOW.fullmatch(window)
        if matched is None or not int(matched[1]) or not int(matched[2]):
            raise ValueError(f"{text!r} is no rate limit like '100:1,3000:60'")
        found.append((int(matched[1]), int(matched[2])))
    return found


class Buckets:
    """Token buckets of one limit: full at first, refilled continuously, and a take succeeds in all of them or in none."""

    def __init__(self, text: str | None, now: float) -> None:
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
    """The three limits of a tenant, a device or a gateway."""

    def __init__(self, limits: RateLimits, now: float) -> None:
        self._messages = Buckets(limits.messages, now)
        self._telemetry_messages = Buckets(limits.telemetry_messages, now)
        self._telemetry_datapoints = Buckets(limits.telemetry_datapoints, now)

    def take(self, datapoints: int, now: float) -> bool:
        """The message token first: when the datapoints are refused then, it is lost."""
        if datapoints:
            return self._telemetry_messages.take(1, now) and self._telemetry_datapoints.take(datapoints, now)
        return self._messages.take(1, now)


class Meter:
    """Counts what devices send. Its buckets belong to devices, not to connections: they survive reconnects."""

    def __init__(self, limits: SessionLimits | None, *, enforces: bool, clock: Callable[[], float]) -> None:
        self._enforces = enforces
        self._clock = clock
        self._entities: dict[tuple[str, Device | None], _Entity] = {}
        # The tenant has used up its API usage: everything is over a limit.
        self.transport_disabled = False
        self._limits = SessionLimits()
        self._counts = False
        self.configure(limits)

    def configure(self, limits: SessionLimits | None) -> None:
        """Begin anew with full buckets. Raises `ValueError` for limits that cannot be counted."""
        limits = limits or SessionLimits()
        entities = (limits.rate_limits, limits.gateway_rate_limits, limits.tenant_rate_limits)
        if self._enforces:
            for entity in entities:
                _Entity(entity, 0.0)
        self._limits = limits
        self._counts = self._enforces and any(entity != RateLimits() for entity in entities)
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
        return self._entity("tenant", None, self._limits.tenant_rate_limits, now).take(datapoints, now) and (
            self._entity("device", device, self._limits.rate_limits, now).take(datapoints, now)
            if gateway is None
            else self._entity("gateway", gateway, self._limits.gateway_rate_limits, now).take(datapoints, now)
        )

    def forget(self, device: Device) -> None:
        for kind in ("device", "gateway"):
            self._entities.pop((kind, device), None)

    def _entity(self, kind: str, device: Device | None, limits: RateLimits, now: float) -> _Entity:
        entity = self._entities.get((kind, device))
        if entity is None:
            entity = self._entities[kind, device] = _Entity(limits, now)
        return entity
