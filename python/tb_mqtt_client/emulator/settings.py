"""Settings of an emulator that can be changed while it runs: hooks, limits and faults."""

from __future__ import annotations

import math
from collections.abc import Collection

from tb_mqtt_client.emulator.hooks import Hooks, OnClientRpc, OnConnect, OnEvent, OnPublish, OnSend
from tb_mqtt_client.emulator.limits import OVER_LIMIT, OverLimit, SessionLimits
from tb_mqtt_client.emulator.platform import Platform
from tb_mqtt_client.emulator.session import Session


class EmulatorSettings:
    """Hooks and settings of `Emulator`. A new value applies immediately, also to open connections, except
    `max_payload_size`.
    """

    def __init__(self, platform: Platform, hooks: Hooks, sessions: Collection[Session]) -> None:
        self._platform = platform
        self._hooks = hooks
        self._sessions = sessions

    @property
    def on_publish(self) -> OnPublish | None:
        """A function that is called with every PUBLISH before it is processed; it may return a ``Verdict``."""
        return self._hooks.on_publish

    @on_publish.setter
    def on_publish(self, hook: OnPublish | None) -> None:
        self._hooks.on_publish = hook

    @property
    def on_connect(self) -> OnConnect | None:
        """A function that is called with every CONNECT before it is processed; it may return a ``ConnectVerdict``."""
        return self._hooks.on_connect

    @on_connect.setter
    def on_connect(self, hook: OnConnect | None) -> None:
        self._hooks.on_connect = hook

    @property
    def on_send(self) -> OnSend | None:
        """A function that is called with every packet before it is sent; it may return a ``SendVerdict``."""
        return self._hooks.on_send

    @on_send.setter
    def on_send(self, hook: OnSend | None) -> None:
        self._hooks.on_send = hook

    @property
    def on_client_rpc(self) -> OnClientRpc | None:
        """The handler of client-side RPC: a function or coroutine function ``handler(device, method, params)``.

        It returns the reply, or raises ``ClientRpcError("text")`` to reply ``{"error": "text"}``. Without a handler the reply is
        ``{"error": "timeout"}`` after ``client_rpc_timeout`` seconds.
        """
        return self._hooks.on_client_rpc

    @on_client_rpc.setter
    def on_client_rpc(self, handler: OnClientRpc | None) -> None:
        self._hooks.on_client_rpc = handler

    @property
    def on_event(self) -> OnEvent | None:
        """A function that is called with a line of text for each connection, sub-device session and publish, such as ``print``."""
        return self._hooks.on_event

    @on_event.setter
    def on_event(self, hook: OnEvent | None) -> None:
        self._hooks.on_event = hook

    @property
    def limits(self) -> SessionLimits | None:
        """The limits that are announced and enforced.

        New limits apply immediately and are not announced to connected clients. An unchanged limit keeps its level, a changed
        one starts with full buckets, as in the platform.
        """
        return self._platform.limits

    @limits.setter
    def limits(self, limits: SessionLimits | None) -> None:
        self._platform.set_limits(limits)

    @property
    def max_payload_size(self) -> int:
        """The largest remaining length of a packet, in bytes. New sessions use a new value."""
        return self._platform.max_payload_size

    @max_payload_size.setter
    def max_payload_size(self, size: int) -> None:
        check_range("max_payload_size", size, 1)
        self._platform.max_payload_size = size

    @property
    def over_limit(self) -> OverLimit:
        """What happens to a message that exceeds a rate limit: ``"platform"``, ``"refuse"`` or ``"close"``; see `Emulator`."""
        return self._platform.over_limit

    @over_limit.setter
    def over_limit(self, over_limit: OverLimit) -> None:
        check_over_limit(over_limit)
        self._platform.over_limit = over_limit

    @property
    def puback_delay(self) -> float:
        """Seconds between an accepted message and its PUBACK."""
        return self._platform.puback_delay

    @puback_delay.setter
    def puback_delay(self, seconds: float) -> None:
        check_range("puback_delay", seconds, 0)
        self._platform.puback_delay = seconds

    @property
    def core_away(self) -> bool:
        """True if the platform's core does not respond, for example because its database is down.

        Every message that needs a new sub-device session is then refused with 0x80 after ``core_timeout`` seconds.
        """
        return self._platform.core_away

    @core_away.setter
    def core_away(self, away: bool) -> None:
        self._platform.core_away = away

    @property
    def core_timeout(self) -> float:
        """Seconds until a message is refused because the platform's core cannot open a sub-device session."""
        return self._platform.core_timeout

    @core_timeout.setter
    def core_timeout(self, seconds: float) -> None:
        check_range("core_timeout", seconds, 0)
        self._platform.core_timeout = seconds

    @property
    def refused_names(self) -> set[str]:
        """Names of sub-devices that the platform's core refuses; a mutable set.

        Names that are blank, longer than 255 characters or look like markup are always refused.
        """
        return self._platform.refused_names

    @property
    def sub_device_inactivity(self) -> float | None:
        """Seconds after a sub-device's last uplink until its session ends, without a notice; None for never."""
        return self._platform.sub_device_inactivity

    @sub_device_inactivity.setter
    def sub_device_inactivity(self, seconds: float | None) -> None:
        check_inactivity(seconds)
        self._platform.sub_device_inactivity = seconds
        for session in self._sessions:
            session.check_sub_device_inactivity()

    @property
    def api_usage_exceeded(self) -> bool:
        """True if the tenant has exceeded its API usage; every message then counts as exceeding a limit."""
        return self._platform.meter.transport_disabled

    @api_usage_exceeded.setter
    def api_usage_exceeded(self, exceeded: bool) -> None:
        self._platform.meter.transport_disabled = exceeded


def check_inactivity(seconds: float | None) -> None:
    """Raise `ValueError` if the value is not valid for `sub_device_inactivity`."""
    if seconds is not None and not seconds > 0:
        raise ValueError(f"sub_device_inactivity must be a positive number of seconds or None, not {seconds!r}")


def check_over_limit(over_limit: str) -> None:
    """Raise `ValueError` if the value is not valid for `over_limit`."""
    if over_limit not in OVER_LIMIT:
        raise ValueError(f"over_limit must be one of {', '.join(OVER_LIMIT)}, not {over_limit!r}")


def check_range(name: str, number: float, low: int, high: float = math.inf) -> None:
    """Raise `ValueError` if the number is out of range."""
    if not low <= number <= high:
        raise ValueError(f"{name} must be at least {low}{'' if high == math.inf else f' and at most {high}'}, not {number!r}")
