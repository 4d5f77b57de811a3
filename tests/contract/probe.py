"""A raw MQTT client that says what a platform answered, in a form that is the same for the emulator and for a server."""

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

# Packets that belong together follow each other closely, on a busy machine a little less so.
_TOGETHER = 0.5
_GUARD = 60.0


class Message(NamedTuple):
    """A PUBLISH of the platform; JSON is parsed."""

    topic: str
    payload: Any


@dataclass
class Answers:
    """What came after a packet. The order among PUBACK and messages is not fixed on a server, so it is not kept."""

    pubacks: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    disconnect: int | None = None
    closed: bool = False

    @property
    def outcome(self) -> tuple[list[int], int | None, bool]:
        """Codes of the PUBACKs, code of the DISCONNECT, and whether the connection was closed."""
        return self.pubacks, self.disconnect, self.closed


OK: tuple[list[int], int | None, bool] = ([0], None, False)
NOTHING: tuple[list[int], int | None, bool] = ([], None, False)
CLOSED: tuple[list[int], int | None, bool] = ([], None, True)


def refused(code: int) -> tuple[list[int], int | None, bool]:
    """Return the outcome of a PUBACK with a code, after which the connection stays."""
    return [code], None, False


def disconnected(code: int, *pubacks: int) -> tuple[list[int], int | None, bool]:
    """Return the outcome of a DISCONNECT with a code."""
    return list(pubacks), code, True


class Probe:
    """One connection. Acknowledges the messages of the platform, if it is to."""

    def __init__(self, raw: RawClient, patience: float) -> None:
        self.raw = raw
        self._patience = patience
        self._last_id = 0
        self.acknowledges = True

    async def connect(self, token: str | None, **options: Any) -> int:
        """Return the code of the CONNACK."""
        packet = await self.raw.connect(token, **options)
        assert packet is not None, "the platform closed the connection instead of answering CONNECT"
        first_byte, body = packet
        assert first_byte == 0x20
        code: int = body[1]
        return code

    async def settle(self) -> None:
        """Wait until the session takes packets as they come.

        A server carries out what comes within milliseconds of its CONNACK in another thread, where an exception is swallowed:
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

    async def _codes(self, answer: Any, first_byte: int) -> list[int]:
        packet = await answer
        assert packet is not None, "the platform closed the connection instead of answering"
        while packet[0] != first_byte:
            packet = await self.raw.read()
        return list(packet[1][2 + len(self.raw.properties) :])

    async def publish(self, topic: str, payload: Any, *, qos: int = 1, patience: float | None = None) -> Answers:
        """Publish (bytes, text, or a document), and return what came until nothing more did."""
        if not isinstance(payload, (str, bytes)):
            payload = json.dumps(payload)
        self.raw.publish(topic, payload, qos=qos, packet_id=self._id())
        return await self.answers(patience=patience)

    async def answers(self, *, patience: float | None = None) -> Answers:
        """Return what comes until nothing more does. `patience`: seconds to wait for the first packet."""
        answers = Answers()
        if not self._patience and not patience:
            # The emulator answers in order, so all that it has to say is there before its answer to a ping.
            self.raw.write(b"\xc0\0")
            while await self._take(answers, None):
                pass
            return answers
        wait = self._patience if patience is None else patience
        while await self._take(answers, wait):
            wait = _TOGETHER
        if not answers.closed:
            self.raw.write(b"\xc0\0")
            while await self._take(answers, _GUARD):
                pass
        return answers

    async def message(self, topic: str | None = None) -> Message:
        """Return the next message, on this topic if one is named; others are skipped."""
        while True:
            answers = Answers()
            await self._take(answers, _GUARD)
            assert not answers.closed, "the platform closed the connection"
            for message in answers.messages:
                if topic is None or message.topic == topic:
                    return message

    async def _take(self, answers: Answers, wait: float | None) -> bool:
        """Add the next packet. False when none came, when it answered a ping, or when the connection is closed."""
        try:
            async with asyncio.timeout(wait):
                packet = await self.raw.read()
        except TimeoutError:
            return False
        if packet is None:
            answers.closed = True
            return False
        first_byte, body = packet
        kind = first_byte >> 4
        if kind == 13:
            return False
        if kind == 4:
            answers.pubacks.append(body[2] if len(body) > 2 else 0)
        elif kind == 14:
            answers.disconnect = body[0] if body else 0
        elif kind == 3:
            answers.messages.append(self._message(first_byte, body))
        else:
            raise AssertionError(f"an unexpected packet of type {kind}: {body!r}")
        return True

    async def until_updates(self, platform: Platform, name: str, topic: str) -> None:
        """Wait until updates of a device's shared attributes arrive: a subscription takes effect a moment after its SUBACK."""
        for number in itertools.count():
            await platform.set_shared(name, {"arrives": number})
            found = await self.answers(patience=1 if self._patience else None)
            if any(message.topic == topic for message in found.messages):
                return

    async def stored(self, read: Callable[[], Awaitable[Any]], expected: Any) -> None:
        """Wait until the platform shows what is expected: a PUBACK says only that the data is on its way."""
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
    """Connect to the platform, as the device with this token if one is given."""
    async with raw_client(platform, version, within=300 if platform.patience else 5) as raw:
        made = Probe(raw, platform.patience)
        if token is not None:
            assert await made.connect(token) == 0
            await made.settle()
        yield made
