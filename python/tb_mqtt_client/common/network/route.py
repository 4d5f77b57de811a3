"""How to reach a server (address, TLS, proxy and time limit), and the steps from its name to an open transport."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tb_mqtt_client.common.network.happy_eyeballs import connect_first, resolve
from tb_mqtt_client.common.network.proxy import Proxy
from tb_mqtt_client.entities.server_address import ServerAddress

CONNECT_TIMEOUT = 10.0
"""The default of ``Route.timeout`` in seconds."""
TLS_SHUTDOWN_SECONDS = 1.0
"""Seconds that a server may take to confirm the end of a TLS session; asyncio's default is 30."""


class Step(StrEnum):
    """A step of a connection attempt. One time limit applies to all steps together."""

    NAME = "name"
    """Resolve the server's name."""
    TCP = "TCP"
    """Open a TCP connection to one of its addresses."""
    PROXY = "proxy"
    """Connect to the proxy, and through it to the server."""
    TLS = "TLS"
    """Complete the TLS handshake."""
    MQTT = "MQTT"
    """Send CONNECT and wait for the CONNACK."""


@dataclass(frozen=True, slots=True)
class Route:
    """A server, and how to reach it."""

    server: ServerAddress
    """The server's name or address, and its port."""
    ssl_context: ssl.SSLContext | None = None
    """The TLS context; ``None`` without TLS."""
    proxy: Proxy | None = None
    """The proxy; ``None`` without one."""
    timeout: float = CONNECT_TIMEOUT
    """Seconds that an attempt to connect may take, from resolving the server's name to the CONNACK."""
    ca_cert: str | None = None
    """Path of the certificate authorities that the context trusts, for error messages; ``None`` for those of the system."""

    def __str__(self) -> str:
        return f"{self.server} through {self.proxy}" if self.proxy else str(self.server)


async def open_transport(
    protocol_factory: Callable[[], Any], route: Route, on_step: Callable[[Step], None] = lambda _: None
) -> tuple[Any, Any]:
    """Open a transport to a server, with TLS if the route has a context.

    Args:
        protocol_factory: Returns the protocol, as for ``asyncio.loop.create_connection``.
        route: The server, and how to reach it.
        on_step: Called at the beginning of each step, up to ``Step.MQTT`` when the transport is open.

    Returns:
        The transport and its protocol.

    Raises:
        OSError: The name cannot be resolved, no address accepts a connection, or the TLS handshake failed.
        ProxyRefusedError: The proxy refused to connect to the server.
    """
    host, port = route.server.host, route.server.port
    if route.proxy is not None:
        on_step(Step.PROXY)
        connection = await route.proxy.connect(host, port)
    else:
        on_step(Step.NAME)
        addresses = await resolve(host, port)
        on_step(Step.TCP)
        connection = await connect_first(addresses)
    options: dict[str, Any] = {}
    if route.ssl_context is not None:
        on_step(Step.TLS)
        # An IPv6 zone is only valid on this machine, so certificates do not contain it.
        name = host.partition("%")[0]
        options = {"ssl": route.ssl_context, "server_hostname": name, "ssl_shutdown_timeout": TLS_SHUTDOWN_SECONDS}
    try:
        opened = await asyncio.get_running_loop().create_connection(protocol_factory, sock=connection, **options)
    except (TypeError, ValueError):
        # A transport, which would close the socket, does not exist yet.
        connection.close()
        raise
    on_step(Step.MQTT)
    return opened
