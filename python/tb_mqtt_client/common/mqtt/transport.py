"""The bytes of one connection: subclasses of gmqtt's protocol and connection for the connections that ``gmqtt_patch.py`` makes.

gmqtt reads in a task that ends silently at a malformed packet while the connection stays open, and it copies all unread bytes with
each piece that arrives. It reports neither why a transport ended nor when the socket accepts no more data, and a close waits for a
peer that does not read.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from tb_mqtt_client.common.mqtt.acknowledgements import PacketIds
from tb_mqtt_client.common.mqtt.gmqtt_bases import BaseMQTTProtocol, Message, MQTTConnection, MQTTProtocol
from tb_mqtt_client.common.mqtt.keep_alive import KeepAlive
from tb_mqtt_client.common.mqtt.packets import CONTINUED, TYPE_BITS, NotMqttError, PacketReader, PacketType
from tb_mqtt_client.constants.option_values import MQTT_5
from tb_mqtt_client.constants.reason_codes import ReasonCode


def unacknowledged_bytes(tcp_socket: Any) -> int:
    """Return the bytes that the system accepted and the peer's TCP has not acknowledged; 0 if the system does not report it."""
    if sys.platform != "linux":
        return 0
    # Other systems lack these modules, or support this ioctl for terminals only.
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    try:
        # For a TCP socket this is SIOCOUTQ, see tcp(7).
        return int.from_bytes(fcntl.ioctl(tcp_socket.fileno(), termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)
    except (OSError, ValueError):
        # The descriptor of a closed socket is -1.
        return 0


WritableCallback = Callable[[bool], None]
"""Called with whether the socket accepts more data."""

WRITE_BUFFER_BYTES = 256 * 1024
"""Bytes that may wait for the socket before publishing pauses: a few large payloads."""
READ_BUFFER_BYTES = 64 * 1024
"""The largest number of bytes of one read."""
MAX_PACKET_SIZE = 64 * 1024 * 1024
"""The largest packet in bytes that is accepted: enough for a firmware image in one message, and a bound for the memory used."""
QUICK_ACKNOWLEDGEMENT = getattr(socket, "TCP_QUICKACK", None)
"""The socket option; Linux only."""


PUBLISH: Final = int(PacketType.PUBLISH)
NO_PROPERTIES: Final = b"\0"


def publish_packet(topic: str, payload: bytes, qos: int, *, retain: bool, packet_id: int | None, version: int) -> bytes:
    """Write a PUBLISH without properties. gmqtt needs several times as long for the same bytes.

    Args:
        topic: The topic.
        payload: The payload.
        qos: 0 or 1.
        retain: The retain flag.
        packet_id: The packet id; None for QoS 0.
        version: 5, or 4 for MQTT 3.1.1.
    """
    head, end = _topic_field(topic), NO_PROPERTIES if version >= MQTT_5 else b""
    if packet_id is not None:
        end = packet_id.to_bytes(2, "big") + end
    first = bytearray((PUBLISH | qos << 1 | retain,))
    # The remaining length (MQTT 5, section 1.5.5).
    size = len(head) + len(end) + len(payload)
    while size >= CONTINUED:
        first.append(size & 0x7F | CONTINUED)
        size >>= 7
    first.append(size)
    return b"".join((first, head, end, payload))


@lru_cache(maxsize=64)
def _topic_field(topic: str) -> bytes:
    encoded = topic.encode()
    return len(encoded).to_bytes(2, "big") + encoded


class ReadingProtocol(MQTTProtocol, asyncio.BufferedProtocol):
    """Reads packets as they arrive, and reports why the transport ended and whether the socket accepts more data.

    The protocol owns the buffer that is read into. Otherwise the transport allocates 256 KiB for each read, for which the system
    maps and clears pages: that took as much time as everything else that is done for a PUBACK.
    """

    def __init__(
        self,
        *args: Any,
        receive: Callable[[int, bytes], None],
        on_lost: Callable[[Exception | None], None],
        on_writable: WritableCallback,
        expects_more: Callable[[], bool],
        **kwargs: Any,
    ) -> None:
        """Create the protocol of one connection.

        Args:
            *args: Passed on to gmqtt's protocol.
            receive: Handles a packet; raises ``NotMqttError`` for a packet that ends the connection.
            on_lost: Called once with the error that ended the transport, or ``None``.
            on_writable: Called with whether the socket accepts more data.
            expects_more: Returns whether a packet from the server is expected.
            **kwargs: Passed on to gmqtt's protocol.
        """
        super().__init__(*args, **kwargs)
        self._receive = receive
        self._on_lost = on_lost
        self._on_writable = on_writable
        self._expects_more = expects_more
        self._packets = PacketReader(MAX_PACKET_SIZE)
        self._buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self._heard_connack = False
        self._error: Exception | None = None
        self._replies: list[bytes] | None = None
        self.written: int = 0
        """The number of bytes that were passed to the transport."""

    def connection_made(self, transport: Any) -> None:
        # The method of MQTTProtocol would start the reading task.
        BaseMQTTProtocol.connection_made(self, transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._socket = transport.get_extra_info("socket")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer into which the transport reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read the packets in the first ``nbytes`` bytes of the buffer."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        # The PUBACKs for all packets that arrived together are sent in one write, which is most of their cost.
        replies: list[bytes] = []
        self._replies = replies
        try:
            self._read_packets(data)
        except NotMqttError as error:
            self._replies = None
            self._refuse(error)
            return
        finally:
            self._replies = None
        if replies:
            self.write_data(b"".join(replies))
        if QUICK_ACKNOWLEDGEMENT is not None and self._expects_more():
            # A server without TCP_NODELAY, such as Mosquitto, does not send a PUBACK before TCP has acknowledged its last one. The
            # kernel delays that by 40 ms if there is nothing to send. It resets this option, so it is set each time.
            self._socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)

    def _read_packets(self, data: bytes) -> None:
        """Handle all complete packets.

        Raises:
            NotMqttError: The server broke MQTT.
        """
        if not self._heard_connack:
            if data[0] & TYPE_BITS not in {PacketType.CONNACK, PacketType.AUTH}:
                raise NotMqttError(f"the peer does not speak MQTT, its first byte is 0x{data[0]:02x}", first_byte=data[0])
            if self._connection is None:
                raise NotMqttError("the server sent a packet before the CONNECT", ReasonCode.PROTOCOL_ERROR)
            self._heard_connack = True
        self._connection.keep_alive.last_in = time.monotonic()
        receive = self._receive
        for first_byte, body in self._packets.read(data):
            receive(first_byte, body)

    def _refuse(self, error: NotMqttError) -> None:
        """End the connection because of a bad packet; an MQTT 5 server gets the reason if it can be written at once."""
        if self._heard_connack and self.proto_ver >= MQTT_5 and not self._transport.get_write_buffer_size():
            self.send_disconnect(error.reason_code)
        self.fail(error)

    def write_data(self, data: bytes) -> None:
        if self._replies is not None:
            self._replies.append(data)
        # Between the end of the transport and the call of connection_lost, gmqtt would log a warning for each packet.
        elif not self._transport.is_closing():
            self._connection.keep_alive.last_out = time.monotonic()
            self.written += len(data)
            self._transport.write(data)

    def send_publish(self, message: Message) -> tuple[int | None, bytes]:
        """Write a PUBLISH, and return its packet id (None for QoS 0) and the packet."""
        if message.properties:
            with_properties: tuple[int | None, bytes] = super().send_publish(message)
            return with_properties
        qos = message.qos
        packet_id = self.id_generator.next_id() if qos else None
        packet = publish_packet(
            message.topic, message.payload, qos, retain=message.retain, packet_id=packet_id, version=self.proto_ver
        )
        self.write_data(packet)
        return packet_id, packet

    def unsent_bytes(self) -> int:
        """Return the number of written bytes that have not reached the peer, as far as the system reports it."""
        waiting: int = self._transport.get_write_buffer_size()
        return waiting + unacknowledged_bytes(self._socket)

    def fail(self, error: Exception) -> None:
        """End the connection because of ``error``."""
        self._error = self._error or error
        self._transport.abort()

    def eof_received(self) -> bool:
        """Close the connection, because the peer can no longer acknowledge anything."""
        return False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._on_writable(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._on_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._connection.keep_alive.stop()
            if exc is not None and self._error is None:
                self._read_rest()
            # Without the error, which gmqtt would log with its traceback: `_on_lost` logs the cause.
            super().connection_lost(None)
        self._on_lost(self._error or exc)

    def _read_rest(self) -> None:
        """Read what had arrived before a write failed.

        The transport stops reading when a write fails, although the system still has the bytes that arrived before the reset. With
        the PUBACKs in them, messages that the server has stored are not sent a second time. TLS does not allow this.
        """
        if self._transport.get_extra_info("ssl_object") is not None:
            return
        try:
            rest = self._socket.dup()
        except (OSError, AttributeError, TypeError):
            # The sockets of uvloop have no `dup`.
            return
        # An error means that nothing is left to read, or that the rest is not MQTT: the connection has ended anyway.
        with rest, suppress(OSError, NotMqttError):
            rest.setblocking(False)
            while data := rest.recv(READ_BUFFER_BYTES):
                self._read_packets(data)


class PromptConnection(MQTTConnection):
    """A connection that ends at once if the peer stops reading or does not respond to a ping; a clean end would wait for it."""

    def __init__(self, *args: Any, packet_ids: PacketIds, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # gmqtt's own timer ends a quiet connection without a PINGREQ.
        self._keep_connection_callback.cancel()
        self._packet_ids = packet_ids
        self.keep_alive: KeepAlive = KeepAlive(
            0,
            asyncio.get_running_loop(),
            ping=self._send_ping_request,
            unsent_bytes=self._protocol.unsent_bytes,
            on_silent=self.end_silent,
        )

    def start_keep_alive(self, server_keep_alive: int | None) -> None:
        """Start the keep-alive.

        A server that wants no keep-alive (0) accepts pings anyway, and without them a dead connection could stay unnoticed forever.

        Args:
            server_keep_alive: Seconds that the server set in place of those of the CONNECT (MQTT 5, section 3.2.2.3.14).
        """
        self.keep_alive.restart(server_keep_alive or self._keepalive)

    def end_silent(self, seconds: float) -> None:
        """End the connection because the server did not respond to a ping.

        Args:
            seconds: Seconds since the last byte from the server.
        """
        keep_alive = f"{self.keep_alive.seconds:g} s"
        self._protocol.fail(
            TimeoutError(f"the server sent nothing for {seconds:.0f} s and did not respond to a ping; keep-alive {keep_alive}")
        )

    def subscribe(self, subscription: Any, **kwargs: Any) -> int:
        """Write a SUBSCRIBE, and return its packet id, which the SUBACK frees."""
        packet_id: int = super().subscribe(subscription, **kwargs)
        self._packet_ids.await_answer(packet_id, PacketType.SUBACK)
        return packet_id

    def unsubscribe(self, topic: Any, **kwargs: Any) -> int:
        """Write an UNSUBSCRIBE, and return its packet id, which the UNSUBACK frees."""
        packet_id: int = super().unsubscribe(topic, **kwargs)
        self._packet_ids.await_answer(packet_id, PacketType.UNSUBACK)
        return packet_id

    async def close(self) -> None:
        self.keep_alive.stop()
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        # Errors while the connection ends do not matter: the peer may have ended it first, or be unreachable.
        with suppress(OSError):
            await super().close()
