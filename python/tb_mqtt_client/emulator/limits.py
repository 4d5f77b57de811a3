"""Announced and enforced limits of the platform (docs/platform_contract.md, section 5), implemented independently of the client."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from tb_mqtt_client.emulator.devices import Device

# What happens to a message that exceeds a rate limit; see `Emulator`.
OverLimit: TypeAlias = Literal["platform", "refuse", "close"]
OVER_LIMIT: Final[tuple[OverLimit, ...]] = ("platform", "refuse", "close")

_Kind: TypeAlias = Literal["tenant", "device", "gateway"]
_KINDS: Final[tuple[_Kind, ...]] = ("tenant", "device", "gateway")
_WINDOW: Final = re.compile(r"([0-9]+):([0-9]+)")


class RateLimitedError(Exception):
    """A message was not accepted because it exceeds a limit of the tenant, the device or the gateway."""


class DeviceLimitError(Exception):
    """The tenant has reached its maximum number of devices."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rate limits in the platform's form, for example "100:1,3000:60": 100 in one second and 3000 in 60 seconds.

    Attributes:
        messages: The limit on all other messages; None for no limit.
        telemetry_messages: The limit on messages with telemetry or attributes; None for no limit.
        telemetry_datapoints: The limit on datapoints, attributes included; None for no limit.
    """

    messages: str | None = None
    telemetry_messages: str | None = None
    telemetry_datapoints: str | None = None

    def reply(self) -> dict[str, str | None]:
        """Return the limits as they appear in the reply to getSessionLimits."""
        return {
            "messages": self.messages,
            "telemetryMessages": self.telemetry_messages,
            "telemetryDataPoints": self.telemetry_datapoints,
        }


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of a tenant profile; by default there are none, as in the platform.

    Attributes:
        max_inflight_messages: The number of packets that the platform queues for one client.
        rate_limits: The limits of a device, and of a gateway for its own data. Announced.
        gateway_rate_limits: The limits of all sub-devices of one gateway together. Announced to gateways.
        tenant_rate_limits: The limits that all devices and gateways share. Not announced.
        sub_sessions: The limit on new sub-device sessions of one gateway, for example "4:2" for four in two seconds; None for
            no limit. Not announced.
    """

    max_inflight_messages: int = 100
    rate_limits: RateLimits = RateLimits()
    gateway_rate_limits: RateLimits = RateLimits()
    tenant_rate_limits: RateLimits = RateLimits()
    sub_sessions: str | None = None

    def reply(self, *, max_payload_size: int, is_gateway: bool) -> dict[str, Any]:
        """Return the reply to getSessionLimits.

        Args:
            max_payload_size: The largest payload to announce, in bytes.
            is_gateway: Whether a gateway asked.

        Returns:
            The JSON document.
        """
        reply: dict[str, Any] = {
            "maxPayloadSize": max_payload_size,
            "maxInflightMessages": self.max_inflight_messages,
            "rateLimits": self.rate_limits.reply(),
        }
        if is_gateway:
            reply["gatewayRateLimits"] = self.gateway_rate_limits.reply()
        return reply


def windows(text: str | None) -> list[tuple[int, int]]:
    """Parse a rate limit into (capacity, seconds) pairs. Raise `ValueError` if the text is not a rate limit."""
    found = []
    for window in (text or "").removesuffix(",").split(",") if text else []:
        matched = _WINDOW.fullmatch(window)
        if matched is None or not int(matched[1]) or not int(matched[2]):
            raise ValueError(f"{text!r} is not a rate limit; use CAPACITY:SECONDS,... such as '100:1,3000:60'")
        found.append((int(matched[1]), int(matched[2])))
    return found


class Buckets:
    """The token buckets of one limit: initially full and refilled continuously."""

    def __init__(self, text: str | None, now: float) -> None:
        self.text: str | None = text or None
        self._windows = windows(text)
        self._levels = [float(capacity) for capacity, _ in self._windows]
        self._updated = now

    def take(self, amount: int, now: float) -> bool:
        """Take tokens from all buckets. Return False, and take none, if one bucket has too few."""
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
        """Fill the buckets of each changed limit; an unchanged limit keeps its level, as in the platform."""
        self._messages = _changed(self._messages, limits.messages, now)
        self._telemetry_messages = _changed(self._telemetry_messages, limits.telemetry_messages, now)
        self._telemetry_datapoints = _changed(self._telemetry_datapoints, limits.telemetry_datapoints, now)
        self._sub_sessions = _changed(self._sub_sessions, sub_sessions, now)

    def take(self, datapoints: int, now: float) -> bool:
        """Take one message and its datapoints. Return False if a limit is exceeded; the message token is then lost."""
        if datapoints:
            return self._telemetry_messages.take(1, now) and self._telemetry_datapoints.take(datapoints, now)
        return self._messages.take(1, now)

    def take_sub_session(self, now: float) -> bool:
        """Take one new sub-device session. Return False if the limit is exceeded."""
        return self._sub_sessions.take(1, now)


def _changed(buckets: Buckets, text: str | None, now: float) -> Buckets:
    return buckets if buckets.text == (text or None) else Buckets(text, now)


class Meter:
    """Counts messages against the limits. Buckets belong to devices, not to connections, so they outlive reconnects."""

    def __init__(self, limits: SessionLimits | None, *, enforces: bool, clock: Callable[[], float]) -> None:
        self._enforces = enforces
        self._clock = clock
        self._entities: dict[tuple[_Kind, Device | None], _Entity] = {}
        # True if the tenant has exceeded its API usage: every message then counts as exceeding a limit.
        self.transport_disabled = False
        self._limits = SessionLimits()
        self._counts = False
        self.configure(limits)

    def configure(self, limits: SessionLimits | None) -> None:
        """Apply limits immediately. Raise `ValueError` if a limit is not valid."""
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
        """Take tokens for one message from the tenant, then from the device or, for a sub-device, from its gateway.

        A message with datapoints counts as telemetry. Tokens already taken are lost if a later bucket has too few. Without
        a `device`, the message belongs to a sub-device that is being created.
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
        """Take tokens for a new sub-device session: one message to find or create the device, one to open the session."""
        if self._counts and not self.transport_disabled:
            now = self._clock()
            if not self._entity("gateway", gateway, now).take_sub_session(now):
                return False
        return self.take(None, gateway) and self.take(None, gateway)

    def forget(self, device: Device) -> None:
        """Forget the buckets of a deleted device."""
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
