"""An MQTT server whose packets a test can replace by wrong ones."""

import asyncio
import json
from contextlib import suppress

from raw_mqtt import packet, text

CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 0x10, 0x30, 0x80, 0xA0, 0xC0, 0xE0
LIMITS = b'{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":{"messages":null}}'


class Connection:
    """One connection of a client."""

    def __init__(self, server, reader, writer, number):
        self.server, self.number, self.version = server, number, 5
        self._reader, self.writer = reader, writer

    @property
    def properties(self):
        return b"\0" if self.version == 5 else b""

    async def serve(self):
        while (received := await self._read()) is not None:
            first_byte, body = received
            kind = first_byte & 0xF0
            if kind == CONNECT:
                self.version = body[6]
            if kind == DISCONNECT:
                return
            replies = self._replies(kind, first_byte, body)
            for name, reply in replies.items():
                wrong = self.server.wrong.get(name)
                self.writer.write(reply if wrong is None else wrong(self, reply, body))
            await self.writer.drain()

    def _replies(self, kind, first_byte, body):
        if kind == CONNECT:
            return {"CONNACK": packet(0x20, b"\0\0" + self.properties)}
        if kind == SUBSCRIBE:
            return {"SUBACK": packet(0x90, body[:2] + self.properties + b"\x01")}
        if kind == UNSUBSCRIBE:
            return {"UNSUBACK": packet(0xB0, body[:2] + (b"\0\0" if self.version == 5 else b""))}
        if kind == PINGREQ:
            return {"PINGRESP": b"\xd0\0"}
        if kind == PUBLISH:
            return self._replies_to_publish(first_byte, body)
        raise AssertionError(f"a client does not send 0x{first_byte:02x}")

    def _replies_to_publish(self, first_byte, body):
        end = 2 + int.from_bytes(body[:2], "big")
        topic, payload = body[2:end].decode(), body[end + 2 + len(self.properties) :]
        replies = {"PUBACK": packet(0x40, body[end : end + 2])} if first_byte & 0x06 else {}
        if b"getSessionLimits" in payload:
            return replies | {"limits": self.publish(topic.replace("/request/", "/response/"), LIMITS)}
        self.server.received.append((topic, payload))
        return replies

    def publish(self, topic, payload):
        return packet(0x30, text(topic) + self.properties + payload)

    async def _read(self):
        try:
            first_byte = (await self._reader.readexactly(1))[0]
            size = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return first_byte, await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


class PlayedServer:
    """Responds correctly, apart from the packets in ``wrong``.

    ``wrong`` has a function for each name of a packet that it replaces. The function gets the connection, the correct packet and
    the body of the client's packet, and returns bytes.
    """

    def __init__(self):
        self.wrong = {}
        self.received = []
        self.connections = 0
        self.connected = asyncio.Condition()
        self._open = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        self.host, self.port = self._server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.close_connections()
        await self._server.wait_closed()

    def close_connections(self):
        for connection in list(self._open):
            connection.writer.transport.abort()

    async def wait_connections(self, count):
        """Wait until ``count`` connections were made."""
        async with asyncio.timeout(10), self.connected:
            await self.connected.wait_for(lambda: self.connections >= count)

    async def _accept(self, reader, writer):
        async with self.connected:
            self.connections += 1
            connection = Connection(self, reader, writer, self.connections)
            self.connected.notify_all()
        self._open.add(connection)
        try:
            await connection.serve()
        except ConnectionError:
            pass
        finally:
            self._open.discard(connection)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def values(self):
        """Return all values that were received as telemetry."""
        found = []
        for topic, payload in self.received:
            if topic.endswith("/telemetry"):
                data = json.loads(payload)
                for record in data if isinstance(data, list) else [data]:
                    found += record["values"].values()
        return found
