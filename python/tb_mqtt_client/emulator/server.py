"""The emulator: listens on loopback, and gives tests and programs a view of what the platform saw."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from tb_mqtt_client.emulator import attributes
from tb_mqtt_client.emulator.background import Background
from tb_mqtt_client.emulator.codec import SERVER_SHUTTING_DOWN
from tb_mqtt_client.emulator.devices import DEFAULT_PROFILE, Counters, Device, RpcResponse
from tb_mqtt_client.emulator.hooks import Hooks
from tb_mqtt_client.emulator.limits import OverLimit, SessionLimits
from tb_mqtt_client.emulator.ota import OtaKind, OtaPackage
from tb_mqtt_client.emulator.platform import DEFAULT_MAX_PAYLOAD_SIZE, NEWEST, Platform, Version, server_version
from tb_mqtt_client.emulator.provisioning import ProvisionProfile, Strategy
from tb_mqtt_client.emulator.registry import Credentials
from tb_mqtt_client.emulator.session import Session
from tb_mqtt_client.emulator.settings import EmulatorSettings, check_inactivity, check_over_limit, check_range


class Emulator(EmulatorSettings):
    """An emulator of the platform's MQTT endpoint.

    An async context manager that listens while it is entered. On exit every connection is closed, and an error inside the
    emulator or a hook is raised. Methods take a device by its name or its access token; devices behind gateways are devices
    like all others.
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
        """Prepare an emulator; it listens from `start` on.

        Args:
            host: The address to listen on.
            port: The port to listen on; 0 takes a free one.
            version: The version of the platform to act as, one of ``VERSIONS``.
            limits: The limits to announce and to enforce. With ``None``, ``getSessionLimits`` is an ordinary RPC, as in servers
                before 3.8.
            enforce_limits: Whether limits are enforced, or announced only.
            max_payload_size: The largest remaining length of a packet, in bytes.
            max_string_length: Characters of a value beyond which a payload is refused; None for any number.
            max_devices: The number of devices that the tenant may have; None for any number.
            accept_any_token: Whether an unknown access token makes a new device.
            keep_data: Whether telemetry and attributes are kept, or counted only.
            history_limit: The number of telemetry records kept for each device; None for all.
            ssl_context: Serve TLS with this context.
            client_rpc_timeout: Seconds until a client-side RPC without a reply is answered with a timeout.
            provision_timeout: Seconds until a provisioning session is closed after its answer.
            inactivity_timeout: Seconds until a client that sends nothing is disconnected; None for never.
            over_limit: What happens to a message over a rate limit: ``"platform"`` does what the platform of this version does,
                ``"refuse"`` sends PUBACK 0x97 and keeps the connection, ``"close"`` closes the connection without a reason.
            puback_delay: Seconds between a message that is accepted and its PUBACK.
            core_timeout: Seconds until an announcement is refused that the platform's core does not answer.
            sub_device_inactivity: Seconds after a sub-device's last uplink until its session ends; None for never.
            clock: Returns the seconds by which limits are refilled and the inactivity of sub-devices is measured.

        Raises:
            ValueError: An unknown version, limits that cannot be counted, or a number out of range.
        """
        check_over_limit(over_limit)
        check_range("puback_delay", puback_delay, 0)
        check_range("core_timeout", core_timeout, 0)
        check_inactivity(sub_device_inactivity)
        check_range("port", port, 0, 65535)
        check_range("max_payload_size", max_payload_size, 1)
        for name, number in (
            ("max_string_length", max_string_length),
            ("max_devices", max_devices),
            ("history_limit", history_limit),
        ):
            check_range(name, 0 if number is None else number, 0)
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        platform = Platform(
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
            monotonic=clock,
        )
        self._open_sessions: set[Session] = set()
        super().__init__(platform, Hooks(), self._open_sessions)
        self._errors: list[Exception] = []
        self._background = Background(self._errors.append)
        self._server: asyncio.Server | None = None

    @property
    def counters(self) -> Counters:
        """Counts of all devices together."""
        return self._platform.total

    @property
    def devices(self) -> dict[str, Device]:
        """All devices by name, those behind gateways included."""
        return self._platform.registry.devices

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
        """Send a gateway a notice on ``v1/gateway/disconnect`` that the platform has trouble with a device.

        The device's session goes on.

        Args:
            device: The name or access token of the device.
            reason: 128, 129 or 150.

        Returns:
            False if the device is not connected through a gateway, or its gateway does not speak MQTT 5.
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
        self._server = await loop.create_server(self.protocol, self.host, self.port, ssl=self._ssl_context)
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

    def protocol(self) -> Session:
        """Return the server-side protocol of a new connection, to serve a transport that the emulator did not accept itself."""
        return Session(self._platform, self._hooks, self._open_sessions, self._background, self._errors.append)
