"""The MQTT connections of a client, one at a time: connect, subscribe, publish, acknowledge.

Invariant: a published message leaves exactly once, when its PUBACK arrives or when the connection ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from gmqtt import Client

from tb_mqtt_client.common.async_utils import wait_for_set
from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer
from tb_mqtt_client.common.gmqtt_patch import GMQTT_LOGGER, Loss, PatchUtils
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt.packets import Properties
from tb_mqtt_client.common.mqtt.session_terms import SessionTerms
from tb_mqtt_client.common.mqtt.transport import MAX_PACKET_SIZE
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.option_values import MQTT_3_1_1, MQTT_5
from tb_mqtt_client.constants.reason_codes import FIRST_FAILURE, LocalReasonCode, ReasonCode, reason_name
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.delivery.receipts import resolve_futures, resolve_undelivered
from tb_mqtt_client.service.delivery.transport import AcknowledgedCallback, ConnectionLostCallback, SessionEnd, SessionEndCallback
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher
from tb_mqtt_client.service.session.connecting import ConnectionAttempt
from tb_mqtt_client.service.session.in_flight import InFlightWindow, LinkPace
from tb_mqtt_client.service.session.protocol import DEFAULT_OPTIONS, Handler, HandlerOptions
from tb_mqtt_client.service.session.subscriptions import Subscriptions

logger: ExtendedLogger = get_logger(__name__)

IMPLEMENTATION_SPECIFIC_ERROR: Final = int(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)
QUOTA_EXCEEDED: Final = int(ReasonCode.QUOTA_EXCEEDED)
"""Reason codes, for programs that import them from here, as from SDK 2.0."""

DEFAULT_ACK_TIMEOUT = 30.0
"""Seconds from a PUBLISH to its PUBACK, after which the connection is closed."""
WANTED_SHARE = 1 / 8
"""The share of ``ack_timeout`` that a PUBACK should take at most on a slow link: a few seconds."""
COMBINED_REMEMBERED = 100
"""The number of acknowledged messages with several devices that are remembered: PUBACKs for one message arrive close together."""
CLOSED_HERE = "closed by this client"
UNSUPPORTED_VERSION = frozenset({0x01, 0x84})
"""CONNACK codes of a server that does not know MQTT 5: 3.1.1 section 3.2.2.3 and MQTT 5 section 3.2.2.2."""


class MQTTManager:
    """Opens one connection at a time, each with a new gmqtt client, so that no state of an old session is left.

    A PUBLISH is not resent on a live connection: the platform would store it twice (docs/platform_contract.md, fact 9). If its
    PUBACK is missing for too long, the connection is closed instead, and all unacknowledged messages are sent on the next one.
    """

    def __init__(
        self,
        client_id: str,
        *,
        inbound: InboundDispatcher,
        tasks: Tasks,
        mqtt_version: int = MQTT_5,
        max_inflight: int = 100,
        ack_timeout: float = DEFAULT_ACK_TIMEOUT,
    ) -> None:
        """Create the connections of one client; none is opened yet.

        Args:
            client_id: Sent in each CONNECT.
            inbound: Receives the messages of the server.
            tasks: Owns the tasks of connections.
            mqtt_version: 5, or 4 for MQTT 3.1.1.
            max_inflight: Unacknowledged publishes at a time; a server's Receive Maximum may lower it.
            ack_timeout: Seconds from a PUBLISH to its PUBACK, after which the connection is closed.
        """
        self._client_id = client_id
        self._on_acknowledged: AcknowledgedCallback = resolve_futures
        self._on_connection_lost: ConnectionLostCallback = resolve_undelivered
        self._wanted_version = self._mqtt_version = mqtt_version
        self.ack_timeout = ack_timeout
        """Seconds that the server has for an acknowledgement, from the next connection on."""
        self._client: Client | None = None
        self.patches: PatchUtils | None = None
        """The patches of the last connection."""
        self._server: ServerAddress | None = None
        self._connected = False
        self._connected_at = 0.0
        self._expects_disconnect = self._closing = False
        self._pace = LinkPace(ack_timeout * WANTED_SHARE, on_slow=self._note_slow_link)
        self.window: InFlightWindow = InFlightWindow(max_inflight, self._pace)
        """The messages that are published and not acknowledged."""
        # The events of `Transport`.
        self.opened: asyncio.Event = self.window.opened
        self.has_room: asyncio.Event = self.window.has_room
        self.idle: asyncio.Event = self.window.idle
        self.writable: asyncio.Event = self.window.writable
        self.service_writable: asyncio.Event = self.window.service_writable
        self._log = OccasionalLog(logger)
        self.subscriptions: Subscriptions = Subscriptions()
        """The subscriptions and waiting futures of the session."""
        self._tasks = tasks
        self.inbound = inbound
        """Passes received messages to the handlers of their topics."""
        self._lost = asyncio.Event()
        self.terms: SessionTerms = SessionTerms()
        """The terms of the current session, or of the last one, from its CONNACK."""
        self._publishes_as_allowed = True
        self._warned_of_terms = False
        self.connections: int = 0
        """The number of sessions, the current one included."""
        self.last_end: SessionEnd | None = None
        """How the last session ended."""
        self.session_end_callbacks: list[SessionEndCallback] = []
        """Called when a session has ended, after its messages were taken back."""
        self.on_acknowledged_in_parts: Callable[[], None] = _nothing
        """Called when a message with several devices gets a second PUBACK: the server acknowledges each device on its own."""
        self._combined: dict[int, None] = {}
        self.since: int | None = None
        """When the connection was last established or lost, in milliseconds since the epoch; ``None`` before the first one."""

    def patch_client_for_retry_logic(
        self, put_retry_messages: ConnectionLostCallback, on_acknowledged: AcknowledgedCallback
    ) -> None:
        """Connect this connection with the owner of its messages; without one, the futures of messages are resolved here.

        Args:
            put_retry_messages: Called with the messages that were not acknowledged when a connection ended, in the order in which
                they were published, and with how the connection ended.
            on_acknowledged: Called with a message and the reason code of its PUBACK.
        """
        self._on_connection_lost = put_retry_messages
        self._on_acknowledged = on_acknowledged

    @property
    def mqtt_version(self) -> int:
        """The protocol version of the connection: 5, or 4 for MQTT 3.1.1."""
        return self._mqtt_version

    @property
    def in_flight(self) -> int:
        """The number of publishes without an acknowledgement."""
        return len(self.window)

    @property
    def bytes_per_second(self) -> float | None:
        """The last measured rate of the link in payload bytes per second; ``None`` before the first PUBACK."""
        return self._pace.bytes_per_second

    @property
    def batch_bytes(self) -> int | None:
        """The number of bytes to pack into messages now, so that a slow link carries them in seconds; ``None`` for no bound."""
        return self._pace.batch_bytes(self.window.nbytes) if self.terms.maximum_qos else None

    def _note_slow_link(self, rate: float) -> None:
        text = "The link carries about %d bytes per second: keeping at most %d bytes in flight, in small messages"
        self._log.warn_of("slow link", text, rate, self._pace.window, level=logging.INFO)

    def is_connected(self) -> bool:
        """Return whether a CONNACK was received and the connection has not ended since."""
        return self._connected

    def is_ready(self) -> bool:
        """Return whether the session is set up, so that queued messages may be published."""
        return self.window.opened.is_set()

    async def connect_by(self, route: Route, username: str | None = None, password: str | None = None, keepalive: int = 60) -> None:
        """Connect to the server of a route, with MQTT 3.1.1 if the server does not support a newer version.

        Args:
            route: The server, and how to reach it.
            username: The user name, or the access token of a device.
            password: The password.
            keepalive: Seconds without a packet after which a PINGREQ is sent.

        Raises:
            OSError: The server cannot be reached, or the connection was lost.
            ConnectionRefusedByServer: The CONNACK is a refusal.
            ProxyRefusedError: The proxy does not connect to the server.
            TimeoutError: The time limit of the route has passed.
        """
        # A server that did not support MQTT 5 last time may have been upgraded since.
        self._mqtt_version = self._wanted_version
        try:
            await self._connect_once(route, username, password, keepalive)
        except ConnectionRefusedByServer as refusal:
            if refusal.reason_code not in UNSUPPORTED_VERSION or self._wanted_version != MQTT_5:
                raise
            logger.info("%s does not support MQTT 5: using MQTT 3.1.1 for this connection", route.server)
            self._mqtt_version = MQTT_3_1_1
            await self._connect_once(route, username, password, keepalive)

    async def _connect_once(self, route: Route, username: str | None, password: str | None, keepalive: int) -> None:
        attempt = ConnectionAttempt(route)
        # No Receive Maximum: incoming messages are acknowledged at once, so that the server never waits for this client.
        # The client id is given as bytes, since gmqtt counts the characters of a str, and some take several bytes.
        client_id = self._client_id.encode()
        client = Client(client_id, clean_session=True, logger=GMQTT_LOGGER, maximum_packet_size=MAX_PACKET_SIZE)
        patches = PatchUtils(
            client,
            self.ack_timeout,
            tasks=self._tasks,
            on_lost=lambda loss: self._handle_lost(client, loss),
            on_writable=self.window.set_socket_takes_more,
            open_transport=attempt.open_transport,
            expected_seconds=lambda: self._pace.expected_seconds(self.window.nbytes),
        )
        patches.apply(self._handle_puback)
        self._client, self.patches, self._server = client, patches, route.server
        client.on_message = self._handle_message
        self.subscriptions.listen_to(client, str(route.server), self.ack_timeout)
        if username is not None:
            client.set_auth_credentials(username, password)
        self._lost.clear()
        self._expects_disconnect = self._closing = False
        self._combined.clear()
        try:
            await attempt.connect(client, keepalive, self._mqtt_version, self._lost, self._session_end)
        except BaseException:
            await self._close(client)
            raise
        self.terms = patches.terms
        self.window.set_receive_maximum(self.terms.receive_maximum)
        self._publishes_as_allowed = self.terms.maximum_qos > 0 and self.terms.retain_available
        if not self._publishes_as_allowed:
            self._warn_of_terms(route.server)
        self._monitor_ack_timeouts(patches)
        self._connected, self._connected_at = True, asyncio.get_running_loop().time()
        self.since = now_ms()
        self.connections += 1

    def _warn_of_terms(self, server: ServerAddress) -> None:
        if self._warned_of_terms:
            return
        self._warned_of_terms = True
        if not self.terms.maximum_qos:
            logger.warning(
                "%s accepts QoS 0 only: messages count as acknowledged once they are written, and lost messages are not resent",
                server,
            )
        if not self.terms.retain_available:
            logger.info("%s does not retain messages: leaving out the retain flag", server)

    def open_for_traffic(self) -> None:
        """Allow queued messages to be published, because the session is set up.

        Raises:
            ConnectionLostError: The connection has ended meanwhile.
        """
        if not self._connected:
            raise ConnectionLostError("the connection ended while its session was set up")
        self.window.open()

    async def wait_writable_for_service(self) -> None:
        """Wait until a message without datapoints may be published; part of the in-flight window is reserved for these."""
        await wait_for_set(self.service_writable)

    @property
    def has_worked(self) -> bool:
        """Whether the server has acknowledged a message in this session since it was set up."""
        return self.window.worked.is_set()

    async def wait_worked(self, seconds: float) -> bool:
        """Wait until a session is set up, and then until the server acknowledges a message in it, for at most ``seconds``.

        Returns:
            Whether the server has acknowledged a message.
        """
        await wait_for_set(self.opened)
        try:
            async with asyncio.timeout(seconds):
                await self.window.worked.wait()
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Start the block when nothing is in flight, and publish nothing else while it runs."""
        self.window.reserve()
        try:
            while not (self.is_ready() and self.window.idle.is_set()):
                await wait_for_set(self.opened)
                await wait_for_set(self.idle)
            yield
        finally:
            self.window.release()

    def expect_disconnect(self) -> None:
        """Note that the server has announced why it will end this session: the reason code of its DISCONNECT adds nothing."""
        self._expects_disconnect = True

    async def wait_lost(self) -> SessionEnd:
        """Wait until the connection has ended, and return how."""
        await self._lost.wait()
        return self._session_end()

    def _session_end(self) -> SessionEnd:
        return self.last_end or SessionEnd("never connected")

    async def publish(self, message: MqttPublishMessage, force: bool = False) -> None:
        """Publish a message, without regard to rate limits.

        Args:
            message: The message.
            force: Publish at once, instead of waiting for a session and room in the in-flight window.

        Raises:
            ConnectionLostError: ``force`` is true and there is no connection.
        """
        item = WorkItem.of(message)
        if not force:
            await wait_for_set(self.writable if item.has_datapoints else self.service_writable)
        self.publish_now(item)

    def publish_now(self, item: WorkItem) -> None:
        """Write a PUBLISH. A QoS 0 message counts as acknowledged as soon as it is written.

        Raises:
            ConnectionLostError: There is no connection.
        """
        if self._client is None or not self._connected:
            raise ConnectionLostError("there is no connection to publish on")
        connection = self._client._connection
        if connection.is_closing():
            # Nothing can be written any more, and a QoS 0 message would count as acknowledged: it leaves when the connection ends.
            self.window.add_unwritten(item)
            return
        message = item.message
        if not self._publishes_as_allowed:
            message.qos = min(message.qos, self.terms.maximum_qos)
            message.retain = message.retain and self.terms.retain_available
        packet_id, packet = connection.publish(message)
        message.mark_as_sent(packet_id)
        if packet_id is None:
            self._on_acknowledged(item, 0)
            return
        self._client._persistent_storage.push_message(packet_id, packet)
        self.window.add(packet_id, item)

    def _monitor_ack_timeouts(self, patches: PatchUtils) -> None:
        """Watch this connection, for as long as it lasts, for publishes without a PUBACK."""
        patches.on_overdue = self.check_pending_publishes
        patches.start_retry_task()

    async def check_pending_publishes(self, time_to_check: float) -> None:
        """Close the connection if the PUBACK of its oldest publish is overdue.

        An overdue announcement of a sub-device counts as not delivered instead: servers before 4.2.1 never acknowledge an
        announcement that they reject (docs/platform_contract.md, section 4), and pings show whether the connection works.

        Args:
            time_to_check: The time by which to decide, on the clock of the event loop.
        """
        if self.patches is not None and (packet_id := self.patches.overdue(time_to_check)) is not None:
            item = self.window.get(packet_id)
            if item is not None and item.is_announcement:
                self.patches.forgo(packet_id)
                self.window.forgo(packet_id)
                self._on_acknowledged(item, LocalReasonCode.NOT_DELIVERED)
                return
            self._pace.acknowledgement_missing()
            self.patches.fail(TimeoutError(f"no PUBACK within {self.ack_timeout:g} s for {item!r}"))

    async def subscribe(self, topic: str, qos: int = 1) -> None:
        """Subscribe, and wait for the SUBACK.

        Raises:
            SubscriptionRefusedError: The server refuses.
            ConnectionLostError: The connection ends first.
            TimeoutError: No SUBACK arrives within the time for acknowledgements.
        """
        if self._client is None or not self._connected:
            raise ConnectionLostError("there is no connection to subscribe on")
        # A plain broker would send the device its own attributes and RPC requests. MQTT 3.1.1 has no such option.
        await self.subscriptions.subscribe(self._client, topic, qos, no_local=self._mqtt_version == MQTT_5)

    async def unsubscribe(self, topic: str) -> None:
        """Unsubscribe, and wait for the UNSUBACK.

        Raises:
            ConnectionLostError: The connection ends first.
            TimeoutError: No UNSUBACK arrives within the time for acknowledgements.
        """
        packet_id = self.send_unsubscribe(topic)
        if packet_id is None:
            raise ConnectionLostError("there is no connection to unsubscribe on")
        await self.subscriptions.unsubscribed(packet_id, topic)

    def send_unsubscribe(self, topic: str) -> int | None:
        """Send UNSUBSCRIBE without waiting for UNSUBACK, and return its packet id; ``None`` if there is no connection."""
        if self._client is None or not self._connected:
            return None
        packet_id: int = self._client.unsubscribe(topic)
        return packet_id

    def session_future(self) -> asyncio.Future[Any]:
        """Return a future for a response in this session; it fails with ``ConnectionLostError`` if the session ends first."""
        return self.subscriptions.future()

    def register_handler(self, topic_filter: str, handler: Handler, options: HandlerOptions = DEFAULT_OPTIONS) -> None:
        """Pass messages of a topic to a coroutine function, see ``InboundDispatcher.register``."""
        self.inbound.register(topic_filter, handler, options)

    def unregister_handler(self, topic_filter: str) -> None:
        """Stop passing messages of a topic to its handler."""
        self.inbound.unregister(topic_filter)

    async def disconnect(self) -> None:
        """Send DISCONNECT and close the connection; its unacknowledged messages go to ``put_retry_messages``."""
        client = self._client
        if client is not None:
            await self._close(client)
        if self.patches is not None:
            await self.patches.stop_retry_task()

    async def stop(self) -> None:
        """Disconnect, end the running handlers, and discard the messages that wait for one."""
        await self.disconnect()
        await self.inbound.stop()

    async def _close(self, client: Client) -> None:
        connection = client._connection
        try:
            if connection is not None and connection.is_closing():
                await connection.close()
            elif connection is not None:
                # After a DISCONNECT the server may close the connection first.
                self._closing = True
                await client.disconnect()
        finally:
            self._end_session(client, CLOSED_HERE)

    def _handle_puback(self, packet_id: int, reason_code: int, properties: Properties) -> None:
        item = self.window.take(packet_id)
        if item is None:
            # A gateway payload with N devices gets N PUBACKs from servers before 4.2.1 (docs/platform_contract.md, fact 10).
            logger.debug("PUBACK for packet id %d, which is not in flight", packet_id)
            if packet_id in self._combined:
                self._combined.clear()
                self.on_acknowledged_in_parts()
            return
        if item.devices > 1:
            self._combined[packet_id] = None
            if len(self._combined) > COMBINED_REMEMBERED:
                del self._combined[next(iter(self._combined))]
        if reason_code >= FIRST_FAILURE:
            logger.debug("PUBACK %s for %r, properties %s", reason_name(reason_code), item, properties)
        elif not self.window.worked.is_set() and self.opened.is_set():
            self.window.worked.set()
        self._on_acknowledged(item, 0 if reason_code == ReasonCode.NO_MATCHING_SUBSCRIBERS else reason_code)

    def _handle_message(self, _client: Client, topic: str | bytes, payload: bytes, _qos: int, _properties: Properties) -> int:
        self.inbound.dispatch(topic, payload)
        return 0

    def _handle_lost(self, client: Client, loss: Loss) -> None:
        if self._closing:
            self._end_session(client, CLOSED_HERE)
            return
        if loss.reason_code is not None:
            properties = f", {loss.properties}" if loss.properties else ""
            cause = f"DISCONNECT from the server: {reason_name(loss.reason_code)}{properties}"
        else:
            cause = repr(loss.error) if loss.error else "closed by the server"
        is_reset = isinstance(loss.error, ConnectionResetError | BrokenPipeError)
        by_server = loss.reason_code is not None or loss.error is None or is_reset
        self._end_session(client, cause, loss.reason_code, loss.error, by_server=by_server)

    def _end_session(
        self,
        client: Client,
        cause: str,
        reason_code: int | None = None,
        error: Exception | None = None,
        *,
        by_server: bool = False,
    ) -> None:
        if client is not self._client:
            return
        seconds = asyncio.get_running_loop().time() - self._connected_at if self._connected else 0.0
        expected = self._expects_disconnect
        self.last_end = SessionEnd(
            cause,
            reason_code,
            self.has_worked,
            seconds,
            expected,
            error,
            by_server,
            tells_reasons=self._mqtt_version == MQTT_5,
            server=self._server,
        )
        self._client = None
        if self._connected:
            self.since = now_ms()
        self._connected = False
        unacknowledged = self.window.close()
        self.subscriptions.end(cause)
        # Each callback runs whatever the others raise: messages have to be taken back, and the next connection waits for `_lost`.
        _run(self._on_connection_lost, unacknowledged, self.last_end)
        for callback in self.session_end_callbacks:
            _run(callback, self.last_end)
        self._lost.set()


def _nothing() -> None: ...


def _run(callback: Callable[..., None], *arguments: object) -> None:
    """Call a function; an exception, which is a defect, goes to the exception handler of the event loop."""
    try:
        callback(*arguments)
    except Exception as error:  # noqa: BLE001  # see above
        context = {"message": "Error at the end of a session", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
