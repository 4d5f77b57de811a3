"""What gmqtt 0.8 lacks, added to one client at a time.

gmqtt acknowledges publishes without telling the reason code, reconnects by itself, replays stored packets, waits for ever for a
CONNACK that does not come, and keeps a connection on which nothing readable arrives. ``PatchUtils`` overrides these points on
the instances that belong to one client; gmqtt's classes are never changed. ``tests/unit/test_gmqtt_internals.py`` names every
internal that is leaned on here.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from gmqtt import Client, Message
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler
from gmqtt.mqtt.package import PublishPacket as GmqttPublishPacket
from gmqtt.mqtt.property import Property
from gmqtt.mqtt.utils import unpack_variable_byte_integer
from gmqtt.storage import PersistentStorage

from tb_mqtt_client.common.async_utils import await_or_stop, end_tasks
from tb_mqtt_client.common.gmqtt_transport import NotMqttError, PromptConnection, ReadingProtocol, WritableCallback
from tb_mqtt_client.constants.reason_codes import ReasonCode, reason_name

Properties = dict[str, Any]
PubackCallback = Callable[[int, int, Properties], None]
"""Called with packet id, reason code and properties of a PUBACK."""

TLS_SHUTDOWN_SECONDS = 1.0
"""How long a server may take to answer the end of a TLS session; asyncio's own limit is 30."""
ALL_PACKET_IDS = 65536
BLOCKED_LOOP_SECONDS = 1.0
"""A timer that fires so much too late says that the loop was blocked: PUBACKs may be waiting to be read."""


class _WithoutPayloads(logging.LoggerAdapter[logging.Logger]):
    """Says how long a payload is, instead of what is in it: the platform sends credentials, too."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            super().log(level, msg, *(f"{len(one)} bytes" if isinstance(one, bytes) else one for one in args), **kwargs)


GMQTT_LOGGER = _WithoutPayloads(logging.getLogger("gmqtt.client"), {})
"""What gmqtt logs about a connection."""


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
OverdueCallback = Callable[[float], Awaitable[None]]
"""Called with the loop's time; ends the connection."""


class PublishPacket(GmqttPublishPacket):  # type: ignore[misc]  # gmqtt has no types
    """Builds a PUBLISH, also one with a packet id that was chosen before."""

    @classmethod
    def build_package(cls, message: Message, protocol: Any, mid: int | None = None) -> tuple[int | None, bytearray]:
        """Packet id and bytes, as ``protocol`` would send them. ``None`` takes the protocol's next packet id."""
        if mid is not None:
            protocol = SimpleNamespace(proto_ver=protocol.proto_ver, id_generator=SimpleNamespace(next_id=lambda: mid))
        built: tuple[int | None, bytearray] = super().build_package(message, protocol)
        return built


class _Unacknowledged(PersistentStorage):  # type: ignore[misc]  # gmqtt has no types
    """When each publish was sent that has no PUBACK, by its packet id and oldest first.

    Not the packets: what is unacknowledged is kept as messages by ``MQTTManager``, with the futures that wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent_at: dict[int, float] = {}
        self.filled = asyncio.Event()

    def push_message(self, mid: int, raw_package: bytes) -> None:
        self.sent_at[mid] = asyncio.get_running_loop().time()
        if not self.filled.is_set():
            self.filled.set()

    def oldest(self) -> float | None:
        """The loop's time of the oldest publish."""
        for sent_at in self.sent_at.values():
            return sent_at
        self.filled.clear()
        return None


