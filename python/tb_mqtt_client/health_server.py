"""Answers health checks of containers, load balancers and ``tb-mqtt diag`` over HTTP.

>>> async with HealthServer(client, port=8080):
...     await client.send_timeseries({"temperature": 21.5})
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol, Self

from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.service.life_cycle import ClientState

REQUEST_SECONDS: float = 5.0
"""Seconds that a peer may take for its request and for reading the response."""


class HasHealth(Protocol):
    """The part of ``DeviceClient`` and ``GatewayClient`` that the responses need."""

    @property
    def state(self) -> ClientState: ...

    def health(self) -> dict[str, Any]: ...


class HealthServer:
    """Responds to every HTTP request with ``client.health()`` as JSON: ``async with HealthServer(client, port=8080):``.

    The status is 200 while the client accepts data, and 503 otherwise: before its start, after its stop, or when it has failed. A
    lost connection is not a reason for 503, because a restart would not help; ``ready`` in the response says whether there is a
    session.
    """

    def __init__(self, client: HasHealth, *, port: int = 8080, host: str = "127.0.0.1") -> None:
        """Create a server that does not listen yet.

        Args:
            client: The client. It may be started and stopped while the server listens.
            port: The TCP port to listen on; 0 lets the system choose one.
            host: The address to listen on. The responses contain the name of the server and the client id, but no credentials.

        Raises:
            ValueError: ``port`` is not between 0 and 65535.
        """
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {port}")
        self._client = client
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks = Tasks(report_failure)

    @property
    def port(self) -> int:
        """The TCP port; the one that the system chose, after the start with port 0."""
        if self._server is None or not self._server.sockets:
            return self._port
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: The address cannot be used, for example because another process listens on the port.
        """
        self._server = await asyncio.start_server(self._connected, self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and close the connections."""
        server = self._server
        if server is not None:
            server.close()
            await self._tasks.end_all()
            await server.wait_closed()
            self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.keep(self._respond(reader, writer), "health check", may_return=True)

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                # All of the header: a connection that is closed before it is read would be reset, and the response lost.
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response())
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Not a request, or the peer has gone. It concerns the peer only, and is not worth a line in the log of a device.
            return
        finally:
            writer.transport.abort()

    def _response(self) -> bytes:
        status = "200 OK" if self._client.state.accepts_sends else "503 Service Unavailable"
        body = json.dumps(self._client.health()).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body
