"""A raw MQTT client that sends exactly the bytes that a test wants."""

import asyncio
import json
import struct
from contextlib import asynccontextmanager, suppress


def text(value):
    return struct.pack("!H", len(value.encode())) + value.encode()


def packet(first_byte, body):
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([first_byte]) + bytes(length) + body


class RawClient:
    """Writes and reads packets of one MQTT version."""

    def __init__(self, reader, writer, version):
        self._reader = reader
        self._writer = writer
        self.version = version

    @property
    def properties(self):
        return b"\0" if self.version == 5 else b""

    def write(self, data):
        self._writer.write(data)

    async def connect(self, token="TOKEN", *, client_id="raw", password=None, clean=True):
        flags = (0x02 if clean else 0) | (0x80 if token is not None else 0) | (0x40 if password is not None else 0)
        body = text("MQTT") + bytes([self.version, flags, 0, 60]) + self.properties + text(client_id)
        body += text(token) if token is not None else b""
        body += text(password) if password is not None else b""
        self.write(packet(0x10, body))
        return await self.read()

    def publish(self, topic, payload, *, qos=1, packet_id=1):
        payload = payload if isinstance(payload, bytes) else payload.encode()
        identifier = struct.pack("!H", packet_id) if qos else b""
        self.write(packet(0x30 | qos << 1, text(topic) + identifier + self.properties + payload))

    async def subscribe(self, *filters, packet_id=1):
        body = struct.pack("!H", packet_id) + self.properties
        self.write(packet(0x82, body + b"".join(text(one) + b"\x01" for one in filters)))
        return await self.read()

    async def unsubscribe(self, *filters, packet_id=1):
        body = struct.pack("!H", packet_id) + self.properties
        self.write(packet(0xA2, body + b"".join(text(one) for one in filters)))
        return await self.read()

    async def message(self, *, acknowledge=True):
        """Return ``(topic, payload)`` of the next packet, which must be a PUBLISH; JSON is parsed."""
        first_byte, body = await self.read()
        assert first_byte >> 4 == 3
        end = 2 + int.from_bytes(body[:2])
        topic = body[2:end].decode()
        if first_byte & 0x06:
            if acknowledge:
                self.write(packet(0x40, body[end : end + 2]))
            end += 2
        payload = body[end + len(self.properties) :]
        try:
            return topic, json.loads(payload)
        except ValueError:
            return topic, payload

    async def request(self, topic, payload):
        """Publish, and return the message that follows the PUBACK."""
        self.publish(topic, payload if isinstance(payload, (str, bytes)) else json.dumps(payload))
        assert (await self.read())[0] == 0x40
        return await self.message()

    async def silent(self):
        """Return True if the server sends nothing but the response to a ping."""
        self.write(b"\xc0\0")
        return await self.read() == (0xD0, b"")

    async def read(self):
        """Return ``(first byte, body)`` of the next packet, or None if the server has closed the connection."""
        try:
            first_byte = (await self._reader.readexactly(1))[0]
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        size = shift = 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first_byte, await self._reader.readexactly(size)


@asynccontextmanager
async def raw_client(emulator, version=5, ssl=None, within=5):
    """Connect to an emulator, or to another object with host and port. The block must end within `within` seconds."""
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port, ssl=ssl)
    try:
        async with asyncio.timeout(within):
            yield RawClient(reader, writer, version)
    finally:
        writer.close()
        # The emulator may have closed the connection before.
        with suppress(ConnectionError):
            await writer.wait_closed()
