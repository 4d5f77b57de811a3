"""What the clients are made of, and their life from connect to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import string
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from threading import get_ident
from typing import Any, Self

from tb_mqtt_client.common.async_utils import Delivery, FutureMap, seconds_or_none, uninterrupted
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage, max_payload_size
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limiter import own_limits, unlimited
from tb_mqtt_client.constants.mqtt_topics import DEVICE_ATTRIBUTES_TOPIC, DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.base_client import BaseClient
from tb_mqtt_client.service.delivery.packing import UplinkPacker
from tb_mqtt_client.service.delivery.statistics import Statistics
from tb_mqtt_client.service.device.message_splitter import MessageSplitter
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


class ConnectedClient(BaseClient):
    """Queues, limits, requests and handlers of one client, and the sessions that it has one after the other."""

    _free_topics: tuple[str, ...] = ANSWER_TOPICS
    """What each session subscribes to without a cost."""
    _counted_topics = COUNTED_TOPICS
    """What each session subscribes to for a message each."""

    def __init__(self, config: DeviceConfig | Mapping[str, Any] | None = None) -> None:
        self._config = self._as_config(config)
        client_id = self._config.client_id or _random_client_id()
        super().__init__(self._config.host, self._config.port, client_id)
        self.max_payload_size: int | None = None
        """Bytes that a telemetry payload may have; ``None`` until connected."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending_loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._endings: set[asyncio.Future[None]] = set()
        self._limits = SessionLimits()
        self._rate_limiter = unlimited("device")
        self._gateway_rate_limiter = unlimited("gateway")
        self._stop_event = asyncio.Event()
        self._futures = FutureMap()
        self._format: DeviceFormat = JsonDeviceFormat(self._config.rpc_reply)
        self._splitter = MessageSplitter(futures=self._futures)
        self._device_packer = UplinkPacker(
            DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, self._splitter, self._futures, gateway=False
        )
        self._report = InboundReport()
        self._mqtt_manager = MQTTManager(
            client_id,
            mqtt_version=self._config.mqtt_version,
            max_inflight=self._config.max_inflight_messages,
            ack_timeout=self._config.ack_timeout,
            inbound=InboundDispatcher(self._report, self._config.max_inbound_messages),
        )
        self._message_service = MessageService(
            self._mqtt_manager,
            self._stop_event,
            BackpressureController(self._stop_event, delay=self._config.backpressure_delay),
            self._rate_limiter,
            self._device_packer,
            self._config.max_queued_messages,
            gateway_packer=self._gateway_packer(),
            gateway_rate_limiter=self._gateway_rate_limiter,
            max_queued_bytes=self._config.max_queued_bytes,
            device_qos=self._config.qos,
            queue_policy=self._config.queue_policy,
        )
        self._admission = self._message_service.admission
        self._admission.set_own_limits(own_limits(self._config.rate_limits or {}))
        self._downlink = DeviceDownlink(
            self._format,
            self._report,
            self._send_message,
            self._count_call_of_platform,
            self._config.rpc_callback_timeout,
        )
        self._downlink.register_at(self._mqtt_manager)
        self._requests = DeviceRequests(
            self._format,
            self._downlink,
            self._mqtt_manager,
            self._report,
            self._send_message,
            self._message_service.withdraw,
        )
        self._session_setup = SessionSetup(
            self._config,
            self._mqtt_manager,
            self._admission,
            self._requests.next_rpc_id,
            self._apply_limits,
            self._begin_traffic,
            self._free_topics,
            self._counted_topics,
        )
        self._keeper = ConnectionKeeper(
            self._session_setup.establish,
            self._mqtt_manager.wait_lost,
            Backoff(self._config.reconnect_delay_min, self._config.reconnect_delay_max),
        )

    @staticmethod
    def _as_config(config: DeviceConfig | Mapping[str, Any] | None) -> DeviceConfig:
        return config if isinstance(config, DeviceConfig) else DeviceConfig(config)

    def _gateway_packer(self) -> UplinkPacker | None:
        """A device has no sub-devices."""
        return None

    @property
    def statistics(self) -> Statistics:
        """What became of all datapoints so far."""
        manager = self._mqtt_manager
        return self._message_service.counter.snapshot(
            queued_calls=self._message_service.room.messages,
            in_flight_messages=manager.in_flight,
            connections=manager.connections,
            last_disconnect=manager.last_end.cause if manager.last_end else "",
            seconds_limited=self._admission.seconds_limited,
            backpressure_pauses=self._admission.backpressure.pauses,
            **self._report.counts(),
        )

    def health(self) -> dict[str, Any]:
        """State of now, as JSON values: all of ``statistics`` and the connection, as ``health_snapshot`` says; and whose it is."""
        state = health_snapshot(self._mqtt_manager, self._admission, self._limits, self.statistics)
        server = self._session_setup.server or next(iter(self._config.servers()), None)
        host, port = (None, self._config.port) if server is None else (server.host, server.port)
        return {"client_id": self._client_id, "host": host, "port": port, "started": self._started} | state

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
        if self._config.host is None:
            raise ValueError("host must be set, in the configuration or as TB_HOST")
        self._begin_work()
        self._stop_event.clear()
        if self._message_service.has_failed:
            # The queues were cleared, announcements of sub-devices included: only a new session brings both sides in line.
            await self._mqtt_manager.disconnect()
        self._message_service.open()
        self._started = True
        try:
            await self._keeper.start()
        except BaseException:
            if not self._keeper.is_running:
                # No task may outlive a failed attempt: the program may drop the client. Queued data stays for the next one.
                await uninterrupted(self._message_service.pause())
            raise
        if self._keeper.is_running:
            # Running since the session was set up, unless one of the loops has ended meanwhile.
            self._message_service.start()

    async def __aenter__(self) -> Self:
        """Connect; what that raises leaves nothing behind."""
        try:
            await self.connect()
        except BaseException:
            await self.stop(timeout=0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, as ``stop()`` does: what is queued is sent first."""
        await self.stop()

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

    def _begin_work(self) -> None:
        """A connection is wanted from now on."""

    async def _disconnect(self) -> None:
        async with AsyncExitStack() as ends:
            # Each comes whatever the ones before it raise, the last of these first.
            ends.push_async_callback(self._message_service.pause)
            ends.push_async_callback(self._mqtt_manager.stop)
            ends.push_async_callback(self._keeper.stop)
            await self._requests.stop()

    async def stop(self, timeout: float | None = BaseClient.DEFAULT_TIMEOUT) -> None:
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
            await self._end_work()
            # Without an attempt to connect, nothing would be delivered however long this waits.
            if started and self._keeper.is_running:
                async with asyncio.timeout(timeout):
                    await self._mqtt_manager.wait_answered()
                    self._started = False
                    await self._message_service.drain()
        except TimeoutError:
            logger.info("Stopping although not everything was delivered within %g s", timeout)
        finally:
            self._started = False
            self._stop_event.set()
            # A cancellation while draining, or while this runs, must not leave a half stopped client.
            await uninterrupted(self._shut_down())
            if started:
                statistics = self.statistics
                logger.log(logging.WARNING if statistics.undelivered else logging.INFO, "Stopped: %s", statistics)

    async def _end_work(self) -> None:
        """What goes on by itself ends before the queues are drained, so that it can tell the platform."""

    async def _shut_down(self) -> None:
        try:
            await self._disconnect()
        finally:
            await self._message_service.shutdown()

    async def _wait_for(self, delivery: Delivery, topic: str, size: int, timeout: float | None) -> PublishResult:
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
            return PublishResult(topic, self._config.qos, -1, size, LocalReasonCode.NOT_DELIVERED)

    def _require_started(self) -> None:
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

    def _send_message(self, message: MqttPublishMessage) -> Delivery:
        """Queue a message without datapoints; the future is the caller's own, and cancelling it changes nothing here.

        Raises ``ValueError`` for what no session of now would take, and ``NotConnectedError`` before ``connect()``.
        """
        self._check_sendable(message)
        # Whatever was assigned to it, the platform has no QoS 2, and takes no QoS 0 for sub-devices (docs/platform_contract.md,
        # section 4).
        message.qos = 0 if self._config.qos == 0 and message.is_device_message else 1
        delivery: Delivery = asyncio.get_running_loop().create_future()
        message.delivery_futures.append(delivery)
        self._message_service.submit(message)
        return delivery

    def _check_sendable(self, message: MqttPublishMessage) -> None:
        self._require_started()
        limit = max_payload_size(message.topic, self._message_service.max_remaining_length, self._mqtt_manager.mqtt_version)
        if message.payload_size > limit:
            raise ValueError(
                f"the payload for {message.topic} has {message.payload_size} bytes, and the platform takes {limit} at most"
            )

    def _count_call_of_platform(self) -> None:
        """Its acknowledgement costs a message (docs/platform_contract.md, section 5)."""
        self._rate_limiter.message_rate_limit.spend(1)

    async def _begin_traffic(self) -> None:
        """Start the queues with the first session, and prepare the traffic of each."""
        self._message_service.start()
        await self._prepare_traffic()

    async def _prepare_traffic(self) -> None:
        """What has to be done before queued messages may go."""

    def _apply_limits(self, limits: SessionLimits) -> None:
        self._limits = limits
        percentage = self._config.rate_limit_percentage
        apply_rate_limits(self._rate_limiter, limits.device, percentage)
        apply_rate_limits(self._gateway_rate_limiter, limits.gateway, percentage)
        # The session itself cost a message, and so did the end of the one before (docs/platform_contract.md, section 5).
        self._rate_limiter.message_rate_limit.spend(1 if self._mqtt_manager.connections == 1 else 2)
        self._message_service.max_remaining_length = limits.max_payload_size
        self.max_payload_size = self._payload_size(DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, limits)
        self._splitter.max_payload_size = self.max_payload_size
        self._splitter.max_datapoints = self._rate_limiter.telemetry_datapoints_rate_limit.minimal_limit
        self._admission.limits_changed()

    def _payload_size(self, timeseries_topic: str, attributes_topic: str, limits: SessionLimits) -> int:
        """Bytes that fit in a publish to either topic: a few less than possible for the shorter one."""
        version = self._mqtt_manager.mqtt_version
        topics = timeseries_topic, attributes_topic
        return min(max_payload_size(topic, limits.max_payload_size, version) for topic in topics)


def _random_client_id() -> str:
    alphabet = string.ascii_uppercase + string.digits
    return "tb-client-" + "".join(random.choices(alphabet, k=6))  # a name, not a secret
