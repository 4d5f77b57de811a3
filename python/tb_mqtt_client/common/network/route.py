"""How a server is reached: address, TLS, proxy and time limit; and the steps from its name to an open transport."""

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
"""Seconds from the name to the CONNACK."""
TLS_SHUTDOWN_SECONDS = 1.0
"""How long a server may take to answer the end of a TLS session; asyncio's own limit is 30."""


class Step(StrEnum):
    """A step of a connection attempt. Each one is within the same time limit."""

    NAME = "name"
    """The server's name is resolved."""
    TCP = "TCP"
    PROXY = "proxy"
    """The proxy is reached, and asked to connect to the server."""
    TLS = "TLS"
    """The TLS handshake."""
    MQTT = "MQTT"
    """CONNECT is sent; the CONNACK is awaited."""


@dataclass(frozen=True, slots=True)
class Route:
    """One server, and how it is reached."""

    server: ServerAddress
    ssl_context: ssl.SSLContext | None = None
    """``None`` without TLS."""
    proxy: Proxy | None = None
    timeout: float = CONNECT_TIMEOUT
    """Seconds from the name to the CONNACK."""
    ca_cert: str | None = None
    """Path of the authority that the context trusts, for advice."""

    def __str__(self) -> str:
        return f"{self.server} through {self.proxy}" if self.proxy else str(self.server)


async def open_transport(
    protocol_factory: Callable[[], Any], route: Route, on_step: Callable[[Step], None] = lambda _: None
) -> tuple[Any, Any]:
    """Open a transport to a server, with TLS if the route has a context.

    Args:
        protocol_factory: As of ``asyncio.loop.create_connection``.
        route: Where to, and how.
        on_step: Called at the beginning of each step.

    Returns:
        The transport and its protocol.

    Raises:
        OSError: The name is not known, no address accepts a connection, or the TLS handshake failed.
        ProxyRefusedError: The proxy does not connect to the server.
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
        # An IPv6 zone is of this machine, and not part of the name in a certificate.
        name = host.partition("%")[0]
        options = {"ssl": route.ssl_context, "server_hostname": name, "ssl_shutdown_timeout": TLS_SHUTDOWN_SECONDS}
    try:
        opened = await asyncio.get_running_loop().create_connection(protocol_factory, sock=connection, **options)
    except (TypeError, ValueError):
        # There is no transport yet, which would own the socket.
        connection.close()
        raise
    on_step(Step.MQTT)
    return opened
