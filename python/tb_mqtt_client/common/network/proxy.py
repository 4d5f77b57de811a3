"""Connections through a proxy: HTTP CONNECT (RFC 9110, section 9.3.6), and SOCKS with the package python-socks."""

from __future__ import annotations

import asyncio
import base64
import socket
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from tb_mqtt_client.common.exceptions import ProxyRefusedError
from tb_mqtt_client.common.network.happy_eyeballs import connect_first, resolve
from tb_mqtt_client.entities.server_address import ServerAddress

_DEFAULT_PORTS = {"http": 3128, "socks5": 1080, "socks5h": 1080}
_LONGEST_REPLY = 16_384
"""Bytes of the head of a proxy's reply. A longer one is treated as an error."""
PROXY_AUTHENTICATION_REQUIRED = 407
"""The HTTP status code of a proxy that requires credentials."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. ``str()`` and ``repr()`` omit the credentials."""

    scheme: str
    """``http``, ``socks5`` or ``socks5h``."""
    address: ServerAddress
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"

    @classmethod
    def parse(cls, name: str, url: Any) -> Proxy:
        """Parse the URL of a proxy.

        Args:
            name: The option's name, for errors.
            url: A URL such as ``http://user:password@host:3128`` or ``socks5://host:1080``.

        Returns:
            The proxy, with the default port of its scheme if the URL has none.

        Raises:
            ValueError: The value is not such a URL. The text never quotes the URL, which may contain a password.
        """
        forms = "http://host:3128 or socks5://host:1080, with user:password@ before the host if required"
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
            port = parts.port
        except ValueError:
            raise ValueError(f"{name} must be a URL such as {forms}") from None
        if parts.scheme == "https":
            raise ValueError(f"{name} must not be an https:// URL: TLS to the proxy itself is not supported. Use {forms}")
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or _has_more(parts):
            raise ValueError(f"{name} must be a URL such as {forms}")
        address = ServerAddress(parts.hostname, port or _DEFAULT_PORTS[parts.scheme])
        return cls(parts.scheme, address, unquote(parts.username or ""), unquote(parts.password or ""))

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect to a server through this proxy, which resolves the server's name.

        Args:
            host: The server's name or address.
            port: The server's port.

        Returns:
            A connected, non-blocking socket.

        Raises:
            OSError: The proxy cannot be reached.
            ProxyRefusedError: The proxy refused to connect to the server.
            ModuleNotFoundError: A SOCKS proxy needs the package python-socks, which is not installed.
        """
        host = host if host.isascii() else host.encode("idna").decode()
        if self.scheme != "http":
            return await self._connect_by_socks(host, port)
        connection = await connect_first(await resolve(self.address.host, self.address.port))
        try:
            await self._ask_to_connect(connection, ServerAddress(host, port))
        except BaseException:
            connection.close()
            raise
        return connection

    async def _ask_to_connect(self, connection: socket.socket, target: ServerAddress) -> None:
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.username or self.password:
            credentials = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {credentials}")
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode())
        head = await self._head_of_reply(connection)
        status = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if len(status) < 2 or not status[0].startswith("HTTP/") or not status[1].isdigit():
            raise ProxyRefusedError(f"{self} does not speak HTTP")
        code = int(status[1])
        if not 200 <= code < 300:
            raise ProxyRefusedError(f"{self} refused to connect: {' '.join(status[1:])}", code)

    async def _head_of_reply(self, connection: socket.socket) -> bytes:
        """Read up to the empty line, one byte at a time, because the bytes after it are the server's."""
        loop = asyncio.get_running_loop()
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            byte = await loop.sock_recv(connection, 1)
            if not byte:
                raise ProxyRefusedError(f"{self} closed the connection without a reply")
            head += byte
            if len(head) > _LONGEST_REPLY:
                raise ProxyRefusedError(f"{self} does not speak HTTP")
        return bytes(head)

    async def _connect_by_socks(self, host: str, port: int) -> socket.socket:
        try:
            socks: Any = import_module("python_socks")
            by_asyncio: Any = import_module("python_socks.async_.asyncio")
        except ModuleNotFoundError as missing:
            text = f"{self} needs the package python-socks: pip install python-socks"
            raise ModuleNotFoundError(text, name="python_socks") from missing
        address = self.address
        proxy = by_asyncio.Proxy(socks.ProxyType.SOCKS5, address.host, address.port, self.username, self.password, rdns=True)
        try:
            # python-socks has a longer time limit than the connection attempt, which cancels this.
            connection: socket.socket = await proxy.connect(host, port)
        except socks.ProxyError as refusal:
            raise ProxyRefusedError(f"{self} refused to connect: {refusal}", refusal.error_code) from refusal
        return connection


def _has_more(parts: SplitResult) -> bool:
    return parts.path not in {"", "/"} or bool(parts.query or parts.fragment)
