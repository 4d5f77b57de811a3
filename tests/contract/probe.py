"""A raw MQTT client that reports received packets in one form for the emulator and a server."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from platforms import Platform
from raw_mqtt import RawClient, raw_client

from thingsboard.tenant import STORED_WITHIN

# Seconds between packets that belong together, with a margin for a busy machine.
_TOGETHER = 0.5
_GUARD = 60.0


class Message(NamedTuple):
    """A PUBLISH from the platform; JSON is parsed."""

    topic: str
    payload: Any


@dataclass
class Received:
    """The packets received after a packet. The order of PUBACKs and messages is not kept, because on a server it varies."""

    pubacks: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    disconnect: int | None = None
    closed: bool = False

    @property
    def outcome(self) -> tuple[list[int], int | None, bool]:
        """The codes of the PUBACKs, the code of the DISCONNECT, and True if the connection was closed."""
        return self.pubacks, self.disconnect, self.closed


OK: tuple[list[int], int | None, bool] = ([0], None, False)
NOTHING: tuple[list[int], int | None, bool] = ([], None, False)
CLOSED: tuple[list[int], int | None, bool] = ([], None, True)


def refused(code: int) -> tuple[list[int], int | None, bool]:
    """Return the outcome of a PUBACK with a code on a connection that stays open."""
    return [code], None, False


def disconnected(code: int, *pubacks: int) -> tuple[list[int], int | None, bool]:
    """Return the outcome of a DISCONNECT with a code."""
    return list(pubacks), code, True


class Probe:
    """One connection. Acknowledges messages from the platform if `acknowledges` is True."""

    def __init__(self, raw: RawClient, patience: float) -> None:
        self.raw = raw
        self._patience = patience
        self._last_id = 0
        self.acknowledges = True

    async def connect(self, token: str | None, **options: Any) -> int:
        """Return the code of the CONNACK."""
        packet = await self.raw.connect(token, **options)
        assert packet is not None, "the platform closed the connection instead of sending a CONNACK"
        first_byte, body = packet
        assert first_byte == 0x20
        code: int = body[1]
        return code

    async def settle(self) -> None:
        """Wait until the server processes packets in the session.

        A server processes packets that arrive within milliseconds of its CONNACK in another thread, which swallows exceptions:
        neither a PUBACK nor a DISCONNECT follows.
        """
        if self._patience:
            self.raw.write(b"\xc0\0")
            assert await self.raw.read() == (0xD0, b"")
            await asyncio.sleep(0.05)

    async def subscribe(self, *filters: str) -> list[int]:
        """Return the codes of the SUBACK."""
        return await self._codes(self.raw.subscribe(*filters, packet_id=self._id()), 0x90)

    async def unsubscribe(self, *filters: str) -> list[int]:
        """Return the codes of the UNSUBACK."""
        return await self._codes(self.raw.unsubscribe(*filters, packet_id=self._id()), 0xB0)

    async def _codes(self, reading: Any, first_byte: int) -> list[int]:
        packet = await reading
        assert packet is not None, "the platform closed the connection instead of responding"
        while packet[0] != first_byte:
            packet = await self.raw.read()
        return list(packet[1][2 + len(self.raw.properties) :])

    async def publish(self, topic: str, payload: Any, *, qos: int = 1, patience: float | None = None) -> Received:
        """Publish bytes, text or a JSON document, and return the packets received until no more arrive."""
        if not isinstance(payload, (str, bytes)):
            payload = json.dumps(payload)
        self.raw.publish(topic, payload, qos=qos, packet_id=self._id())
        return await self.received(patience=patience)

    async def received(self, *, patience: float | None = None) -> Received:
        """Return the packets received until no more arrive. `patience` is the time to wait for the first packet, in seconds."""
        received = Received()
        if not self._patience and not patience:
            # The emulator sends in order, so all packets arrive before the response to a ping.
            self.raw.write(b"\xc0\0")
            while await self._take(received, None):
                pass
            return received
        wait = self._patience if patience is None else patience
        while await self._take(received, wait):
            wait = _TOGETHER
        if not received.closed:
            self.raw.write(b"\xc0\0")
            while await self._take(received, _GUARD):
                pass
        return received

    async def message(self, topic: str | None = None) -> Message:
        """Return the next message, or the next one on `topic`; messages on other topics are skipped."""
        while True:
            received = Received()
            await self._take(received, _GUARD)
            assert not received.closed, "the platform closed the connection"
            for message in received.messages:
                if topic is None or message.topic == topic:
                    return message

    async def _take(self, received: Received, wait: float | None) -> bool:
        """Add the next packet. Return False if there is none, it is the response to a ping, or the connection is closed."""
        try:
            async with asyncio.timeout(wait):
                packet = await self.raw.read()
        except TimeoutError:
            return False
        if packet is None:
            received.closed = True
            return False
        first_byte, body = packet
        kind = first_byte >> 4
        if kind == 13:
            return False
        if kind == 4:
            received.pubacks.append(body[2] if len(body) > 2 else 0)
        elif kind == 14:
            received.disconnect = body[0] if body else 0
        elif kind == 3:
            received.messages.append(self._message(first_byte, body))
        else:
            raise AssertionError(f"an unexpected packet of type {kind}: {body!r}")
        return True

    async def until_updates(self, platform: Platform, name: str, topic: str) -> None:
        """Wait until shared attribute updates arrive, because a subscription takes effect a moment after its SUBACK."""
        for number in itertools.count():
            await platform.set_shared(name, {"arrives": number})
            found = await self.received(patience=1 if self._patience else None)
            if any(message.topic == topic for message in found.messages):
                return

    async def stored(self, read: Callable[[], Awaitable[Any]], expected: Any) -> None:
        """Wait until the platform returns the expected data, because it stores data some time after the PUBACK."""
        found = await read()
        deadline = asyncio.get_running_loop().time() + (STORED_WITHIN if self._patience else 0)
        while found != expected and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            found = await read()
        assert found == expected

    def _message(self, first_byte: int, body: bytes) -> Message:
        end = 2 + int.from_bytes(body[:2])
        topic = body[2:end].decode()
        if first_byte & 0x06:
            if self.acknowledges and body[end : end + 2] != b"\0\0":
                self.raw.write(b"\x40\x02" + body[end : end + 2])
            end += 2
        payload = body[end + len(self.raw.properties) :]
        try:
            return Message(topic, json.loads(payload))
        except ValueError:
            return Message(topic, payload)

    def _id(self) -> int:
        self._last_id += 1
        return self._last_id


@asynccontextmanager
async def probe(platform: Platform, token: str | None = None, version: int = 5) -> AsyncIterator[Probe]:
    """Connect to the platform; with a token also open a session."""
    async with raw_client(platform, version, within=300 if platform.patience else 5) as raw:
        made = Probe(raw, platform.patience)
        if token is not None:
            assert await made.connect(token) == 0
            await made.settle()
        yield made
