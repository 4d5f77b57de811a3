"""What of an emulator can be changed while it runs: hooks, limits and faults."""

from __future__ import annotations

import math
from collections.abc import Collection

from tb_mqtt_client.emulator.hooks import Hooks, OnClientRpc, OnConnect, OnEvent, OnPublish, OnSend
from tb_mqtt_client.emulator.limits import OVER_LIMIT, OverLimit, SessionLimits
from tb_mqtt_client.emulator.platform import Platform
from tb_mqtt_client.emulator.session import Session


class EmulatorSettings:
    """Hooks and settings of `Emulator`. A new value applies at once, to open connections too."""

    def __init__(self, platform: Platform, hooks: Hooks, sessions: Collection[Session]) -> None:
        self._platform = platform
        self._hooks = hooks
        self._sessions = sessions

    @property
    def on_publish(self) -> OnPublish | None:
        """Asked about every PUBLISH before the emulator decides; may return a ``Verdict``."""
        return self._hooks.on_publish

    @on_publish.setter
    def on_publish(self, hook: OnPublish | None) -> None:
        self._hooks.on_publish = hook

    @property
    def on_connect(self) -> OnConnect | None:
        """Asked about every CONNECT before the emulator decides; may return a ``ConnectVerdict``."""
        return self._hooks.on_connect

    @on_connect.setter
    def on_connect(self, hook: OnConnect | None) -> None:
        self._hooks.on_connect = hook

    @property
    def on_send(self) -> OnSend | None:
        """Asked about every packet that the emulator sends; may return a ``SendVerdict``."""
        return self._hooks.on_send

    @on_send.setter
    def on_send(self, hook: OnSend | None) -> None:
        self._hooks.on_send = hook

    @property
    def on_client_rpc(self) -> OnClientRpc | None:
        """Answers client-side RPC: ``handler(device, method, params)``, plain or a coroutine function, returns the reply.

        ``ClientRpcError("text")`` makes it ``{"error": "text"}``; without a handler it is ``{"error": "timeout"}`` in the end.
        """
        return self._hooks.on_client_rpc

    @on_client_rpc.setter
    def on_client_rpc(self, handler: OnClientRpc | None) -> None:
        self._hooks.on_client_rpc = handler

    @property
    def on_event(self) -> OnEvent | None:
        """Called with a line of text for each connection, sub-device session and publish: ``emulator.on_event = print``."""
        return self._hooks.on_event

    @on_event.setter
    def on_event(self, hook: OnEvent | None) -> None:
        self._hooks.on_event = hook

    @property
    def limits(self) -> SessionLimits | None:
        """The limits that are announced and enforced.

        Limits that are set while clients are connected apply at once and are not announced to them. A limit that is unchanged
        keeps its level, a changed one starts with full buckets, as in the platform.
        """
        return self._platform.limits

    @limits.setter
    def limits(self, limits: SessionLimits | None) -> None:
        self._platform.set_limits(limits)

    @property
    def over_limit(self) -> OverLimit:
        """What happens to a message over a rate limit, as in the constructor; a new value applies at once."""
        return self._platform.over_limit

    @over_limit.setter
    def over_limit(self, over_limit: OverLimit) -> None:
        check_over_limit(over_limit)
        self._platform.over_limit = over_limit

    @property
    def puback_delay(self) -> float:
        """Seconds between a message that is accepted and its PUBACK; a new value applies at once."""
        return self._platform.puback_delay

    @puback_delay.setter
    def puback_delay(self, seconds: float) -> None:
        check_range("puback_delay", seconds, 0)
        self._platform.puback_delay = seconds

    @property
    def core_away(self) -> bool:
        """Whether the platform's core does not answer, for example because its database is away.

        Each message that needs a new sub-device session is then refused with 0x80 after ``core_timeout`` seconds.
        """
        return self._platform.core_away

    @core_away.setter
    def core_away(self, away: bool) -> None:
        self._platform.core_away = away

    @property
    def core_timeout(self) -> float:
        """Seconds until an announcement is refused that the core does not answer; a new value applies at once."""
        return self._platform.core_timeout

    @core_timeout.setter
    def core_timeout(self, seconds: float) -> None:
        check_range("core_timeout", seconds, 0)
        self._platform.core_timeout = seconds

    @property
    def refused_names(self) -> set[str]:
        """Names of sub-devices that the core refuses, to add to and remove from.

        Names that are blank, longer than 255 characters or look like markup are refused without being in it.
        """
        return self._platform.refused_names

    @property
    def sub_device_inactivity(self) -> float | None:
        """Seconds after a sub-device's last uplink until its session ends, without a notice; None for never.

        A new value applies at once, to open sessions too.
        """
        return self._platform.sub_device_inactivity

    @sub_device_inactivity.setter
    def sub_device_inactivity(self, seconds: float | None) -> None:
        check_inactivity(seconds)
        self._platform.sub_device_inactivity = seconds
        for session in self._sessions:
            session.check_sub_device_inactivity()

    @property
    def api_usage_exceeded(self) -> bool:
        """Whether the tenant has used up its API usage: every message is then treated as one over a limit."""
        return self._platform.meter.transport_disabled

    @api_usage_exceeded.setter
    def api_usage_exceeded(self, exceeded: bool) -> None:
        self._platform.meter.transport_disabled = exceeded


def check_inactivity(seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise ValueError(f"sub_device_inactivity must be a positive number of seconds or None, not {seconds!r}")


def check_over_limit(over_limit: str) -> None:
    if over_limit not in OVER_LIMIT:
        raise ValueError(f"over_limit must be one of {', '.join(OVER_LIMIT)}, not {over_limit!r}")


def check_range(name: str, number: float, low: int, high: float = math.inf) -> None:
    if not low <= number <= high:
        raise ValueError(f"{name} must be at least {low}{'' if high == math.inf else f' and at most {high}'}, not {number!r}")
