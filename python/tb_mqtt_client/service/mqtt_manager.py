"""One MQTT connection: connect, subscribe, publish, acknowledge.

The rule: a message that was published stays here until its PUBACK comes or the connection ends, and then leaves through
exactly one of the two callbacks.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gmqtt import Client, MQTTConnectError

from tb_mqtt_client.common.async_utils import wait_for_set
from tb_mqtt_client.common.clock import now_ms
from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer, SubscriptionRefusedError
from tb_mqtt_client.common.gmqtt_patch import Loss, PatchUtils, Properties
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, ReasonCode, reason_name
from tb_mqtt_client.service.inbound import Handler, InboundDispatcher, RefusedCallback
from tb_mqtt_client.service.inbound_report import InboundReport

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended."""

    cause: str
    """For people."""
    reason_code: int | None = None
    """Of the server's DISCONNECT."""
    worked: bool = False
    """Whether the server took something in it after it was set up."""
    seconds: float = 0.0
    """How long it lasted, from its CONNACK."""


SessionEndCallback = Callable[[SessionEnd], None]
AcknowledgedCallback = Callable[[MqttPublishMessage, int], None]
"""Called with a message and the reason code of its PUBACK."""
ConnectionLostCallback = Callable[[list[MqttPublishMessage], SessionEnd], None]
"""Called with the messages that were not acknowledged, in the order in which they were published."""

CONNECT_TIMEOUT = 10.0
"""Seconds from the first packet to the CONNACK."""
DEFAULT_ACK_TIMEOUT = 30.0
"""Seconds from a PUBLISH to its PUBACK, after which the connection is given up."""
MQTT_3_1_1, MQTT_5 = 4, 5
UNSUPPORTED_VERSION = frozenset({0x01, 0x84})
"""CONNACK codes of a server that does not know MQTT 5: 3.1.1 section 3.2.2.3 and MQTT 5 section 3.2.2.2."""
SERVICE_RESERVE = 16
"""Publishes beyond the window that only service messages may use: they do not wait behind telemetry."""
BLOCKED_LOOP_SECONDS = 1.0
"""A timer that fires so much too late says that the loop was blocked: PUBACKs may be waiting to be read."""


