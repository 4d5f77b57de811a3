"""What gmqtt 0.8 lacks, added to one client at a time.

gmqtt acknowledges publishes without telling the reason code, reconnects by itself, replays stored packets, waits for ever for a
CONNACK that does not come, and keeps a connection on which nothing readable arrives. ``PatchUtils`` overrides these points on
the instances that belong to one client; gmqtt's classes are never changed. ``tests/unit/test_gmqtt_internals.py`` names every
internal that is leaned on here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from gmqtt import Client
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler
from gmqtt.mqtt.protocol import BaseMQTTProtocol, MQTTProtocol
from gmqtt.storage import PersistentStorage

from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)

Properties = dict[str, Any]
PubackCallback = Callable[[int, int, Properties], None]
"""Called with packet id, reason code and properties of a PUBACK."""
WritableCallback = Callable[[bool], None]
"""Called with whether the socket takes more."""

WRITE_BUFFER_BYTES = 256 * 1024
"""What may wait for the socket before publishing pauses: a few large payloads."""
TLS_SHUTDOWN_SECONDS = 1.0
"""How long a server may take to answer the end of a TLS session; asyncio's own limit is 30."""
PACKET_TYPE = 0xF0
CONNACK, AUTH = 0x20, 0xF0
ALL_PACKET_IDS = 65536
QUICK_ACKNOWLEDGEMENT = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""
LENGTH_BYTES = 4
"""Of the remaining length, at most (MQTT 5, section 1.5.5)."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a connection ended."""

    error: Exception | None = None
    """The transport's error, or what could not be read."""
    reason_code: int | None = None
    """Of the server's DISCONNECT; MQTT 3.1.1 has none."""
    properties: Properties | None = None
    """Of the server's DISCONNECT."""


LostCallback = Callable[[Loss], None]
"""Called once."""


class NotMqttError(ConnectionError):
    """The peer says something that is no MQTT."""


class _Protocol(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
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

    def connection_made(self, transport: asyncio.Transport) -> None:
        # MQTTProtocol's own would start the reading task.
        BaseMQTTProtocol.connection_made(self, transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        unread = self._unread + data if self._unread else data
        try:
            parsed = self._read_packets(unread)
        except Exception as error:  # noqa: BLE001  # whatever gmqtt stumbles over ends this connection, with the error as its cause
            self.fail(error)
            return
        self._unread = unread[parsed:]
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
        # Between the end of the transport and the loop's next turn, in which it is told: gmqtt would log a warning a packet.
        if not self._transport.is_closing():
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


class _Connection(MQTTConnection):  # type: ignore[misc]  # gmqtt has no types
    """Closes at once when the peer does not read: a polite end would wait for the kernel to give up."""

    async def close(self) -> None:
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        # What goes wrong while it ends is of no interest: the peer may have ended it first, or be gone.
        with suppress(OSError):
            await super().close()


class _NoStorage(PersistentStorage):  # type: ignore[misc]  # gmqtt has no types
    """Keeps nothing: what is unacknowledged is kept as messages by ``MQTTManager``, with the futures that wait for it."""

    def push_message(self, mid: int, raw_package: bytes) -> None: ...


class PatchUtils:
    """Changes one gmqtt client. The client must not be connected yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.connack_properties: Properties = {}
        """Lists of values by name; empty with MQTT 3.1.1."""
        self._disconnect: Loss | None = None
        self._handler = client._package_handler

    def apply(
        self,
        on_puback: PubackCallback,
        on_lost: LostCallback,
        on_writable: WritableCallback,
        expects_more: Callable[[], bool],
    ) -> None:
        """Apply all patches. ``expects_more`` says whether acknowledgements are missing."""
        self.patch_storage()
        self.patch_handle_connack()
        self.patch_mqtt_handler_disconnect()
        self.patch_puback_handling(on_puback)
        self.patch_gmqtt_protocol_connection_lost(on_lost, on_writable, expects_more)

    def patch_storage(self) -> None:
        """Keep gmqtt from storing, replaying and waiting for packets."""
        self.client._persistent_storage = _NoStorage()
        self._handler._resend_qos_callback = _resend_nothing

    def patch_handle_connack(self) -> None:
        """Let ``connect()`` raise every refusal, instead of retrying some of them without a word; keep the properties."""
        handler = self._handler

        def handle(cmd: int, packet: bytes) -> None:
            reason_code = packet[1]
            if reason_code != 0:
                handler._error = MQTTConnectError(reason_code)
                handler._connack_received.set()
                return
            MqttPackageHandler._handle_connack_packet(handler, cmd, packet)
            if handler._error is not None:
                raise NotMqttError("the CONNACK's properties are malformed")
            self.connack_properties = dict(handler._connack_properties or {})
            # gmqtt makes the range of packet ids as small as Receive Maximum, so that an id is used again at once, and a
            # surplus PUBACK of its last use (platform_contract.md, fact 10) would be taken for the next one's.
            handler.id_generator._max = ALL_PACKET_IDS

        handler._handle_connack_packet = handle

    def patch_mqtt_handler_disconnect(self) -> None:
        """Remember reason and properties of the server's DISCONNECT and close, instead of reconnecting from inside gmqtt."""
        handler = self._handler

        def handle(_cmd: int, packet: bytes) -> None:
            handler._connection_lost.set()
            # gmqtt makes an empty DISCONNECT up when the transport ends.
            if packet:
                properties = handler._parse_properties(packet[1:])[0] if len(packet) > 1 else {}
                self._disconnect = Loss(None, packet[0], properties)
                handler.current_connection._transport.close()

        handler._handle_disconnect_packet = handle

    def patch_puback_handling(self, on_puback: PubackCallback) -> None:
        """Read the reason code and the properties of every PUBACK."""
        handler = self._handler

        def handle(_cmd: int, packet: bytes) -> None:
            (packet_id,) = struct.unpack_from("!H", packet)
            reason_code = packet[2] if len(packet) > 2 else 0
            properties = handler._parse_properties(packet[3:])[0] if len(packet) > 3 else {}
            handler.id_generator.free_id(packet_id)
            on_puback(packet_id, reason_code, properties or {})

        handler._handle_puback_packet = handle

    def patch_gmqtt_protocol_connection_lost(
        self, on_lost: LostCallback, on_writable: WritableCallback, expects_more: Callable[[], bool]
    ) -> None:
        """Make connections whose end is reported with its cause, and that say when the socket takes no more."""
        client, handler = self.client, self._handler

        def lost(error: Exception | None) -> None:
            on_lost(self._disconnect or Loss(error))

        async def create_connection(host: str, port: int, ssl: Any, clean_session: bool, keepalive: int) -> MQTTConnection:
            client._connack_received.clear()
            client._connection_lost.clear()
            protocol_factory = partial(
                _Protocol,
                on_lost=lost,
                on_writable=on_writable,
                expects_more=expects_more,
                connection_state=client._connection_state,
                id_generator=handler.id_generator,
            )
            loop = asyncio.get_running_loop()
            shutdown = TLS_SHUTDOWN_SECONDS if ssl else None
            transport, protocol = await loop.create_connection(protocol_factory, host, port, ssl=ssl, ssl_shutdown_timeout=shutdown)
            return _Connection(transport, protocol, clean_session, keepalive, package_handler=handler)

        client._create_connection = create_connection

    def fail(self, error: Exception) -> None:
        """End the connection at once, because of ``error``."""
        connection = self.client._connection
        if connection is not None:
            connection._protocol.fail(error)


async def _resend_nothing() -> None: ...
