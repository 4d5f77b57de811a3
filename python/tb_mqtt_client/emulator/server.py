"""The emulator: listens on loopback, and gives tests and programs a view of what the platform saw."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from tb_mqtt_client.emulator import attributes
from tb_mqtt_client.emulator.background import Background
from tb_mqtt_client.emulator.credentials import Credentials
from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE, Counters, Device, RpcResponse
from tb_mqtt_client.emulator.hooks import Hooks, OnClientRpc, OnConnect, OnEvent, OnPublish, OnSend
from tb_mqtt_client.emulator.limits import OVER_LIMIT, OverLimit, SessionLimits
from tb_mqtt_client.emulator.ota import OtaKind, OtaPackage
from tb_mqtt_client.emulator.platform import DEFAULT_MAX_PAYLOAD_SIZE, Platform
from tb_mqtt_client.emulator.provisioning import ProvisionProfile, Strategy
from tb_mqtt_client.emulator.reason_codes import SERVER_SHUTTING_DOWN
from tb_mqtt_client.emulator.session import Session
from tb_mqtt_client.emulator.versions import NEWEST, Version, server_version


class Emulator:
    """A stand-in for the platform's MQTT endpoint.

    An async context manager: it listens inside, and at the end every connection is closed and an error inside the emulator is
    raised. A device is named by its name or its access token wherever a method wants one; those behind gateways are devices
    as all others.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        version: Version = NEWEST,
        limits: SessionLimits | None = SessionLimits(),  # noqa: B008  # frozen
        enforce_limits: bool = True,
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        max_string_length: int | None = None,
        max_devices: int | None = None,
        accept_any_token: bool = False,
        keep_data: bool = True,
        history_limit: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        client_rpc_timeout: float = 60.0,
        provision_timeout: float = 60.0,
        inactivity_timeout: float | None = 600.0,
        over_limit: OverLimit = "platform",
        puback_delay: float = 0.0,
        core_timeout: float = 13.0,
        sub_device_inactivity: float | None = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``port`` 0: a free one. ``version``: of the platform, one of ``VERSIONS``.

        ``limits=None``: ``getSessionLimits`` is an ordinary RPC, as in servers before 3.8. ``enforce_limits=False``: limits are
        announced and not counted. ``max_payload_size``: bytes of the remaining length. ``max_string_length``: characters of a
        value, beyond which a payload is refused. ``max_devices``: of the tenant. ``keep_data=False``: count only.
        ``history_limit``: records kept a device. Seconds: ``client_rpc_timeout`` until a client-side RPC is answered with a
        timeout, ``provision_timeout`` until a provisioning session is closed after its answer, ``inactivity_timeout`` until a
        client that says nothing is disconnected, ``sub_device_inactivity`` after a sub-device's last uplink until its session ends,
        ``core_timeout`` until an announcement is refused that the core does not answer, ``puback_delay`` between a message that
        is accepted and its PUBACK.

        ``over_limit``: what happens to a message over a rate limit. With ``"platform"`` the emulator does what the platform of
        this version does; with ``"refuse"`` it sends PUBACK 0x97 and keeps the connection; with ``"close"`` it closes the
        connection without giving a reason. ``clock``: returns the seconds that limits are counted by.

        Raises ``ValueError`` for an unknown version, for limits that cannot be counted, and for numbers out of range.
        """
        _check_over_limit(over_limit)
        _check_range("puback_delay", puback_delay, 0)
        _check_range("core_timeout", core_timeout, 0)
        _check_inactivity(sub_device_inactivity)
        _check_range("port", port, 0, 65535)
        _check_range("max_payload_size", max_payload_size, 1)
        for name, number in (
            ("max_string_length", max_string_length),
            ("max_devices", max_devices),
            ("history_limit", history_limit),
        ):
            _check_range(name, 0 if number is None else number, 0)
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        self._platform = Platform(
            version=server_version(version),
            limits=limits,
            max_payload_size=max_payload_size,
            max_string_length=max_string_length,
            accept_any_token=accept_any_token,
            keep_data=keep_data,
            history_limit=history_limit,
            client_rpc_timeout=client_rpc_timeout,
            provision_timeout=provision_timeout,
            inactivity_timeout=inactivity_timeout,
            max_devices=max_devices,
            enforce_limits=enforce_limits,
            over_limit=over_limit,
            puback_delay=puback_delay,
            core_timeout=core_timeout,
            sub_device_inactivity=sub_device_inactivity,
            limits_clock=clock,
        )
        self._hooks = Hooks()
        self._sessions: set[Session] = set()
        self._errors: list[Exception] = []
        self._background = Background(self._errors.append)
        self._server: asyncio.Server | None = None

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
    def counters(self) -> Counters:
        """Counts of all devices together."""
        return self._platform.total

    @property
    def devices(self) -> dict[str, Device]:
        """All devices by name, those behind gateways included."""
        return self._platform.registry.devices

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
        _check_over_limit(over_limit)
        self._platform.over_limit = over_limit

    @property
    def puback_delay(self) -> float:
        """Seconds between a message that is accepted and its PUBACK; a new value applies at once."""
        return self._platform.puback_delay

    @puback_delay.setter
    def puback_delay(self, seconds: float) -> None:
        _check_range("puback_delay", seconds, 0)
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
        _check_range("core_timeout", seconds, 0)
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
        _check_inactivity(seconds)
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

    def add_device(self, credentials: Credentials, name: str | None = None, *, profile: str = DEFAULT_PROFILE) -> Device:
        """Register a device by its access token, basic credentials or certificate.

        Raises ``ValueError`` for what is taken or empty.
        """
        return self._platform.registry.add(credentials, name, is_gateway=False, profile=profile)

    def add_gateway(self, credentials: Credentials, name: str | None = None, *, profile: str = DEFAULT_PROFILE) -> Device:
        """Register a gateway."""
        return self._platform.registry.add(credentials, name, is_gateway=True, profile=profile)

    def add_provision_profile(
        self, key: str, secret: str, *, strategy: Strategy = "ALLOW_CREATE_NEW_DEVICES", profile: str = DEFAULT_PROFILE
    ) -> None:
        """Let devices register themselves on ``/provision/request``, as devices of this profile.

        Pre-provisioned devices are those of ``add_device(..., profile=profile)``. Raises ``ValueError`` for a key that is taken.
        """
        self._platform.provisioning.add(ProvisionProfile(key, secret, strategy, profile))

    def device(self, name_or_token: str) -> Device:
        """A device and what came from it. Raises ``LookupError`` when there is none."""
        return self._platform.registry.find(name_or_token)

    async def set_shared_attributes(self, device: str, values: Mapping[str, Any]) -> bool:
        """Store shared attributes and send the update. False when the device is not connected, or not subscribed."""
        return attributes.set_shared(self.device(device), values)

    async def delete_shared_attributes(self, device: str, keys: Iterable[str]) -> bool:
        """Delete shared attributes and send their keys. False when the device is not connected, or not subscribed."""
        return attributes.delete_shared(self.device(device), keys)

    async def call_rpc(self, device: str, method: str, params: Any = None, *, oneway: bool = False, timeout: float = 10.0) -> Any:
        """Call a method of the device and return its answer, parsed; None for a one-way call, as soon as it is sent.

        A device that is not subscribed gets the call when it subscribes. Raises ``TimeoutError`` after ``timeout`` seconds, or
        when the device did not acknowledge the call within 10 seconds.
        """
        return await self._platform.rpc.call(self.device(device), method, params, oneway=oneway, timeout=timeout)

    def rpc_responses(self, device: str) -> list[RpcResponse]:
        """The device's answers to RPC as they came, late and unasked ones included."""
        return list(self.device(device).rpc_responses)

    def restart_rpc_ids(self, device: str) -> None:
        """Number the device's RPC from 0 again, as after a restart of the server; calls without an answer get none."""
        self._platform.rpc.restart(self.device(device))

    async def assign_package(
        self,
        device: str,
        package: OtaPackage,
        *,
        update_first: bool = False,
        gap: float = 0.0,
        missing: Collection[str] = (),
    ) -> bool:
        """Assign firmware or software: send a deletion of the attributes that it does not have, and the update.

        Args:
            device: The name or access token of the device.
            package: The package.
            update_first: Send the update before the deletion; the platform does either.
            gap: Seconds between the two messages.
            missing: Keys such as ``"fw_size"`` that attribute requests do not find during the gap: the platform stores one
                attribute after the other.

        Returns:
            False if the device is not connected, or not subscribed to shared attributes.
        """
        packages = self._platform.packages
        return await packages.assign(self.device(device), package, update_first=update_first, gap=gap, missing=missing)

    async def unassign_package(self, device: str, kind: OtaKind = "fw") -> bool:
        """Take a package away. False when the device is not connected, or not subscribed to shared attributes."""
        return self._platform.packages.unassign(self.device(device), kind)

    def evict_package_cache(self) -> None:
        """Lose the data of all packages: requests under a known id get empty chunks, a new id loads the data again."""
        self._platform.packages.evict()

    async def rename_device(self, device: str, name: str) -> None:
        """Rename a device; a gateway that announced it gets the notice. Raises ``ValueError`` for a name that is taken."""
        self._platform.rename(self.device(device), name)

    async def delete_device(self, device: str) -> None:
        """Delete a device: its connection ends with 0x98, or the gateway that announced it gets the notice."""
        self._platform.delete(self.device(device))

    async def send_disconnect_notice(self, device: str, reason: int) -> bool:
        """Tell a gateway on ``v1/gateway/disconnect`` that the platform has trouble with a device: 128, 129 or 150.

        The sub-session goes on. False when the device is not connected through a gateway, or the gateway is no MQTT 5 client.
        """
        found = self.device(device)
        return found.session is not None and found.session.send_disconnect_notice(found, reason)

    async def publish_to(self, name_or_token: str, topic: str, payload: Any) -> bool:
        """Send a message (bytes, or what JSON can carry). False when the device is not connected, or not subscribed."""
        session = self.device(name_or_token).session
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return session is not None and session.send(topic, data)

    async def disconnect_device(self, name_or_token: str, reason_code: int | None = None) -> None:
        """End a device's connection, after a DISCONNECT when a reason is given."""
        session = self.device(name_or_token).session
        if session is not None:
            session.close(reason_code)
            await session.ended.wait()

    async def start(self) -> None:
        """Listen; again on the same port after ``stop``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, self.host, self.port, ssl=self._ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection, without a DISCONNECT, as the platform does when it is stopped or killed."""
        if self._server is None:
            return
        self._server.close()
        sessions = list(self._sessions)
        for session in sessions:
            session.abort()
        await self._background.stop()
        for session in sessions:
            await session.ended.wait()
        await self._server.wait_closed()
        self._server = None

    async def rolling_restart(self, seconds: float, *, reason_code: int = SERVER_SHUTTING_DOWN) -> None:
        """Disconnect every client with a reason code, and for some seconds each that publishes or subscribes.

        The port stays open and CONNECT is answered, as by a load balancer in front of nodes that restart one by one.
        """
        self._platform.restart_code = reason_code
        try:
            for session in list(self._sessions):
                session.close(reason_code)
            await asyncio.sleep(seconds)
        finally:
            self._platform.restart_code = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if self._errors and exc is None:
            raise ExceptionGroup("errors inside the emulator", self._errors)

    def _session(self) -> Session:
        return Session(self._platform, self._hooks, self._sessions, self._background, self._errors.append)


def _check_inactivity(seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise ValueError(f"sub_device_inactivity must be a positive number of seconds or None, not {seconds!r}")


def _check_over_limit(over_limit: str) -> None:
    if over_limit not in OVER_LIMIT:
        raise ValueError(f"over_limit must be one of {', '.join(OVER_LIMIT)}, not {over_limit!r}")


def _check_range(name: str, number: float, low: int, high: float = math.inf) -> None:
    if not low <= number <= high:
        raise ValueError(f"{name} must be at least {low}{'' if high == math.inf else f' and at most {high}'}, not {number!r}")
