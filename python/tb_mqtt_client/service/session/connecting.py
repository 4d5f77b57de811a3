"""One attempt to connect a gmqtt client, from the name of the server to the CONNACK."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gmqtt import Client, MQTTConnectError

from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer
from tb_mqtt_client.common.network.connection_failure import Failure
from tb_mqtt_client.common.network.route import Route, Step, open_transport
from tb_mqtt_client.common.timing import running_timeout
from tb_mqtt_client.service.delivery.transport import SessionEnd


class ConnectionAttempt:
    """One attempt to connect to a server. It records its current step, so that an error can name the step."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._step = Step.NAME

    async def open_transport(self, protocol_factory: Callable[[], Any]) -> tuple[Any, Any]:
        """Open the transport, and return it with its protocol. See ``common/network/route.py``."""
        return await open_transport(protocol_factory, self._route, self._reached)

    async def connect(
        self, client: Client, keepalive: int, version: int, lost: asyncio.Event, end: Callable[[], SessionEnd]
    ) -> None:
        """Connect, and wait for the CONNACK.

        Args:
            client: The gmqtt client; it opens its transport with ``open_transport`` of this attempt.
            keepalive: Seconds without a packet after which a PINGREQ is sent.
            version: 5, or 4 for MQTT 3.1.1.
            lost: Set when the connection has ended. gmqtt's own ``connect()`` would wait forever if the server closed the
                connection before its CONNACK.
            end: Returns how the connection ended.

        Raises:
            OSError: The server cannot be reached, or the connection was lost before the CONNACK. ``ssl.SSLError`` and
                ``socket.gaierror`` are ``OSError``.
            TimeoutError: The time limit has passed; the message names the step.
            ConnectionRefusedByServer: The CONNACK is a refusal.
            ProxyRefusedError: The proxy does not connect to the server.
            ConnectionLostError: The server closed the connection right after its CONNACK.
        """
        try:
            await self._connect(client, keepalive, version, lost, end)
        except OSError as error:
            # Without the CancelledError with which asyncio ends a wait, which does not help the caller.
            timed_out = isinstance(error, TimeoutError) and error.errno is None
            raise Failure.of(self._route, self._step, error).raised() from (None if timed_out else error)
        if lost.is_set():
            raise ConnectionLostError(f"{self._route} closed the connection right after its CONNACK ({end().cause})")

    def _reached(self, step: Step) -> None:
        self._step = step

    async def _connect(
        self, client: Client, keepalive: int, version: int, lost: asyncio.Event, end: Callable[[], SessionEnd]
    ) -> None:
        server, context = self._route.server, self._route.ssl_context
        work = client.connect(server.host, server.port, ssl=context or False, keepalive=keepalive, version=version)
        connecting, losing = asyncio.ensure_future(work), asyncio.ensure_future(lost.wait())
        try:
            async with running_timeout(self._route.timeout):
                await asyncio.wait({connecting, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise ConnectionResetError(f"{server} closed the connection before its CONNACK ({end().cause})") from end().error
            try:
                connecting.result()
            except MQTTConnectError as refusal:
                raise ConnectionRefusedByServer(refusal._code, version) from None
        finally:
            connecting.cancel()
            losing.cancel()
            await asyncio.gather(connecting, losing, return_exceptions=True)
