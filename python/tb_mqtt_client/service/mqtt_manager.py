"""One MQTT connection: connect, subscribe, publish, acknowledge.

The rule: a message that was published stays here until its PUBACK comes or the connection ends, and then leaves through
exactly one of the two callbacks.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from gmqtt import Client, MQTTConnectError

from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer, NotConnectedError, TBMQTTError
from tb_mqtt_client.common.gmqtt_patch import PatchUtils, Properties
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.reason_codes import reason_name

logger = get_logger(__name__)

Handler = Callable[[str, bytes], Coroutine[Any, Any, None]]
AcknowledgedCallback = Callable[[MqttPublishMessage, int], None]
"""Called with a message and the reason code of its PUBACK."""
ConnectionLostCallback = Callable[[list[MqttPublishMessage]], None]
"""Called with the messages that were not acknowledged, in the order in which they were published."""

CONNECT_TIMEOUT = 10.0
"""Seconds from the first packet to the CONNACK."""
MQTT_3_1_1, MQTT_5 = 4, 5
UNSUPPORTED_VERSION = frozenset({0x01, 0x84})
"""CONNACK codes of a server that does not know MQTT 5: 3.1.1 section 3.2.2.3 and MQTT 5 section 3.2.2.2."""
NO_MATCHING_SUBSCRIBERS = 0x10


class MQTTManager:
    """One connection at a time; a new gmqtt client for each, so that no state of an old session is left."""

    def __init__(
        self,
        client_id: str,
        on_acknowledged: AcknowledgedCallback,
        on_connection_lost: ConnectionLostCallback,
        *,
        mqtt_version: int = MQTT_5,
        max_inflight: int = 100,
    ) -> None:
        self._client_id = client_id
        self._on_acknowledged = on_acknowledged
        self._on_connection_lost = on_connection_lost
        self._mqtt_version = mqtt_version
        self._max_inflight = max_inflight
        self._client: Client | None = None
        self._connected = False
        self._open_for_traffic = False
        self._in_flight: dict[int, MqttPublishMessage] = {}
        self._subscriptions: dict[int, asyncio.Future[int]] = {}
        self._handlers: dict[str, Handler] = {}
        self._handler_tasks: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lost = asyncio.Event()
        self._lost_cause = ""

    @property
    def mqtt_version(self) -> int:
        """Version of the connection: 5, or 4 for MQTT 3.1.1."""
        return self._mqtt_version

    @property
    def in_flight(self) -> int:
        """Publishes without an acknowledgement."""
        return len(self._in_flight)

    def is_connected(self) -> bool:
        """Whether a CONNACK was received and the connection has not ended since."""
        return self._connected

    async def connect(
        self,
        host: str,
        port: int = 1883,
        username: str | None = None,
        password: str | None = None,
        keepalive: int = 60,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Connect; with MQTT 3.1.1 when the server knows no newer version.

        Raises ``OSError`` when there is no connection to be had, ``ConnectionRefusedByServer`` with the CONNACK's reason, and
        ``TimeoutError`` when the server says nothing.
        """
        try:
            await self._connect_once(host, port, username, password, keepalive, ssl_context)
        except ConnectionRefusedByServer as refusal:
            if refusal.reason_code not in UNSUPPORTED_VERSION or self._mqtt_version != MQTT_5:
                raise
            logger.info("The server does not know MQTT 5, MQTT 3.1.1 is used")
            self._mqtt_version = MQTT_3_1_1
            await self._connect_once(host, port, username, password, keepalive, ssl_context)

    async def _connect_once(
        self,
        host: str,
        port: int,
        username: str | None,
        password: str | None,
        keepalive: int,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        client = Client(self._client_id, clean_session=True)
        self._client = client
        PatchUtils(client).apply(
            on_puback=self._handle_puback,
            on_lost=lambda exc, reason: self._handle_lost(client, exc, reason),
        )
        client.on_message = self._handle_message
        client.on_subscribe = self._handle_suback
        if username is not None:
            client.set_auth_credentials(username, password)
        self._lost.clear()
        self._lost_cause = ""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._until_connack(client, host, port, keepalive, ssl_context)
        except BaseException:
            await self._close(client)
            raise
        self._connected = True

    async def _until_connack(
        self, client: Client, host: str, port: int, keepalive: int, ssl_context: ssl.SSLContext | None
    ) -> None:
        """gmqtt's ``connect()`` waits for ever when the server closes before its CONNACK, so both are watched."""
        connecting = asyncio.ensure_future(
            client.connect(host, port, ssl=ssl_context or False, keepalive=keepalive, version=self._mqtt_version)
        )
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({connecting, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise ConnectionResetError(f"{host}:{port} closed the connection before its CONNACK ({self._lost_cause})")
            try:
                connecting.result()
            except MQTTConnectError as refusal:
                raise ConnectionRefusedByServer(refusal._code, self._mqtt_version) from None
        finally:
            connecting.cancel()
            lost.cancel()
            await asyncio.gather(connecting, lost, return_exceptions=True)

    def open_for_traffic(self) -> None:
        """The session is set up: from now on queued messages may be published."""
        self._open_for_traffic = True
        self._update_writable()

    async def wait_writable(self) -> None:
        """Wait until there is a session and room in the in-flight window."""
        await self._writable.wait()

    async def wait_idle(self) -> None:
        """Wait until every publish is acknowledged."""
        await self._idle.wait()

    async def wait_lost(self) -> str:
        """Wait until the connection has ended; gives the cause."""
        await self._lost.wait()
        return self._lost_cause

    def publish(self, message: MqttPublishMessage) -> None:
        """Write a PUBLISH. A QoS 0 message counts as acknowledged when it is written.

        Raises ``NotConnectedError`` without a connection.
        """
        if self._client is None or not self._connected:
            raise NotConnectedError("there is no connection to publish on")
        packet_id, _ = self._client._connection.publish(message)
        message.mark_as_sent(packet_id)
        if packet_id is None:
            self._on_acknowledged(message, 0)
            return
        self._in_flight[packet_id] = message
        self._update_writable()

    async def subscribe(self, topic: str, qos: int = 1) -> None:
        """Subscribe, and wait for the SUBACK. Raises ``TBMQTTError`` when the server refuses or the connection ends."""
        if self._client is None or not self._connected:
            raise NotConnectedError("there is no connection to subscribe on")
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        packet_id = self._client.subscribe(topic, qos=qos)
        self._subscriptions[packet_id] = granted
        try:
            reason_code = await granted
        finally:
            self._subscriptions.pop(packet_id, None)
        if reason_code >= 0x80:
            raise TBMQTTError(f"The server refused the subscription to {topic}: {reason_name(reason_code)}")

    def register_handler(self, topic_filter: str, handler: Handler) -> None:
        """Give messages of a topic (``+`` stands for one level) to a coroutine function."""
        self._handlers[topic_filter] = handler

    def unregister_handler(self, topic_filter: str) -> None:
        """Forget a handler."""
        self._handlers.pop(topic_filter, None)

    async def disconnect(self) -> None:
        """Send DISCONNECT and close. What is unacknowledged leaves through ``on_connection_lost``."""
        client = self._client
        if client is not None:
            await self._close(client)
        for task in self._handler_tasks:
            task.cancel()
        await asyncio.gather(*self._handler_tasks, return_exceptions=True)

    async def _close(self, client: Client) -> None:
        if client._connection is not None:
            await client.disconnect()
        self._end_session(client, "closed by this client")

    def _handle_puback(self, packet_id: int, reason_code: int, properties: Properties) -> None:
        message = self._in_flight.pop(packet_id, None)
        if message is None:
            # A gateway payload with N devices gets N PUBACKs from servers before 4.2.1 (contract, fact 10).
            logger.debug("PUBACK for packet id %d, which is not in flight", packet_id)
            return
        if reason_code >= 0x80:
            logger.debug("PUBACK %s for %r, properties %s", reason_name(reason_code), message, properties)
        self._on_acknowledged(message, 0 if reason_code == NO_MATCHING_SUBSCRIBERS else reason_code)
        self._update_writable()

    def _handle_suback(self, _client: Client, packet_id: int, granted: tuple[int, ...], _properties: Properties) -> None:
        waiting = self._subscriptions.get(packet_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(granted[0])

    def _handle_message(self, _client: Client, topic: str, payload: bytes, _qos: int, _properties: Properties) -> int:
        for topic_filter, handler in self._handlers.items():
            if _matches(topic_filter, topic):
                task = asyncio.ensure_future(handler(topic, payload))
                self._handler_tasks.add(task)
                task.add_done_callback(self._handler_done)
                return 0
        logger.debug("No handler for a message on %s", topic)
        return 0

    def _handler_done(self, task: asyncio.Task[None]) -> None:
        self._handler_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            loop = task.get_loop()
            loop.call_exception_handler({"message": "Error in a message handler", "exception": error, "task": task})

    def _handle_lost(self, client: Client, exc: Exception | None, reason_code: int | None) -> None:
        if reason_code is not None:
            cause = f"DISCONNECT from the server: {reason_name(reason_code)}"
        else:
            cause = repr(exc) if exc else "closed by the server"
        self._end_session(client, cause)

    def _end_session(self, client: Client, cause: str) -> None:
        if client is not self._client:
            return
        self._client = None
        self._lost_cause = cause
        self._connected = self._open_for_traffic = False
        unacknowledged = list(self._in_flight.values())
        self._in_flight.clear()
        self._update_writable()
        for waiting in self._subscriptions.values():
            if not waiting.done():
                waiting.set_exception(TBMQTTError(f"The connection ended: {cause}"))
        self._on_connection_lost(unacknowledged)
        self._lost.set()

    def _update_writable(self) -> None:
        if self._in_flight:
            self._idle.clear()
        else:
            self._idle.set()
        if self._open_for_traffic and len(self._in_flight) < self._max_inflight:
            self._writable.set()
        else:
            self._writable.clear()


def _matches(topic_filter: str, topic: str) -> bool:
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    return len(filter_levels) == len(levels) and all(
        expected in {"+", level} for expected, level in zip(filter_levels, levels, strict=True)
    )
