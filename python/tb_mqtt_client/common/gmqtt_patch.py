"""Extend gmqtt 0.8, one client at a time.

gmqtt drops the reason code of an acknowledgement, frees a packet id for an acknowledgement of any kind, reconnects on its own,
replays stored packets, waits forever for a missing CONNACK, and logs a malformed packet with a traceback and continues.
``PatchUtils`` replaces these parts in one client: gmqtt writes the packets, and packets from the server are read and handled here.
The classes of gmqtt are never changed. ``tests/unit/test_gmqtt_internals.py`` names every internal of gmqtt that is used here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from gmqtt import Client
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError

from tb_mqtt_client.common.mqtt.acknowledgements import AckWatch, PacketIds
from tb_mqtt_client.common.mqtt.keep_alive import BLOCKED_LOOP_SECONDS
from tb_mqtt_client.common.mqtt.packets import (
    TYPE_BITS,
    NotMqttError,
    PacketType,
    Properties,
    read_acknowledgement,
    read_connack,
    read_properties,
    read_publish,
    read_suback,
    read_unsuback,
)
from tb_mqtt_client.common.mqtt.session_terms import SessionTerms
from tb_mqtt_client.common.mqtt.transport import PromptConnection, ReadingProtocol, WritableCallback
from tb_mqtt_client.common.network.route import Route, open_transport
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.reason_codes import ReasonCode, reason_name
from tb_mqtt_client.entities.server_address import ServerAddress

PacketHandler = Callable[[int, bytes], None]
"""Called with the first byte and the body of a packet."""
PubackCallback = Callable[[int, int, Properties], None]
"""Called with packet id, reason code and properties of a PUBACK."""

MAX_FORGIVEN = 3
"""How often the time for a PUBACK is restarted after a blocked loop, so that a loop that is always blocked notices a loss."""


class _WithoutPayloads(logging.LoggerAdapter[logging.Logger]):
    """Logs the length of payloads instead of their content, since the platform also sends credentials."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            super().log(level, msg, *(f"{len(one)} bytes" if isinstance(one, bytes) else one for one in args), **kwargs)


GMQTT_LOGGER = _WithoutPayloads(logging.getLogger("gmqtt.client"), {})
"""Receives what gmqtt logs about a connection."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a connection ended."""

    error: Exception | None = None
    """The error of the transport, or of reading a packet."""
    reason_code: int | None = None
    """The reason code of the server's DISCONNECT; MQTT 3.1.1 has none."""
    properties: Properties | None = None
    """The properties of the server's DISCONNECT."""


LostCallback = Callable[[Loss], None]
"""Called once, when the connection has ended."""
OpenTransport = Callable[[Callable[[], Any]], Awaitable[tuple[Any, Any]]]
"""Opens a transport for a protocol factory; returns the transport and its protocol."""
OverdueCallback = Callable[[float], Awaitable[None]]
"""Called with the time of the event loop when a PUBACK is overdue; ends the connection."""


