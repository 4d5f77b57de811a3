"""The engine of one client: it assembles the parts, and runs their life from connect to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import string
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from threading import get_ident
from typing import Any

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery, FutureMap, seconds_or_none, uninterrupted
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limiter import own_limits, unlimited
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.formats.json_session_limits import SessionLimits
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.health import health_snapshot
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.device import DeviceRequests
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport
from tb_mqtt_client.service.requests.incoming import DeviceDownlink
from tb_mqtt_client.service.session.keeper import Backoff, ConnectionKeeper
from tb_mqtt_client.service.session.limits import apply_rate_limits
from tb_mqtt_client.service.session.setup import ANSWER_TOPICS, COUNTED_TOPICS, SessionSetup

logger = get_logger(__name__)


class Component:
    """A part of a client that takes part in its life, such as sub-devices or updates. The methods do nothing by default."""

    topics: tuple[str, ...] = ()
    """Topics that each session subscribes to, of which the platform does not count the subscriptions."""

    def connecting(self) -> None:
        """Note that a connection is wanted from now on."""

    def before_traffic(self) -> None:
        """Prepare a new session before queued messages are published in it."""

    def session_ended(self) -> None:
        """Note that the connection ended, whatever the reason; its messages are back in the queues."""

    async def finish(self) -> None:
        """End work that the component does on its own, while it can still send."""

    async def disconnect(self) -> None:
        """End requests and callbacks; the connection is closed next."""

    def stopped(self) -> None:
        """Resolve what is left: the client is stopped, and its queues are empty."""


class Engine:
    """The parts of one client, and the sessions that it has one after the other.

    The parts are public for the components and for tests; programs use the clients.
    """

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config
        self.client_id = config.client_id or _random_client_id()
        self.max_payload_size: int | None = None
        """Bytes of the largest telemetry payload; ``None`` until connected."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending_loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._endings: set[asyncio.Future[None]] = set()
        self._limits = SessionLimits()
        self._components: list[Component] = []
        self.rate_limiter = unlimited("device")
        self.gateway_rate_limiter = unlimited("gateway")
        self.stop_event = asyncio.Event()
        self.futures = FutureMap()
        self.format: DeviceFormat = JsonDeviceFormat(config.rpc_reply)
        self.report = InboundReport()
        self.mqtt_manager = MQTTManager(
            self.client_id,
            mqtt_version=config.mqtt_version,
            max_inflight=config.max_inflight_messages,
            ack_timeout=config.ack_timeout,
            inbound=InboundDispatcher(self.report, config.max_inbound_messages),
        )
        backpressure = BackpressureController(delay=config.backpressure_delay)
        self.admission = Admission(self.rate_limiter, self.gateway_rate_limiter, backpressure)
        self.admission.set_own_limits(own_limits(config.rate_limits or {}))
        self.message_service = MessageService(
            self.mqtt_manager,
            self.admission,
            self.futures,
            max_queued_sends=config.max_queued_messages,
            max_queued_bytes=config.max_queued_bytes,
            device_qos=config.qos,
            queue_policy=config.queue_policy,
        )
        self.downlink = DeviceDownlink(
            self.format,
            self.report,
            self.send_message,
            self._count_server_side_rpc,
            config.rpc_callback_timeout,
        )
        self.downlink.register_at(self.mqtt_manager)
        self.requests = DeviceRequests(
            self.format,
            self.downlink,
            self.mqtt_manager,
            self.report,
            self.send_message,
            self.message_service.withdraw,
        )
        self._session_setup = SessionSetup(
            config,
            self.mqtt_manager,
            self.admission,
            self.requests.next_rpc_id,
            self.apply_limits,
            self._begin_traffic,
            self._free_topics,
            COUNTED_TOPICS,
        )
        self.backoff = Backoff(config.reconnect_delay_min, config.reconnect_delay_max)
        self.keeper = ConnectionKeeper(self._session_setup.establish, self.mqtt_manager.wait_lost, self.backoff)
        self.mqtt_manager.session_end_callbacks.append(lambda _: self._session_ended())

    def add(self, component: Component) -> None:
        """Let a component take part in the life of this client, before its first connection."""
        self._components.append(component)

    def _free_topics(self) -> tuple[str, ...]:
        return (*ANSWER_TOPICS, *(topic for component in self._components for topic in component.topics))

    def _session_ended(self) -> None:
        for component in self._components:
            component.session_ended()

    @property
    def statistics(self) -> Statistics:
        """What became of all datapoints so far."""
        manager = self.mqtt_manager
        return self.message_service.counter.snapshot(
            queued_calls=self.message_service.capacity.sends,
            in_flight_messages=manager.in_flight,
            connections=manager.connections,
            last_disconnect=manager.last_end.cause if manager.last_end else "",
            seconds_limited=self.admission.seconds_limited,
            backpressure_pauses=self.admission.backpressure.pauses,
            **self.report.counts(),
        )

    def health(self) -> dict[str, Any]:
        """State of now, as JSON values: all of ``statistics`` and the connection, as ``health_snapshot`` says; and whose it is."""
        state = health_snapshot(self.mqtt_manager, self.admission, self._limits, self.statistics)
        server = self._session_setup.server or next(iter(self.config.servers()), None)
        host, port = (None, self.config.port) if server is None else (server.host, server.port)
        return {"client_id": self.client_id, "host": host, "port": port, "started": self._started} | state

    async def connect(self) -> None:
        """Connect, subscribe, ask for the session's limits, and stay connected until ``disconnect`` or ``stop``.

        Returns when the session is set up. A busy server is asked again. If this raises, no task is left, and queued data goes with
        the next connection. A client that is disconnecting or stopping does that first. Sub-devices of a gateway are announced
        again automatically. Does nothing while the client is connected or reconnecting.

        Raises:
            OSError: The server cannot be reached, or breaks MQTT.
            TimeoutError: The server does not answer; also an ``OSError``.
            ConnectionRefusedByServer: The server refuses, with its reason; also a ``ConnectionError``.
            NotConnectedError: The client is stopped meanwhile.
            ValueError: No host is configured.
            RuntimeError: The event loop is another one than that of the first ``connect``.
        """
        self._loop = self._loop or asyncio.get_running_loop()
        self._require_own_loop()
        self._thread = get_ident()
        # What ends a session would end a new one with it.
        while self._endings:
            await asyncio.wait(self._endings)
        if self.config.host is None:
            raise ValueError("host must be set, in the configuration or as TB_HOST")
        for component in self._components:
            component.connecting()
        self.stop_event.clear()
        if self.message_service.has_failed:
            # The queues were cleared, announcements of sub-devices included: only a new session brings both sides in line.
            await self.mqtt_manager.disconnect()
        self.message_service.open()
        self._started = True
        try:
            await self.keeper.start()
        except BaseException:
            if not self.keeper.is_running:
                # No task may outlive a failed attempt: the program may drop the client. Queued data stays for the next one.
                await uninterrupted(self.message_service.pause())
            raise
        if self.keeper.is_running:
            # Running since the session was set up, unless one of the loops has ended meanwhile.
            self.message_service.start()

    async def disconnect(self) -> None:
        """Close the connection. What is queued stays queued, and ``connect`` works again.

        Requests that wait for an answer end with a ``NotConnectedError``, and callbacks that run are cancelled, except one that
        calls this. An update is given up; sub-devices of a gateway stay registered.
        """
        if self._started:
            self._require_own_loop()
        with self._ending():
            # A cancellation meanwhile must not leave a connection that nothing keeps.
            await uninterrupted(self._disconnect())

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """``connect()`` waits until the block is left."""
        ending = asyncio.get_running_loop().create_future()
        self._endings.add(ending)
        try:
            yield
        finally:
            self._endings.remove(ending)
            ending.set_result(None)

    async def _disconnect(self) -> None:
        async with AsyncExitStack() as ends:
            # Each comes whatever the ones before it raise, the last of these first.
            ends.push_async_callback(self.message_service.pause)
            ends.push_async_callback(self.mqtt_manager.stop)
            ends.push_async_callback(self.keeper.stop)
            ends.push_async_callback(self.requests.stop)
            for component in self._components:
                ends.push_async_callback(component.disconnect)

    async def stop(self, timeout: float | None) -> None:
        """Send what is queued for at most ``timeout`` seconds, close, and answer the rest as not delivered (-1).

        ``None`` is no limit; a time that is over already stops at once. Calls of the platform that run now have this time, too:
        their callbacks may still send, and they are answered.

        Raises ``RuntimeError`` in another event loop than that of ``connect``, and ``TypeError`` for what is no number of seconds.
        """
        seconds_or_none(timeout)
        if self._started:
            self._require_own_loop()
        with self._ending():
            await self._stop(timeout)

    async def _stop(self, timeout: float | None) -> None:
        started = self._started
        try:
            for component in self._components:
                await component.finish()
            # Without an attempt to connect, nothing would be delivered however long this waits.
            if started and self.keeper.is_running:
                async with asyncio.timeout(timeout):
                    await self.mqtt_manager.wait_answered()
                    self._started = False
                    await self.message_service.drain()
        except TimeoutError:
            logger.info("Stopping although not everything was delivered within %g s", timeout)
        finally:
            self._started = False
            self.stop_event.set()
            # A cancellation while draining, or while this runs, must not leave a half stopped client.
            await uninterrupted(self._shut_down())
            if started:
                statistics = self.statistics
                logger.log(logging.WARNING if statistics.undelivered else logging.INFO, "Stopped: %s", statistics)

    async def _shut_down(self) -> None:
        try:
            await self._disconnect()
        finally:
            await self.message_service.shutdown()
            for component in self._components:
                component.stopped()

    async def send_timeseries(self, data: Any, wait_for_publish: bool, timeout: float | None) -> PublishResult | list[Delivery]:
        """Accept timeseries, and return their result, or a list with a future of it when ``wait_for_publish`` is false."""
        encoded = EncodedUplink.timeseries(data, now_ms(), None, self.config.round_floats)
        return await self._send(encoded, DEVICE_TELEMETRY_TOPIC, wait_for_publish, timeout)

    async def send_attributes(self, data: Any, wait_for_publish: bool, timeout: float | None) -> PublishResult | list[Delivery]:
        """Accept client attributes, and return what ``send_timeseries`` returns."""
        encoded = EncodedUplink.attributes(data, None, self.config.round_floats)
        return await self._send(encoded, DEVICE_ATTRIBUTES_TOPIC, wait_for_publish, timeout)

    async def _send(
        self, encoded: EncodedUplink, topic: str, wait_for_publish: bool, timeout: float | None
    ) -> PublishResult | list[Delivery]:
        self.require_started()
        intake = self.message_service.intake
        delivery = intake.try_accept(encoded) or await intake.accept(encoded)
        if not wait_for_publish:
            return [delivery]
        return await self.wait_for(delivery, topic, encoded.nbytes, timeout)

    async def wait_for(self, delivery: Delivery, topic: str, size: int, timeout: float | None) -> PublishResult:
        """The result of a delivery, or one that says that it is still queued.

        A caller who is cancelled, or whose time is over, gives up the future, not the delivery.
        """
        limit = seconds_or_none(timeout)
        if limit is None:
            return await delivery
        try:
            async with asyncio.timeout(limit):
                return await delivery
        except TimeoutError:
            return PublishResult(topic, self.config.qos, -1, size, LocalReasonCode.NOT_DELIVERED)

    def require_started(self) -> None:
        """Raise ``NotConnectedError`` if nothing may be sent, and ``RuntimeError`` in another event loop."""
        # Every call comes by here, and asyncio.get_running_loop() asks the system which process this is. Without that a forked
        # child, whose copy of the loop says that it runs, passes; there asyncio refuses to await the answer, and stop() raises.
        loop = self._sending_loop
        if loop is not None and get_ident() == self._thread and loop.is_running():
            return
        if loop is None:
            raise NotConnectedError(
                "connect() must be called before anything is sent"
                if self._loop is None
                else "the client is stopped: connect() must be called again before anything is sent"
            )
        self._require_own_loop()

    @property
    def _started(self) -> bool:
        """Whether something may be sent."""
        return self._sending_loop is not None

    @_started.setter
    def _started(self, started: bool) -> None:
        self._sending_loop = self._loop if started else None

    def _require_own_loop(self) -> None:
        """Queues, events and futures are of one loop; touched from another one they break for both."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "A client belongs to the event loop in which connect() was called first: "
                "make one for each loop, or use asyncio.run_coroutine_threadsafe from another thread"
            )

    def send_message(self, message: MqttPublishMessage) -> Delivery:
        """Queue a message without datapoints; the future is the caller's own, and cancelling it changes nothing here.

        Raises ``ValueError`` for what no session of now would take, and ``NotConnectedError`` before ``connect()``.
        """
        self.check_sendable(message)
        # Whatever was assigned to it, the platform has no QoS 2, and takes no QoS 0 for sub-devices (docs/platform_contract.md,
        # section 4).
        message.qos = 0 if self.config.qos == 0 and message.is_device_message else 1
        delivery: Delivery = asyncio.get_running_loop().create_future()
        message.delivery_futures.append(delivery)
        self.message_service.submit(message)
        return delivery

    def check_sendable(self, message: MqttPublishMessage) -> None:
        """Raise ``ValueError`` for a message that is too large for this session, and ``NotConnectedError`` before ``connect()``."""
        self.require_started()
        limit = self.admission.payload_limits(of_sub_devices=False).payload_size(message.topic)
        if message.payload_size > limit:
            raise ValueError(
                f"the payload for {message.topic} has {message.payload_size} bytes, and the platform takes {limit} at most"
            )

    def _count_server_side_rpc(self) -> None:
        """Its acknowledgement costs a message (docs/platform_contract.md, section 5)."""
        self.rate_limiter.message_rate_limit.spend(1)

    async def _begin_traffic(self) -> None:
        """Start the queues with the first session, and prepare the traffic of each."""
        self.message_service.start()
        for component in self._components:
            component.before_traffic()

    def apply_limits(self, limits: SessionLimits) -> None:
        """Take over the limits of a new session."""
        self._limits = limits
        percentage = self.config.rate_limit_percentage
        apply_rate_limits(self.rate_limiter, limits.device, percentage)
        apply_rate_limits(self.gateway_rate_limiter, limits.gateway, percentage)
        # The session itself cost a message, and so did the end of the one before (docs/platform_contract.md, section 5).
        self.rate_limiter.message_rate_limit.spend(1 if self.mqtt_manager.connections == 1 else 2)
        self.admission.set_session(limits.max_packet_size, self.mqtt_manager.mqtt_version)
        self.max_payload_size = self.admission.payload_limits(of_sub_devices=False).max_payload_size


def _random_client_id() -> str:
    alphabet = string.ascii_uppercase + string.digits
    return "tb-client-" + "".join(random.choices(alphabet, k=6))  # a name, not a secret