class PatchUtils:
    """Changes one gmqtt client. The client must not be connected yet."""

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
    """Reason codes of a DISCONNECT (MQTT 5, section 3.14.2.1) and their names."""

    def __init__(
        self,
        client: Client,
        stop_event: asyncio.Event | None = None,
        retry_interval: float = 15,
        *,
        on_lost: LostCallback | None = None,
        on_writable: WritableCallback | None = None,
    ) -> None:
        """``retry_interval``: seconds that the server has for a PUBACK. Nothing is watched once ``stop_event`` is set."""
        self.client = client
        self.retry_interval = retry_interval
        self.connack_properties: Properties = {}
        """Lists of values by name; empty with MQTT 3.1.1."""
        self.on_overdue: OverdueCallback = self._fail_overdue
        """Called when a publish has no PUBACK in time."""
        self._stop_event = stop_event or asyncio.Event()
        self._on_lost = on_lost or _ignore
        self._on_writable = on_writable or _ignore
        self._disconnect: Loss | None = None
        self._handler = client._package_handler
        self._unacknowledged = _Unacknowledged()
        self._retry_task: asyncio.Task[None] | None = None

    def apply(self, on_puback_with_reason_and_properties: PubackCallback) -> None:
        """Apply all patches."""
        self.patch_storage()
        self.patch_handle_connack()
        self.patch_mqtt_handler_disconnect()
        self.patch_puback_handling(on_puback_with_reason_and_properties)
        self.patch_gmqtt_protocol_connection_lost()

    def patch_storage(self) -> None:
        """Remember when a packet was sent, and keep gmqtt from replaying packets and waiting for them."""
        self.client._persistent_storage = self._unacknowledged
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
            reason_code = self.extract_reason_code(packet)
            if reason_code is not None:
                self._disconnect = Loss(None, reason_code, self.parse_mqtt_properties(packet[1:]))
                handler.current_connection._transport.close()

        handler._handle_disconnect_packet = handle

    @staticmethod
    def extract_reason_code(packet: bytes) -> int | None:
        """Reason code of a DISCONNECT's body; ``None`` for the empty one that gmqtt makes up when a transport ends."""
        return packet[0] if packet else None

    @staticmethod
    def parse_mqtt_properties(packet: bytes) -> Properties:
        """Lists of values by name, from the length of the properties on (MQTT 5, section 2.2.2). Raises ``NotMqttError``."""
        properties: Properties = {}
        if not packet:
            return properties
        length, rest = unpack_variable_byte_integer(packet)
        if length > len(rest):
            raise NotMqttError("a packet's properties are malformed")
        unread = rest[:length]
        while unread:
            known = Property.factory(id_=unread[0])
            if known is None:
                raise NotMqttError(f"a packet has the unknown property 0x{unread[0]:02x}")
            values, unread = known.loads(unread[1:])
            for name, value in values.items():
                properties.setdefault(name, []).append(value)
        return properties

    def patch_puback_handling(self, on_puback_with_reason_and_properties: PubackCallback) -> None:
        """Read the reason code and the properties of every PUBACK."""
        handler = self._handler
        sent_at = self._unacknowledged.sent_at

        def handle(_cmd: int, packet: bytes) -> None:
            (packet_id,) = struct.unpack_from("!H", packet)
            reason_code = packet[2] if len(packet) > 2 else 0
            properties = self.parse_mqtt_properties(packet[3:])
            handler.id_generator.free_id(packet_id)
            sent_at.pop(packet_id, None)
            on_puback_with_reason_and_properties(packet_id, reason_code, properties)

        handler._handle_puback_packet = handle

    def patch_gmqtt_protocol_connection_lost(self) -> None:
        """Make connections whose end is reported with its cause, and that say when the socket takes no more."""
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
                on_lost=lost,
                on_writable=self._on_writable,
                expects_more=lambda: bool(self._unacknowledged.sent_at),
                connection_state=client._connection_state,
                id_generator=handler.id_generator,
            )
            loop = asyncio.get_running_loop()
            shutdown = TLS_SHUTDOWN_SECONDS if ssl else None
            transport, protocol = await loop.create_connection(protocol_factory, host, port, ssl=ssl, ssl_shutdown_timeout=shutdown)
            return PromptConnection(transport, protocol, clean_session, keepalive, package_handler=handler)

        client._create_connection = create_connection

    def start_retry_task(self) -> None:
        """Watch for publishes that get no PUBACK, until the connection ends."""
        if self._retry_task is None:
            self._retry_task = asyncio.create_task(self._retry_loop(), name="tb-mqtt-client acknowledgements")

    async def stop_retry_task(self) -> None:
        """Watch no longer."""
        if self._retry_task is not None:
            await end_tasks([self._retry_task])
            self._retry_task = None

    async def _retry_loop(self) -> None:
        """End the connection that swallows a publish, so that all its messages go on the next one.

        That is how a publish is retried: MQTT 5 forbids another PUBLISH on a live connection (section 4.4), and the platform
        would store it twice (platform_contract.md, fact 9).
        """
        time = asyncio.get_running_loop().time
        unacknowledged, stop_event = self._unacknowledged, self._stop_event
        while not stop_event.is_set():
            oldest = unacknowledged.oldest()
            if oldest is None:
                await await_or_stop(unacknowledged.filled.wait(), stop_event, None)
                continue
            due = oldest + self.retry_interval
            await self._wait_stopped(due)
            if time() - due > BLOCKED_LOOP_SECONDS:
                await self._wait_stopped(time() + BLOCKED_LOOP_SECONDS)
            if self.overdue(now := time()) is not None and not stop_event.is_set():
                await self.on_overdue(now)
                return

    async def _wait_stopped(self, until: float) -> None:
        """Wait for the stop event, but not longer than ``until``, of the loop's time."""
        try:
            async with asyncio.timeout_at(until):
                await self._stop_event.wait()
        except TimeoutError:
            return

    async def _fail_overdue(self, now: float) -> None:
        self.fail(TimeoutError(f"no PUBACK within {self.retry_interval:g} s for packet id {self.overdue(now)}"))

    def overdue(self, now: float) -> int | None:
        """Packet id of the oldest publish, if it should have been acknowledged by ``now``, of the loop's time."""
        for packet_id, sent_at in self._unacknowledged.sent_at.items():
            return packet_id if sent_at + self.retry_interval <= now else None
        return None

    def fail(self, error: Exception) -> None:
        """End the connection at once, because of ``error``."""
        connection = self.client._connection
        if connection is not None:
            connection._protocol.fail(error)


async def _resend_nothing() -> None: ...


def _ignore(_: object) -> None: ...
