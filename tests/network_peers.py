"""Peers on loopback that a connection meets in the field: addresses that swallow packets, silent servers, names and proxies."""

import asyncio
import base64
import contextlib
import random
import socket
from contextlib import asynccontextmanager, contextmanager

PORTS = 10_000, 32_768
"""Linux assigns ports from 32,768 on, other systems from 49,152 on, to sockets that do not choose one."""


def free_ports(count):
    """Return ports for programs that are started later: no other program gets them from the system meanwhile."""
    # The generator of the module does not fit: Hypothesis gives it the same seed in all processes.
    dice = random.SystemRandom()
    free = set()
    while len(free) < count:
        port = dice.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.add(port)
    return list(free)


@contextmanager
def swallowing_address(host="127.0.0.2"):
    """Yield an address that does not reply to a SYN, because its backlog is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()


def resolve_as(monkeypatch, names):
    """Resolve only ``names``, to addresses ``(host, port)``; for a name with ``None`` the resolver does not return.

    Returns:
        The list of names that were resolved; it grows with each of them.
    """
    asked = []

    async def getaddrinfo(host, port, **_options):
        asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if names[host] is None:
            await asyncio.Event().wait()
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, own_port or port))
            for address, own_port in names[host]
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


@asynccontextmanager
async def serving(serve, host="127.0.0.1", **options):
    """Run a server that calls ``serve(reader, writer)`` for each connection; yield its port."""
    writers, tasks = [], set()

    async def session(reader, writer):
        tasks.add(asyncio.current_task())
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)

    server = await asyncio.start_server(session, host, 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


async def _pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Proxy:
    """A proxy on loopback that records the targets of its clients in ``asked``."""

    def __init__(self, credentials=None, names=None):
        self.credentials = credentials
        self.names = names or {}
        self.asked = []
        self.port = 0

    async def _tunnel(self, host, port, reader, writer):
        server_reader, server_writer = await asyncio.open_connection(self.names.get(host, host), port)
        try:
            await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))
        finally:
            server_writer.transport.abort()


class HttpProxy(Proxy):
    """An HTTP proxy with CONNECT; its reply comes in small pieces."""

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        target = head[0].split(" ")[1]
        self.asked.append(target)
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        if self.credentials is not None:
            expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if headers.get("Proxy-Authorization") != expected:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
                writer.close()
                return
        host, _, port = target.rpartition(":")
        if port == "9":
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            writer.close()
            return
        for piece in (b"HTTP/1.1 200 Connection est", b"ablished\r\nVia: 1.1 test\r\n", b"\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        await self._tunnel(host.strip("[]"), int(port), reader, writer)


class SocksProxy(Proxy):
    """SOCKS 5 (RFC 1928), with a user name and a password (RFC 1929) if ``credentials`` are given."""

    async def serve(self, reader, writer):
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 0 if self.credentials is None else 2
        if method not in methods:
            writer.write(b"\x05\xff")
            writer.close()
            return
        writer.write(bytes([5, method]))
        if method == 2:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            [length] = await reader.readexactly(1)
            given = b"%s:%s" % (user, await reader.readexactly(length))
            good = given == self.credentials.encode()
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                writer.close()
                return
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:
            [length] = await reader.readexactly(1)
            host = (await reader.readexactly(length)).decode()
        else:
            host = socket.inet_ntop(
                *((socket.AF_INET, await reader.readexactly(4)) if kind == 1 else (socket.AF_INET6, await reader.readexactly(16)))
            )
        port = int.from_bytes(await reader.readexactly(2))
        self.asked.append(f"{host}:{port}")
        if port == 9:
            writer.write(b"\x05\x02\x00\x01" + bytes(6))
            writer.close()
            return
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._tunnel(host, port, reader, writer)


@asynccontextmanager
async def running(proxy):
    """Run ``proxy`` on a free port of loopback."""
    async with serving(proxy.serve) as proxy.port:
        yield proxy
