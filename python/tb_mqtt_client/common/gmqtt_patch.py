"""What gmqtt 0.8 lacks, added to one client at a time.

gmqtt acknowledges publishes without telling the reason code, reconnects by itself, replays stored packets and waits for ever
for a CONNACK that does not come. ``PatchUtils`` overrides these points on the instances that belong to one client; gmqtt's
classes are never changed. ``tests/unit/test_gmqtt_internals.py`` names every internal that is leaned on here.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from gmqtt import Client
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler
from gmqtt.mqtt.protocol import MQTTProtocol
from gmqtt.storage import PersistentStorage

from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)

Properties = dict[str, Any]
PubackCallback = Callable[[int, int, Properties], None]
"""Called with packet id, reason code and properties of a PUBACK."""
LostCallback = Callable[["Exception | None", "int | None"], None]
"""Called once with the transport's error and the reason code of the server's DISCONNECT, each ``None`` when there was none."""


class _Protocol(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
    """Tells why the transport ended; gmqtt only tells that it did."""

    def __init__(self, *args: Any, on_lost: Callable[[Exception | None], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            super().connection_lost(exc)
        self._on_lost(exc)


class _NoStorage(PersistentStorage):  # type: ignore[misc]  # gmqtt has no types
    """Keeps nothing: what is unacknowledged is kept as messages by ``MQTTManager``, with the futures that wait for it."""

    def push_message(self, mid: int, raw_package: bytes) -> None: ...


class PatchUtils:
    """Changes one gmqtt client. The client must not be connected yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.disconnect_reason: int | None = None
        self._handler = client._package_handler

    def apply(self, on_puback: PubackCallback, on_lost: LostCallback) -> None:
        """Apply all patches."""
        self.patch_storage()
        self.patch_handle_connack()
        self.patch_mqtt_handler_disconnect()
        self.patch_puback_handling(on_puback)
        self.patch_gmqtt_protocol_connection_lost(on_lost)

    def patch_storage(self) -> None:
        """Keep gmqtt from storing, replaying and waiting for packets."""
        self.client._persistent_storage = _NoStorage()
        self._handler._resend_qos_callback = _resend_nothing

    def patch_handle_connack(self) -> None:
        """Let ``connect()`` raise every refusal, instead of retrying some of them without a word."""
        handler = self._handler

        def handle(cmd: int, packet: bytes) -> None:
            reason_code = packet[1]
            if reason_code == 0:
                MqttPackageHandler._handle_connack_packet(handler, cmd, packet)
                return
            handler._error = MQTTConnectError(reason_code)
            handler._connack_received.set()

        handler._handle_connack_packet = handle

    def patch_mqtt_handler_disconnect(self) -> None:
        """Remember the reason of the server's DISCONNECT and close, instead of reconnecting from inside gmqtt."""
        handler = self._handler

        def handle(_cmd: int, packet: bytes) -> None:
            handler._connection_lost.set()
            # gmqtt makes an empty DISCONNECT up when the transport ends.
            if packet:
                self.disconnect_reason = packet[0]
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

    def patch_gmqtt_protocol_connection_lost(self, on_lost: LostCallback) -> None:
        """Make connections whose end is reported with its cause."""
        client, handler = self.client, self._handler

        def lost(exc: Exception | None) -> None:
            on_lost(exc, self.disconnect_reason)

        async def create_connection(host: str, port: int, ssl: Any, clean_session: bool, keepalive: int) -> MQTTConnection:
            client._connack_received.clear()
            client._connection_lost.clear()
            protocol_factory = partial(
                _Protocol,
                on_lost=lost,
                connection_state=client._connection_state,
                id_generator=handler.id_generator,
            )
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(protocol_factory, host, port, ssl=ssl)
            return MQTTConnection(transport, protocol, clean_session, keepalive, package_handler=handler)

        client._create_connection = create_connection


async def _resend_nothing() -> None: ...
