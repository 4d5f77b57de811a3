"""A TCP link between a client and a server that a test can cut, freeze, slow down or silence."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from tb_mqtt_client import DeviceClient

CHUNK_BYTES = 512
"""The most bytes that a link with a rate forwards at a time."""


class Direction:
    """Counts the bytes from one end to the other, and cuts the link after some of them."""

    def __init__(self, cut_after: int | None) -> None:
        self.cut_after = cut_after
        """Bytes that pass before both ends are cut; ``None`` for no cut."""
        self.passed = 0

    def allowed(self, data: bytes) -> bytes:
        if self.cut_after is None:
            return data
        return data[: max(0, self.cut_after - self.passed)]

    @property
    def exhausted(self) -> bool:
        return self.cut_after is not None and self.passed >= self.cut_after


class FaultyLink:
    """Listens on a free port and forwards to ``host``:``port``.

    ``plan`` returns, for the number of a connection, the bytes that may pass up and down before it is cut (``None``: no cut).
    ``connack`` replaces the server's CONNACK. ``rate`` is in bytes per second and direction; the sender's TCP notices it, unless
    the link has ``hidden_buffers``, as a proxy or a modem has.
    """

    def __init__(
        self,
        host: str,
        port: int,
        plan: Callable[[int], tuple[int | None, int | None]] | None = None,
        *,
        connack: bytes | None = None,
        rate: float | None = None,
        hidden_buffers: bool = False,
    ) -> None:
        self._target = host, port
        self.rate = rate
        self._small_buffers = rate is not None and not hidden_buffers
        self._directions_up: list[Direction] = []
        self.connack = connack
        self._plan = plan or (lambda _connection: (None, None))
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._silent = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.host, self.port = "127.0.0.1", 0
        self.connections = 0

    async def __aenter__(self) -> "FaultyLink":
        listening = socket.create_server((self.host, self.port))
        if self._small_buffers:
            # Set before any connection is accepted: accepted sockets inherit it.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
        self._server = await asyncio.start_server(self._accept, sock=listening, limit=CHUNK_BYTES if self._small_buffers else 2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def bytes_up(self) -> int:
        """Return the number of bytes that were forwarded from clients to the server."""
        return sum(direction.passed for direction in self._directions_up)

    def freeze(self) -> None:
        """Stop reading from both ends: buffers fill up, and neither end gets an error."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward again after `freeze`."""
        self._flowing.set()

    def silence(self) -> None:
        """Make all connections half-open: read everything from both ends, and forward nothing."""
        self._silent = True

    def speak(self) -> None:
        """Forward again after `silence`."""
        self._silent = False

    def cut(self) -> None:
        """Reset all connections; the next ones are forwarded."""
        self.speak()
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = self._plan(self.connections)
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target, limit=2**20)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, server_writer}
        self._directions_up.append(Direction(up))
        self._writers |= ends
        pumps = [
            asyncio.ensure_future(self._pump(reader, server_writer, self._directions_up[-1])),
            asyncio.ensure_future(self._pump_down(server_reader, writer, Direction(down))),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._tasks.difference_update(pumps)
        self._writers -= ends

    async def _pump_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        if self.connack is not None:
            with suppress(asyncio.IncompleteReadError):
                head = await reader.readexactly(2)
                await reader.readexactly(head[1])
                writer.write(self.connack)
        await self._pump(reader, writer, direction)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        with suppress(ConnectionError):
            while not direction.exhausted and (data := await reader.read(65536 if self.rate is None else CHUNK_BYTES)):
                await self._flowing.wait()
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                if self._silent:
                    continue
                data = direction.allowed(data)
                direction.passed += len(data)
                writer.write(data)
                await writer.drain()


async def connect_at_last(client: DeviceClient) -> None:
    """Connect; try again as often as the link is cut during an attempt."""
    while True:
        try:
            return await client.connect()
        except OSError:
            continue
