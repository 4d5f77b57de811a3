"""A host name with two addresses; the first one can be unresponsive, so that connection attempts time out."""

import asyncio
import socket
from typing import Any

NAME = "platform.soak"
LIVE, DEAD = "127.0.0.1", "127.0.0.2"


class TwoAddresses:
    """Resolves ``NAME`` in the running event loop: to the live address, with ``dead_first`` preceded by an unresponsive one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []
        self._getaddrinfo: Any = None
        self.dead_first = False

    async def __aenter__(self) -> "TwoAddresses":
        # One connection, which is never accepted, fills the queue, so Linux drops the SYN of every other connection.
        listening = socket.create_server((DEAD, self._port), backlog=0)
        self._sockets = [listening, socket.create_connection((DEAD, self._port))]
        loop = asyncio.get_running_loop()
        self._getaddrinfo = loop.getaddrinfo
        loop.getaddrinfo = self._resolve
        return self

    async def __aexit__(self, *_: object) -> None:
        del asyncio.get_running_loop().getaddrinfo
        for one in self._sockets:
            one.close()

    async def _resolve(self, host: str | bytes | None, port: int | str | None, **hints: Any) -> Any:
        if host != NAME:
            return await self._getaddrinfo(host, port, **hints)
        addresses = [DEAD, LIVE] if self.dead_first else [LIVE]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)) for address in addresses]