class MQTTManager:
    """One connection at a time; a new gmqtt client for each, so that no state of an old session is left.

    A PUBLISH is not sent again on a live connection: the platform would store it twice (platform_contract.md, fact 9). When its
    PUBACK is missing for too long the connection is given up instead, and all that is unacknowledged goes on the next one.
    """

    def __init__(
        self,
        client_id: str,
        *,
        mqtt_version: int = MQTT_5,
        max_inflight: int = 100,
        ack_timeout: float = DEFAULT_ACK_TIMEOUT,
        inbound: InboundDispatcher | None = None,
    ) -> None:
        self._client_id = client_id
        self._on_acknowledged: AcknowledgedCallback = _ignore
        self._on_connection_lost: ConnectionLostCallback = _ignore
        self._mqtt_version = mqtt_version
        self._max_inflight = max_inflight
        self._ack_timeout = ack_timeout
        self._client: Client | None = None
        self._patches: PatchUtils | None = None
        self._connected = False
        self._connected_at = 0.0
        self._open_for_traffic = False
        self._socket_takes_more = True
        self._worked = False
        self._window = self._service_window = max_inflight
        self._in_flight: dict[int, MqttPublishMessage] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self._subscriptions: dict[int, asyncio.Future[int]] = {}
        self._session_futures: set[asyncio.Future[Any]] = set()
        self._inbound = inbound or InboundDispatcher(InboundReport())
        self._writable = asyncio.Event()
        self._service_writable = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lost = asyncio.Event()
        self.connections = 0
        """Sessions so far."""
        self.last_end: SessionEnd | None = None
        """How the last session ended."""
        self.session_end_callbacks: list[SessionEndCallback] = []
        """Called when a session has ended, after its messages were taken back."""
        self.since: int | None = None
        """When the connection came or ended, whichever was last: milliseconds since the epoch."""

    def patch_client_for_retry_logic(
        self, on_acknowledged: AcknowledgedCallback, on_connection_lost: ConnectionLostCallback
    ) -> None:
        """Say who takes acknowledged messages, and who takes those back that were not."""
        self._on_acknowledged = on_acknowledged
        self._on_connection_lost = on_connection_lost

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

    def is_ready(self) -> bool:
        """Whether the session is set up, so that queued messages may be published."""
        return self._open_for_traffic

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
        patches = PatchUtils(client)
        patches.apply(
            on_puback=self._handle_puback,
            on_lost=lambda loss: self._handle_lost(client, loss),
            on_writable=self._handle_writable,
            expects_more=lambda: bool(self._in_flight),
        )
        self._client, self._patches = client, patches
        client.on_message = self._handle_message
        client.on_subscribe = self._handle_suback
        client.on_unsubscribe = self._handle_unsuback
        if username is not None:
            client.set_auth_credentials(username, password)
        self._lost.clear()
        self._socket_takes_more, self._worked = True, False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._until_connack(client, host, port, keepalive, ssl_context)
        except BaseException:
            await self._close(client)
            raise
        self._apply_receive_maximum(patches.connack_properties)
        self._connected, self._connected_at = True, asyncio.get_running_loop().time()
        self.since = now_ms()
        self.connections += 1

    def _apply_receive_maximum(self, connack_properties: Properties) -> None:
        """How many publishes the server takes without having acknowledged them (MQTT 5, section 3.2.2.3.3)."""
        [receive_maximum] = connack_properties.get("receive_maximum", [0xFFFF])
        self._service_window = min(self._max_inflight + SERVICE_RESERVE, receive_maximum)
        self._window = max(1, min(self._max_inflight, self._service_window - SERVICE_RESERVE))

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
                cause = self.last_end.cause if self.last_end else "no cause"
                raise ConnectionResetError(f"{host}:{port} closed the connection before its CONNACK ({cause})")
            try:
                connecting.result()
            except MQTTConnectError as refusal:
                raise ConnectionRefusedByServer(refusal._code, self._mqtt_version) from None
        finally:
            connecting.cancel()
            lost.cancel()
            await asyncio.gather(connecting, lost, return_exceptions=True)

    def open_for_traffic(self) -> None:
        """The session is set up: from now on queued messages may be published.

        Raises ``ConnectionLostError`` when the connection has ended meanwhile.
        """
        if not self._connected:
            raise ConnectionLostError("the connection ended while its session was set up")
        self._open_for_traffic = True
        self._update_writable()

    def is_writable(self) -> bool:
        """Whether ``wait_writable`` would not wait."""
        return self._writable.is_set()

    async def wait_writable(self) -> None:
        """Wait until there is a session, a socket that takes more, and room in the in-flight window."""
        await wait_for_set(self._writable)

    async def wait_writable_for_service(self) -> None:
        """The same for a message without datapoints, for which some room is kept."""
        await wait_for_set(self._service_writable)

    async def wait_idle(self) -> None:
        """Wait until every publish is acknowledged."""
        await wait_for_set(self._idle)

    async def wait_lost(self) -> SessionEnd:
        """Wait until the connection has ended."""
        await self._lost.wait()
        return self.last_end or SessionEnd("never connected")

    def publish(self, message: MqttPublishMessage) -> None:
        """Write a PUBLISH. A QoS 0 message counts as acknowledged when it is written.

        Raises ``ConnectionLostError`` without a connection.
        """
        if self._client is None or not self._connected:
            raise ConnectionLostError("there is no connection to publish on")
        packet_id, _ = self._client._connection.publish(message)
        message.mark_as_sent(packet_id)
        message.sent_at = asyncio.get_running_loop().time()
        if packet_id is None:
            self._on_acknowledged(message, 0)
            return
        self._in_flight[packet_id] = message
        if self._ack_timer is None:
            self._monitor_ack_timeouts(message.sent_at + self._ack_timeout)
        self._update_writable()

    def _monitor_ack_timeouts(self, deadline: float) -> None:
        """Look after the publishes at ``deadline``: one timer, for the oldest of them."""
        self._ack_timer = asyncio.get_running_loop().call_at(deadline, self.check_pending_publishes, deadline)

    def check_pending_publishes(self, deadline: float) -> None:
        """Give the connection up when its oldest publish was not acknowledged in time."""
        self._ack_timer = None
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None or self._patches is None:
            return
        now = asyncio.get_running_loop().time()
        due = oldest.sent_at + self._ack_timeout
        if now - deadline > BLOCKED_LOOP_SECONDS:
            due = max(due, now + BLOCKED_LOOP_SECONDS)
        if due > now:
            self._monitor_ack_timeouts(due)
            return
        self._patches.fail(TimeoutError(f"no PUBACK within {self._ack_timeout:g} s for {oldest!r}"))

    async def subscribe(self, topic: str, qos: int = 1) -> None:
        """Subscribe, and wait for the SUBACK.

        Raises ``SubscriptionRefusedError`` when the server refuses, ``ConnectionLostError`` when the connection ends.
        """
        if self._client is None or not self._connected:
            raise ConnectionLostError("there is no connection to subscribe on")
        granted: asyncio.Future[int] = self.session_future()
        # A broker that routes would give a device its own attributes back, and its own calls. MQTT 3.1.1 has no such option.
        packet_id = self._client.subscribe(topic, qos=qos, no_local=self._mqtt_version == MQTT_5)
        self._subscriptions[packet_id] = granted
        try:
            reason_code = await granted
        finally:
            self._subscriptions.pop(packet_id, None)
        if reason_code >= FIRST_FAILURE:
            raise SubscriptionRefusedError(topic, reason_code)

    async def unsubscribe(self, topic: str) -> None:
        """Unsubscribe, and wait for the UNSUBACK. Raises ``ConnectionLostError`` when the connection ends."""
        packet_id = self.send_unsubscribe(topic)
        if packet_id is None:
            raise ConnectionLostError("there is no connection to unsubscribe on")
        answered: asyncio.Future[int] = self.session_future()
        self._subscriptions[packet_id] = answered
        try:
            await answered
        finally:
            self._subscriptions.pop(packet_id, None)

    def send_unsubscribe(self, topic: str) -> int | None:
        """Write an UNSUBSCRIBE, for who does not care for its answer. ``None`` without a connection, which has no subscriptions."""
        if self._client is None or not self._connected:
            return None
        packet_id: int = self._client.unsubscribe(topic)
        return packet_id

    def session_future(self) -> asyncio.Future[Any]:
        """A future for an answer of this session: when the session ends first, it raises ``ConnectionLostError``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._session_futures.add(future)
        future.add_done_callback(self._session_futures.discard)
        return future

    def register_handler(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        side_by_side: bool = False,
        on_refused: RefusedCallback | None = None,
    ) -> None:
        """Give messages of a topic to a coroutine function, see ``InboundDispatcher.register``."""
        self._inbound.register(topic_filter, handler, side_by_side=side_by_side, on_refused=on_refused)

    def unregister_handler(self, topic_filter: str) -> None:
        """Forget a handler."""
        self._inbound.unregister(topic_filter)

    async def disconnect(self) -> None:
        """Send DISCONNECT and close. What is unacknowledged leaves through ``on_connection_lost``."""
        client = self._client
        if client is not None:
            await self._close(client)

    async def stop_handlers(self) -> None:
        """End the handlers that run, and forget the messages that wait for one."""
        await self._inbound.stop()

    async def _close(self, client: Client) -> None:
        connection = client._connection
        if connection is not None and connection.is_closing():
            await connection.close()
        elif connection is not None:
            await client.disconnect()
        self._end_session(client, "closed by this client")

    def _handle_puback(self, packet_id: int, reason_code: int, properties: Properties) -> None:
        message = self._in_flight.pop(packet_id, None)
        if message is None:
            # A gateway payload with N devices gets N PUBACKs from servers before 4.2.1 (contract, fact 10).
            logger.debug("PUBACK for packet id %d, which is not in flight", packet_id)
            return
        if reason_code >= FIRST_FAILURE:
            logger.debug("PUBACK %s for %r, properties %s", reason_name(reason_code), message, properties)
        if reason_code < FIRST_FAILURE and self._open_for_traffic:
            self._worked = True
        self._on_acknowledged(message, 0 if reason_code == ReasonCode.NO_MATCHING_SUBSCRIBERS else reason_code)
        self._update_writable()

    def _handle_suback(self, _client: Client, packet_id: int, granted: tuple[int, ...], _properties: Properties) -> None:
        waiting = self._subscriptions.get(packet_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(granted[0])

    def _handle_unsuback(self, _client: Client, packet_id: int, _reason_codes: tuple[int, ...]) -> None:
        waiting = self._subscriptions.get(packet_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(0)

    def _handle_message(self, _client: Client, topic: str | bytes, payload: bytes, _qos: int, _properties: Properties) -> int:
        self._inbound.dispatch(topic, payload)
        return 0

    def _handle_writable(self, takes_more: bool) -> None:
        self._socket_takes_more = takes_more
        self._update_writable()

    def _handle_lost(self, client: Client, loss: Loss) -> None:
        if loss.reason_code is not None:
            properties = f", {loss.properties}" if loss.properties else ""
            cause = f"DISCONNECT from the server: {reason_name(loss.reason_code)}{properties}"
        else:
            cause = repr(loss.error) if loss.error else "closed by the server"
        self._end_session(client, cause, loss.reason_code)

    def _end_session(self, client: Client, cause: str, reason_code: int | None = None) -> None:
        if client is not self._client:
            return
        seconds = asyncio.get_running_loop().time() - self._connected_at if self._connected else 0.0
        self.last_end = SessionEnd(cause, reason_code, self._worked, seconds)
        self._client = self._patches = None
        if self._connected:
            self.since = now_ms()
        self._connected = self._open_for_traffic = False
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        unacknowledged = list(self._in_flight.values())
        self._in_flight.clear()
        self._update_writable()
        for waiting in list(self._session_futures):
            if not waiting.done():
                waiting.set_exception(ConnectionLostError(f"the connection ended: {cause}"))
        self._on_connection_lost(unacknowledged, self.last_end)
        for callback in self.session_end_callbacks:
            callback(self.last_end)
        self._lost.set()

    def _update_writable(self) -> None:
        in_flight = len(self._in_flight)
        takes_more = self._open_for_traffic and self._socket_takes_more
        _set(self._idle, in_flight == 0)
        _set(self._writable, takes_more and in_flight < self._window)
        _set(self._service_writable, takes_more and in_flight < self._service_window)


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()


def _ignore(*_: object) -> None:
    """Until ``patch_client_for_retry_logic`` is called."""
