"""The emulator: listens on loopback and shows tests and programs the platform's side."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

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
    """An emulator of ThingsBoard's MQTT endpoint.

    Use it as an async context manager: it starts on entry and stops on exit. If there were errors inside the emulator or in a
    hook, the exit raises them as an `ExceptionGroup`. Methods accept the name or the access token of a device. Sub-devices are
    devices like all others.
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
        rpc_ack_timeout: float = 10.0,
        provision_timeout: float = 60.0,
        inactivity_timeout: float | None = 600.0,
        over_limit: OverLimit = "platform",
        puback_delay: float = 0.0,
        core_timeout: float = 13.0,
        sub_device_inactivity: float | None = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an emulator; `start`, or entering the context, makes it listen.

        Args:
            host: The address to listen on.
            port: The port to listen on; 0 picks a free port.
            version: The platform version to emulate, one of ``VERSIONS``.
            limits: The limits to announce and to enforce. With ``None``, ``getSessionLimits`` is an ordinary RPC request, as before
                version 3.8.
            enforce_limits: Whether limits are enforced; if not, they are only announced.
            max_payload_size: The largest remaining length of a packet, in bytes.
            max_string_length: The largest number of characters in a string value; None for no limit. Longer values are refused.
            max_devices: The largest number of devices of the tenant, sub-devices included; None for no limit.
            accept_any_token: Whether an unknown access token creates a device.
            keep_data: Whether telemetry and attributes are kept; if not, they are only counted.
            history_limit: The number of telemetry records to keep for each device; None for all.
            ssl_context: The context to serve TLS with; None for no TLS.
            client_rpc_timeout: Seconds until a client-side RPC request without a reply gets a timeout error.
            rpc_ack_timeout: Seconds until a server-side RPC request without a PUBACK is given up.
            provision_timeout: Seconds from the provisioning response until its connection is closed.
            inactivity_timeout: Seconds until a client that sends nothing is disconnected; None for never.
            over_limit: What happens to a message that exceeds a rate limit. ``"platform"`` does what this platform version does,
                ``"refuse"`` sends PUBACK 0x97 and keeps the connection open, ``"close"`` closes the connection without a reason.
            puback_delay: Seconds between an accepted message and its PUBACK.
            core_timeout: Seconds until a message is refused because the platform's core cannot open a sub-device session.
            sub_device_inactivity: Seconds after a sub-device's last uplink until its session ends; None for never.
            clock: Returns the time in seconds, for refilling limits and measuring the inactivity of sub-devices.

        Raises:
            ValueError: The version is unknown, a limit is not valid, or a number is out of range.
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
        self.port: int = port
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
            rpc_ack_timeout=rpc_ack_timeout,
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
        self._accepted_sessions: WeakSet[Session] = WeakSet()
        self._server: asyncio.Server | None = None

    @property
    def counters(self) -> Counters:
        """The counters of all devices together."""
        return self._platform.total

    @property
    def devices(self) -> dict[str, Device]:
        """All devices by name, sub-devices included."""
        return self._platform.registry.devices

    def add_device(self, credentials: Credentials, name: str | None = None, *, profile: str = DEFAULT_PROFILE) -> Device:
        """Register a device.

        Args:
            credentials: The access token, or basic or X.509 credentials.
            name: The name; by default the access token, the user name or the client id.
            profile: The device profile.

        Returns:
            The device.

        Raises:
            ValueError: The name or the credentials are empty or already in use.
        """
        return self._platform.registry.add(credentials, name, is_gateway=False, profile=profile)

    def add_gateway(self, credentials: Credentials, name: str | None = None, *, profile: str = DEFAULT_PROFILE) -> Device:
        """Register a gateway.

        Args:
            credentials: The access token, or basic or X.509 credentials.
            name: The name; by default the access token, the user name or the client id.
            profile: The device profile.

        Returns:
            The gateway.

        Raises:
            ValueError: The name or the credentials are empty or already in use.
        """
        return self._platform.registry.add(credentials, name, is_gateway=True, profile=profile)

    def add_provision_profile(
        self, key: str, secret: str, *, strategy: Strategy = "ALLOW_CREATE_NEW_DEVICES", profile: str = DEFAULT_PROFILE
    ) -> None:
        """Let devices provision themselves on ``/provision/request``.

        Args:
            key: The provision device key.
            secret: The provision device secret.
            strategy: The provisioning strategy. For ``CHECK_PRE_PROVISIONED_DEVICES`` the devices are those that
                ``add_device(..., profile=profile)`` has registered.
            profile: The device profile of the devices.

        Raises:
            ValueError: The key or the secret is empty, the key is already in use, or the strategy is unknown.
        """
        self._platform.provisioning.add(ProvisionProfile(key, secret, strategy, profile))

    def device(self, name_or_token: str) -> Device:
        """Return a device, a gateway or a sub-device.

        Args:
            name_or_token: The name or the access token.

        Returns:
            The device, with the data that it sent.

        Raises:
            LookupError: There is no such device.
        """
        return self._platform.registry.find(name_or_token)

    async def set_shared_attributes(self, device: str, values: Mapping[str, Any]) -> bool:
        """Store shared attributes and send the update.

        Args:
            device: The name or access token of the device.
            values: The attribute values by key.

        Returns:
            False if the device is not connected, or not subscribed to shared attributes.

        Raises:
            LookupError: There is no such device.
        """
        return attributes.set_shared(self.device(device), values)

    async def delete_shared_attributes(self, device: str, keys: Iterable[str]) -> bool:
        """Delete shared attributes and send the deleted keys.

        Args:
            device: The name or access token of the device.
            keys: The attribute keys.

        Returns:
            False if the device is not connected, or not subscribed to shared attributes.

        Raises:
            LookupError: There is no such device.
        """
        return attributes.delete_shared(self.device(device), keys)

    async def call_rpc(self, device: str, method: str, params: Any = None, *, oneway: bool = False, timeout: float = 10.0) -> Any:
        """Send a server-side RPC request and wait for the reply.

        A device that is not subscribed gets the request when it subscribes.

        Args:
            device: The name or access token of the device.
            method: The method name.
            params: The parameters, a value that JSON can represent.
            oneway: Whether the request expects no reply.
            timeout: Seconds to wait for the reply, or for a one-way request until it is sent.

        Returns:
            The parsed reply, or its text if it is not JSON; None for a one-way request.

        Raises:
            LookupError: There is no such device.
            TimeoutError: There was no reply within the timeout, or no PUBACK within ``rpc_ack_timeout``.
        """
        return await self._platform.rpc.call(self.device(device), method, params, oneway=oneway, timeout=timeout)

    def rpc_responses(self, device: str) -> list[RpcResponse]:
        """Return the received replies to server-side RPC, late and unexpected ones included.

        Args:
            device: The name or access token of the device.

        Returns:
            The replies in order of arrival.

        Raises:
            LookupError: There is no such device.
        """
        return list(self.device(device).rpc_responses)

    def restart_rpc_ids(self, device: str) -> None:
        """Restart the device's RPC request ids at 0, as a restart of the server does; pending requests get no reply.

        Args:
            device: The name or access token of the device.

        Raises:
            LookupError: There is no such device.
        """
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
        """Assign firmware or software: send the deletion of attributes that the package does not have, and the update.

        Args:
            device: The name or access token of the device.
            package: The package.
            update_first: Whether to send the update before the deletion; the platform uses either order.
            gap: Seconds between the two messages.
            missing: Keys such as ``"fw_size"`` that attribute requests do not find during the gap, because the platform stores one
                attribute after the other.

        Returns:
            False if the device is not connected, or not subscribed to shared attributes.

        Raises:
            LookupError: There is no such device.
        """
        packages = self._platform.packages
        return await packages.assign(self.device(device), package, update_first=update_first, gap=gap, missing=missing)

    async def unassign_package(self, device: str, kind: OtaKind = "fw") -> bool:
        """Unassign a package and delete its attributes.

        Args:
            device: The name or access token of the device.
            kind: ``"fw"`` for firmware or ``"sw"`` for software.

        Returns:
            False if the device is not connected, or not subscribed to shared attributes.

        Raises:
            LookupError: There is no such device.
        """
        return self._platform.packages.unassign(self.device(device), kind)

    def evict_package_cache(self) -> None:
        """Drop the cached data of all packages: known request ids then get empty chunks, a new id loads the data again."""
        self._platform.packages.evict()

    async def rename_device(self, device: str, name: str) -> None:
        """Rename a device; the gateway that announced it is notified.

        Args:
            device: The name or access token of the device.
            name: The new name.

        Raises:
            LookupError: There is no such device.
            ValueError: The new name is empty or already in use.
        """
        self._platform.rename(self.device(device), name)

    async def delete_device(self, device: str) -> None:
        """Delete a device. Its connection is closed with 0x98, or the gateway that announced it is notified.

        Args:
            device: The name or access token of the device.

        Raises:
            LookupError: There is no such device.
        """
        self._platform.delete(self.device(device))

    async def send_disconnect_notice(self, device: str, reason: int) -> bool:
        """Notify a gateway on ``v1/gateway/disconnect`` of a problem with a sub-device, whose session continues.

        Args:
            device: The name or access token of the device.
            reason: 128, 129 or 150.

        Returns:
            False if the device is not connected through a gateway, or its gateway does not use MQTT 5.

        Raises:
            LookupError: There is no such device.
        """
        found = self.device(device)
        return found.session is not None and found.session.send_disconnect_notice(found, reason)

    async def publish_to(self, name_or_token: str, topic: str, payload: Any) -> bool:
        """Send a message to a client.

        Args:
            name_or_token: The name or access token of the device.
            topic: The topic.
            payload: The payload as bytes, or a value to encode as JSON.

        Returns:
            False if the device is not connected, or the topic needs a subscription that it does not have.

        Raises:
            LookupError: There is no such device.
        """
        session = self.device(name_or_token).session
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return session is not None and session.send(topic, data)

    async def disconnect_device(self, name_or_token: str, reason_code: int | None = None) -> None:
        """Close a device's connection and wait until it is closed.

        Args:
            name_or_token: The name or access token of the device.
            reason_code: The reason code of a DISCONNECT to send first; without one the connection just closes.

        Raises:
            LookupError: There is no such device.
        """
        session = self.device(name_or_token).session
        if session is not None:
            session.close(reason_code)
            await session.ended.wait()

    async def start(self) -> None:
        """Start listening; after ``stop`` on the same port as before.

        Raises:
            OSError: The address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self.host, self.port, ssl=self._ssl_context)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and close all connections without a DISCONNECT, as the platform does when it is stopped or killed."""
        if self._server is None:
            return
        await self._stop_accepting(self._server)
        self._server.close()
        sessions = list(self._sessions)
        # Some may have been accepted and have no transport yet; these end when they get one.
        for session in {*sessions, *self._accepted_sessions}:
            session.abort()
        await self._background.stop()
        for session in sessions:
            await session.ended.wait()
        await self._server.wait_closed()
        self._server = None

    async def _stop_accepting(self, server: asyncio.Server) -> None:
        """Let asyncio finish with connections that it has accepted: it leaks those that it has not when the server closes."""
        loop = asyncio.get_running_loop()
        for listening in server.sockets:
            # Loops that accept in another way have no reader here, or do not know readers at all.
            with suppress(NotImplementedError):
                loop.remove_reader(listening)
        await asyncio.sleep(0)

    def _accept(self) -> asyncio.Protocol:
        session = self.protocol()
        self._accepted_sessions.add(session)
        return session

    async def rolling_restart(self, seconds: float, *, reason_code: int = SERVER_SHUTTING_DOWN) -> None:
        """Disconnect every client, and then each client that publishes or subscribes until the restart is over.

        The port stays open and new connections are accepted, as by a load balancer in front of nodes that restart in turn.

        Args:
            seconds: The duration of the restart.
            reason_code: The reason code of the DISCONNECT.
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
        """Create the server side of one connection, to serve a transport of the caller.

        Returns:
            The protocol of a new connection; call its `connection_made` with the transport.
        """
        return Session(self._platform, self._hooks, self._open_sessions, self._background, self._errors.append)
