"""The bytes of one connection: gmqtt's protocol and connection, with what they lack.

gmqtt reads in a task, which ends without a word when a packet is malformed while the connection stays open; it tells nobody why a
transport ended and when the socket takes no more; and it closes politely when nobody reads. These are subclasses for the
connections that ``gmqtt_patch.py`` makes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.protocol import BaseMQTTProtocol, MQTTProtocol

WritableCallback = Callable[[bool], None]
"""Called with whether the socket takes more."""

WRITE_BUFFER_BYTES = 256 * 1024
"""What may wait for the socket before publishing pauses: a few large payloads."""
PACKET_TYPE = 0xF0
CONNACK, AUTH = 0x20, 0xF0
LENGTH_BYTES = 4
"""Of the remaining length, at most (MQTT 5, section 1.5.5)."""
QUICK_ACKNOWLEDGEMENT = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""


class NotMqttError(ConnectionError):
    """The peer says something that is no MQTT."""


class ReadingProtocol(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
    """Reads packets as they come, and tells why the transport ended and whether the socket takes more.

    gmqtt reads in a task, which ends without a word when a packet is malformed while the connection stays open.
    """

    def __init__(
        self,
        *args: Any,
        on_lost: Callable[[Exception | None], None],
        on_writable: WritableCallback,
        expects_more: Callable[[], bool],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost
        self._on_writable = on_writable
        self._expects_more = expects_more
        self._unread = b""
        self._heard_connack = False
        self._error: Exception | None = None
        self._replies: list[bytes] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        # MQTTProtocol's own would start the reading task.
        BaseMQTTProtocol.connection_made(self, transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        unread = self._unread + data if self._unread else data
        # A PUBACK each for all that came at once goes out in one write, which is most of what it costs.
        replies: list[bytes] = []
        self._replies = replies
        try:
            parsed = self._read_packets(unread)
        except Exception as error:  # noqa: BLE001  # whatever gmqtt stumbles over ends this connection, with the error as its cause
            self.fail(error)
            return
        finally:
            self._replies = None
        self._unread = unread[parsed:]
        if replies:
            self.write_data(b"".join(replies))
        if QUICK_ACKNOWLEDGEMENT is not None and self._expects_more():
            # A server without TCP_NODELAY, such as Mosquitto, sends no PUBACK before its last one is acknowledged by TCP, which
            # the kernel puts off for 40 ms when there is nothing to send. It forgets this option, so it is set each time.
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)

    def _read_packets(self, unread: bytes) -> int:
        """Read what is complete; how many bytes that was."""
        if not self._heard_connack and unread[0] & PACKET_TYPE not in {CONNACK, AUTH}:
            raise NotMqttError(f"the peer does not speak MQTT, its first byte is 0x{unread[0]:02x}")
        self._heard_connack = True
        parsed: int = self._read_packet(unread)
        # gmqtt takes a length that has no end for a packet that has not come whole.
        length = unread[parsed + 1 : parsed + 1 + LENGTH_BYTES]
        endless = len(length) == LENGTH_BYTES and all(byte & 0x80 for byte in length)
        if parsed < 0 or endless:
            raise NotMqttError("a packet's length is malformed")
        return parsed

    def write_data(self, data: bytes) -> None:
        if self._replies is not None:
            self._replies.append(data)
        # Between the end of the transport and the loop's next turn, in which it is told: gmqtt would log a warning a packet.
        elif not self._transport.is_closing():
            super().write_data(data)

    def fail(self, error: Exception) -> None:
        """End the connection because of ``error``."""
        self._error = self._error or error
        self._transport.abort()

    def eof_received(self) -> bool:
        """Close: nothing can be acknowledged any more."""
        return False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._on_writable(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._on_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            # Without the error, which gmqtt would log with its traceback: who is told here logs the cause.
            super().connection_lost(None)
        self._on_lost(self._error or exc)


class PromptConnection(MQTTConnection):  # type: ignore[misc]  # gmqtt has no types
    """Ends at once when the peer does not read, or is silent for two times of keep-alive: a polite end would wait for it."""

    def _keep_connection(self) -> None:
        silent = time.monotonic() - self._last_data_in
        if self._keepalive and silent >= 2 * self._keepalive and not self.is_closing():
            # gmqtt would close in a task that nobody holds, and tell no cause.
            self._protocol.fail(TimeoutError(f"nothing came for {silent:.0f} s, with a keep-alive of {self._keepalive} s"))
            return
        super()._keep_connection()

    async def close(self) -> None:
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        # What goes wrong while it ends is of no interest: the peer may have ended it first, or be gone.
        with suppress(OSError):
            await super().close()
