"""The emulator: listens on loopback, and gives tests and programs a view of what the platform saw."""

from __future__ import annotations

import asyncio
import json
import ssl
from types import TracebackType
from typing import Any, Self

from tb_mqtt_client.emulator.hooks import Hooks, OnPublish
from tb_mqtt_client.emulator.platform import (
    DEFAULT_MAX_PAYLOAD_SIZE,
    BasicCredentials,
    Counters,
    Device,
    Platform,
    SessionLimits,
)
from tb_mqtt_client.emulator.session import Session


class Emulator:
    """A stand-in for the platform's MQTT endpoint.

    An async context manager: it listens inside, and at the end every connection is closed and an error inside the emulator is
    raised. Left out so far: attributes and RPC on request, claiming, provisioning, firmware, and the enforcing of rate limits,
    which are only announced; and the unsolicited PUBACK for QoS 0 on gateway topics.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: SessionLimits | None = SessionLimits(),  # noqa: B008  # frozen
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        accept_any_token: bool = False,
        keep_data: bool = True,
        history_limit: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """``port`` 0: a free one. ``limits=None``: a server before 3.8, which never answers ``getSessionLimits``.

        ``max_payload_size``: bytes of the remaining length. ``keep_data=False``: count only. ``history_limit``: records a device.
        """
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        self._platform = Platform(
            limits=limits,
            max_payload_size=max_payload_size,
            accept_any_token=accept_any_token,
            keep_data=keep_data,
            history_limit=history_limit,
        )
        self._hooks = Hooks()
        self._sessions: set[Session] = set()
        self._errors: list[Exception] = []
        self._server: asyncio.Server | None = None

    @property
    def on_publish(self) -> OnPublish | None:
        """Asked about every PUBLISH before the emulator decides; may return a ``Verdict``."""
        return self._hooks.on_publish

    @on_publish.setter
    def on_publish(self, hook: OnPublish | None) -> None:
        self._hooks.on_publish = hook

    @property
    def counters(self) -> Counters:
        """Counts of all devices together."""
        return self._platform.total

    @property
    def devices(self) -> dict[str, Device]:
        """All devices by name, those behind gateways included."""
        return self._platform.devices

    @property
    def limits(self) -> SessionLimits | None:
        """What ``getSessionLimits`` is answered with; may be changed between sessions."""
        return self._platform.limits

    @limits.setter
    def limits(self, limits: SessionLimits | None) -> None:
        self._platform.limits = limits

    def add_device(self, credentials: str | BasicCredentials, name: str | None = None) -> Device:
        """Register a device by its access token or its basic credentials. Raises ``ValueError`` for what is taken or empty."""
        return self._platform.add(credentials, name, is_gateway=False)

    def add_gateway(self, credentials: str | BasicCredentials, name: str | None = None) -> Device:
        """Register a gateway."""
        return self._platform.add(credentials, name, is_gateway=True)

    def device(self, name_or_token: str) -> Device:
        """A device and what came from it. Raises ``LookupError`` when there is none."""
        return self._platform.find(name_or_token)

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
        """Close the port and every connection, without a word to the clients, as a server that is killed."""
        if self._server is None:
            return
        self._server.close()
        sessions = list(self._sessions)
        for session in sessions:
            session.abort()
        for session in sessions:
            await session.ended.wait()
        await self._server.wait_closed()
        self._server = None

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
        return Session(self._platform, self._hooks, self._sessions, self._errors.append)