class PatchUtils:
    """Extends one gmqtt client, which must not be connected yet. Other clients in the process are not affected."""

    DISCONNECT_REASON_CODES: ClassVar[dict[int, str]] = {
        0x00: "Normal disconnection",
        **{
            code: reason_name(code)
            for code in (
                *(0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90),
                *range(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED + 1),
            )
        },
    }
    """The names of the reason codes of a DISCONNECT (MQTT 5, section 3.14.2.1)."""

    def __init__(
        self,
        client: Client,
        retry_interval: float = 15,
        *,
        tasks: Tasks,
        on_lost: LostCallback | None = None,
        on_writable: WritableCallback | None = None,
        open_transport: OpenTransport | None = None,
        expected_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Prepare the patches; ``apply`` applies them.

        Args:
            client: The gmqtt client, which is not connected yet.
            retry_interval: Seconds that the server has for a PUBACK.
            tasks: Owns the task that watches for missing PUBACKs.
            on_lost: Called once, when the connection has ended.
            on_writable: Called with whether the socket accepts more bytes.
            open_transport: Opens the connection. Without it, the host and port that ``connect()`` is given are connected directly.
            expected_seconds: Returns the seconds that the data in flight may take on this link.
        """
        self.client = client
        self._tasks = tasks
        self.retry_interval = retry_interval
        self.terms: SessionTerms = SessionTerms()
        """The terms of the session, from the CONNACK."""
        self.on_overdue: OverdueCallback = self._fail_overdue
        """Called when the PUBACK of a publish is overdue."""
        self._expected_seconds = expected_seconds
        self._on_lost = on_lost or _ignore
        self._on_writable = on_writable or _ignore
        self._open_transport = open_transport
        self._disconnect: Loss | None = None
        self._handler = client._package_handler
        self.packet_ids: PacketIds = PacketIds()
        self._handler.id_generator = self.packet_ids
        self._packet_handlers: dict[int, PacketHandler] = {}
        self._unacknowledged = AckWatch()
        self._retry_task: asyncio.Task[None] | None = None

    def apply(self, on_puback_with_reason_and_properties: PubackCallback) -> None:
        """Apply all patches.

        Args:
            on_puback_with_reason_and_properties: Called with the packet id, the reason code and the properties of each PUBACK.
        """
        self.patch_storage()
        self.patch_handle_connack()
        self.patch_mqtt_handler_disconnect()
        self.patch_puback_handling(on_puback_with_reason_and_properties)
        self.patch_inbound_publish()
        self.patch_subscription_acknowledgements()
        self.patch_gmqtt_protocol_connection_lost()

    @property
    def _version(self) -> int:
        version: int = self.client._connection_state.protocol_version
        return version

    def receive(self, first_byte: int, body: bytes) -> None:
        """Handle a packet from the server. An exception that the packet did not cause goes to the loop's exception handler.

        Args:
            first_byte: The first byte of the packet, with its type.
            body: The packet without its fixed header.

        Raises:
            NotMqttError: The packet is malformed, or a server must not send it now.
        """
        handle = self._packet_handlers.get(first_byte & TYPE_BITS)
        if handle is None:
            raise NotMqttError(f"a server cannot send a packet that begins with 0x{first_byte:02x}", ReasonCode.PROTOCOL_ERROR)
        try:
            handle(first_byte, body)
        except NotMqttError:
            raise
        except Exception as error:  # noqa: BLE001  # a defect: this packet is lost, but the connection continues
            context = {"message": f"A packet that begins with 0x{first_byte:02x} was not handled", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def patch_storage(self) -> None:
        """Replace gmqtt's storage, so that it records when packets were sent, and gmqtt neither resends them nor waits for them."""
        self.client._persistent_storage = self._unacknowledged

    def patch_handle_connack(self) -> None:
        """Let ``connect()`` raise every refusal instead of retrying some of them, and keep the terms of the session."""
        handler = self._handler

        def handle(_first_byte: int, body: bytes) -> None:
            if handler._connack_received.is_set():
                raise NotMqttError("the server sent a second CONNACK", ReasonCode.PROTOCOL_ERROR)
            connack = read_connack(body, self._version)
            handler._error = MQTTConnectError(connack.reason_code) if connack.reason_code else None
            self.terms = SessionTerms.of(connack.properties)
            if not connack.reason_code:
                handler.current_connection.start_keep_alive(self.terms.server_keep_alive)
            handler._connack_received.set()

        self._packet_handlers[PacketType.CONNACK] = handle
        self._packet_handlers[PacketType.PINGRESP] = _ignore_packet

    def patch_mqtt_handler_disconnect(self) -> None:
        """Keep reason code and properties of the server's DISCONNECT and close, instead of reconnecting from inside gmqtt."""
        handler = self._handler

        def end(_cmd: int, _packet: bytes) -> None:
            handler._connection_lost.set()

        def handle(_first_byte: int, body: bytes) -> None:
            reason_code = self.extract_reason_code(body)
            try:
                properties = self.parse_mqtt_properties(body[1:])
            except NotMqttError:
                # The connection ends anyway, and its reason code matters more than an error in its properties.
                properties = {}
            self._disconnect = Loss(None, ReasonCode.NORMAL_DISCONNECTION if reason_code is None else reason_code, properties)
            handler.current_connection._transport.close()

        # gmqtt calls this with an empty DISCONNECT of its own when the transport has ended.
        handler._handle_disconnect_packet = end
        self._packet_handlers[PacketType.DISCONNECT] = handle

    @staticmethod
    def extract_reason_code(packet: bytes) -> int | None:
        """Return the reason code in the body of a DISCONNECT; ``None`` for an empty body."""
        return packet[0] if packet else None

    @staticmethod
    def parse_mqtt_properties(packet: bytes) -> Properties:
        """Return properties as lists of values by name.

        Args:
            packet: The bytes from the length of the properties on (MQTT 5, section 2.2.2).

        Raises:
            NotMqttError: The properties are malformed.
        """
        return read_properties(packet)

    def patch_puback_handling(self, on_puback_with_reason_and_properties: PubackCallback) -> None:
        """Read the reason code and the properties of every PUBACK."""
        packet_ids, unacknowledged = self.packet_ids, self._unacknowledged

        def handle(_first_byte: int, body: bytes) -> None:
            packet_id, reason_code, properties = read_acknowledgement("PUBACK", body, self._version)
            if packet_ids.acknowledge(packet_id, PacketType.PUBACK):
                unacknowledged.acknowledge(packet_id)
            on_puback_with_reason_and_properties(packet_id, reason_code, properties)

        def ignore_surplus(first_byte: int, body: bytes) -> None:
            packet = PacketType(first_byte & TYPE_BITS).name
            packet_id, _, _ = read_acknowledgement(packet, body, self._version)
            GMQTT_LOGGER.debug("%s for packet id %d: no publish of this client gets one", packet, packet_id)

        self._packet_handlers[PacketType.PUBACK] = handle
        # This package publishes nothing with QoS 2.
        self._packet_handlers[PacketType.PUBREC] = self._packet_handlers[PacketType.PUBCOMP] = ignore_surplus

    def patch_inbound_publish(self) -> None:
        """Acknowledge each message as soon as it arrives, except with packet id 0 (docs/platform_contract.md,
        section 1).
        """
        handler = self._handler
        unreleased: set[int] = set()

        def handle(first_byte: int, body: bytes) -> None:
            topic, payload, qos, packet_id, properties = read_publish(first_byte, body, self._version)
            if packet_id and qos == 1:
                handler._send_puback(packet_id)
            elif packet_id:
                handler._send_pubrec(packet_id)
                if packet_id in unreleased:
                    return
                unreleased.add(packet_id)
            GMQTT_LOGGER.debug("RECV %s, QoS %d: %s", topic, qos, payload)
            handler.on_message(topic, payload, qos, properties)

        def release(_first_byte: int, body: bytes) -> None:
            packet_id, _, _ = read_acknowledgement("PUBREL", body, self._version)
            if packet_id in unreleased:
                unreleased.remove(packet_id)
                handler._send_pubcomp(packet_id, False)

        self._packet_handlers[PacketType.PUBLISH] = handle
        self._packet_handlers[PacketType.PUBREL] = release

    def patch_subscription_acknowledgements(self) -> None:
        """Pass on SUBACKs and UNSUBACKs, but only for a SUBSCRIBE or UNSUBSCRIBE with their packet id."""
        handler, packet_ids = self._handler, self.packet_ids

        def granted(_first_byte: int, body: bytes) -> None:
            packet_id, reason_codes, properties = read_suback(body, self._version)
            if packet_ids.acknowledge(packet_id, PacketType.SUBACK):
                handler.on_subscribe(packet_id, reason_codes, properties)

        def unsubscribed(_first_byte: int, body: bytes) -> None:
            packet_id, reason_codes, _ = read_unsuback(body, self._version)
            if packet_ids.acknowledge(packet_id, PacketType.UNSUBACK):
                handler.on_unsubscribe(packet_id, reason_codes)

        self._packet_handlers[PacketType.SUBACK] = granted
        self._packet_handlers[PacketType.UNSUBACK] = unsubscribed

    def patch_gmqtt_protocol_connection_lost(self) -> None:
        """Make connections that report the cause of their end, and whether the socket accepts more data."""
        client, handler = self.client, self._handler

        def lost(error: Exception | None) -> None:
            if self._retry_task is not None:
                self._retry_task.cancel()
            self._on_lost(self._disconnect or Loss(error))

        async def create_connection(host: str, port: int, ssl: Any, clean_session: bool, keepalive: int) -> MQTTConnection:
            client._connack_received.clear()
            client._connection_lost.clear()
            protocol_factory = partial(
                ReadingProtocol,
                receive=self.receive,
                on_lost=lost,
                on_writable=self._on_writable,
                expects_more=lambda: self._unacknowledged.oldest is not None,
                connection_state=client._connection_state,
                id_generator=self.packet_ids,
            )
            if self._open_transport is not None:
                transport, protocol = await self._open_transport(protocol_factory)
            else:
                transport, protocol = await open_transport(protocol_factory, Route(ServerAddress(host, port), ssl or None))
            return PromptConnection(
                transport, protocol, clean_session, keepalive, package_handler=handler, packet_ids=self.packet_ids
            )

        client._create_connection = create_connection

    def start_retry_task(self) -> None:
        """Start to watch for missing PUBACKs, until the connection ends."""
        if self._retry_task is None:
            self._retry_task = self._tasks.start(self._retry_loop(), "acknowledgements", runs_callbacks=False)
            self._retry_task.add_done_callback(self._watch_ended)

    async def stop_retry_task(self) -> None:
        """Stop watching for missing PUBACKs."""
        if self._retry_task is not None:
            await self._tasks.end([self._retry_task])
            self._retry_task = None

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        """Close the connection if a defect has ended its watch: the next connection is watched again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": f"{task.get_name()} failed: closing the connection", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)
            self.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    async def _retry_loop(self) -> None:
        """Close the connection when a PUBACK is overdue, so that all its messages are sent on the next one.

        This is how a publish is retried: MQTT 5 forbids resending it on a live connection (section 4.4), and the platform would
        store it twice (docs/platform_contract.md, fact 9).
        """
        time = asyncio.get_running_loop().time
        watch = self._unacknowledged
        forgiven = 0
        while True:
            if watch.oldest is None:
                watch.filled.clear()
                await watch.filled.wait()
                continue
            since, patience = watch.since, self._patience()
            await _sleep_until(since + patience / 2)
            if watch.since != since:
                forgiven = 0
                continue
            left = self._bytes_left()
            await _sleep_until(due := since + patience)
            if watch.since != since:
                forgiven = 0
            elif time() - due > BLOCKED_LOOP_SECONDS and forgiven < MAX_FORGIVEN:
                # PUBACKs may be waiting to be read, or the publish to be written.
                forgiven += 1
                watch.restart()
            elif self._is_leaving(left):
                watch.restart()
            elif (packet_id := self.overdue(now := time())) is not None:
                await self.on_overdue(now)
                if watch.oldest == packet_id:
                    # The connection is closed because of it.
                    return

    def _patience(self) -> float:
        """Return the seconds that the server has for the oldest PUBACK: more on a link that is known to be slow."""
        return self.retry_interval + min(self.retry_interval, self._expected_seconds())

    def _bytes_left(self) -> int:
        """Return the number of bytes that have reached the peer."""
        protocol = self.client._connection._protocol
        left: int = protocol.written - protocol.unsent_bytes()
        return left

    def _is_leaving(self, left: int) -> bool:
        """Return whether the oldest publish may be in transit: bytes are unsent, and more than ``left`` have reached the peer."""
        unsent = self.client._connection._protocol.unsent_bytes()
        return bool(unsent) and not self._unacknowledged.overtaken and self._bytes_left() > left

    async def _fail_overdue(self, now: float) -> None:
        self.fail(TimeoutError(f"no PUBACK within {self.retry_interval:g} s for packet id {self.overdue(now)}"))

    def overdue(self, now: float) -> int | None:
        """Return the packet id of the oldest publish if its PUBACK is overdue.

        Args:
            now: The time by which to decide, on the clock of the event loop.
        """
        watch = self._unacknowledged
        return watch.oldest if watch.oldest is not None and watch.since + self._patience() <= now else None

    def forgo(self, packet_id: int) -> None:
        """Stop waiting for a PUBACK. Until it arrives, its packet id is not used again on this connection."""
        self._unacknowledged.acknowledge(packet_id)

    def fail(self, error: Exception) -> None:
        """Close the connection at once, because of ``error``."""
        connection = self.client._connection
        if connection is not None:
            connection._protocol.fail(error)


async def _sleep_until(moment: float) -> None:
    """Wait until ``moment``, on the clock of the event loop."""
    await asyncio.sleep(moment - asyncio.get_running_loop().time())


def _ignore_packet(_first_byte: int, _body: bytes) -> None: ...


def _ignore(_: object) -> None: ...
