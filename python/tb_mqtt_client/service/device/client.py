"""The client of one device."""

from __future__ import annotations

import asyncio
import itertools
import random
import string
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Literal, overload

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery, FutureMap
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.exceptions import NotConnectedError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage, max_payload_size
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import QueueRoom
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.common.statistics import DeliveryCounter, Statistics
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION,
    DEVICE_TELEMETRY_TOPIC,
    build_device_rpc_request_topic,
    build_device_rpc_response_topic,
)
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.admission import Admission
from tb_mqtt_client.service.base_client import BaseClient
from tb_mqtt_client.service.connection_keeper import Backoff, ConnectionKeeper
from tb_mqtt_client.service.device.message_adapter import JsonMessageAdapter
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.session_limits import REQUEST, SessionLimits, apply_rate_limits
from tb_mqtt_client.service.uplink_packer import UplinkPacker

logger = get_logger(__name__)


class DeviceClient(BaseClient):
    """Sends a device's data, and answers each call with what became of it.

    ``config`` is a ``DeviceConfig``, a dict of its options, or ``None`` for the environment. Delivery is at least once: what
    is not acknowledged when a connection ends is sent again on the next one.
    """

    def __init__(self, config: DeviceConfig | Mapping[str, Any] | None = None) -> None:
        self._config = self._as_config(config)
        client_id = self._config.client_id or _random_client_id()
        super().__init__(self._config.host, self._config.port, client_id)
        self.max_payload_size: int | None = None
        """Bytes that a telemetry payload may have; ``None`` until connected."""
        self._started = False
        self._rpc_request_ids = itertools.count(1)
        self._rate_limiter = _unlimited("device")
        self._gateway_rate_limiter = _unlimited("gateway")
        self._stop_event = asyncio.Event()
        backpressure = BackpressureController(self._stop_event, delay=self._config.backpressure_delay)
        self._admission = Admission(self._rate_limiter, self._gateway_rate_limiter, backpressure)
        self._counter = DeliveryCounter()
        self._futures = FutureMap()
        self._message_adapter = JsonMessageAdapter(futures=self._futures)
        self._mqtt_manager = MQTTManager(
            client_id,
            mqtt_version=self._config.mqtt_version,
            max_inflight=self._config.max_inflight_messages,
            ack_timeout=self._config.ack_timeout,
        )
        self._room = QueueRoom(self._config.max_queued_messages, self._config.max_queued_bytes)
        self._message_service = MessageService(
            self._mqtt_manager,
            self._admission,
            self._counter,
            self._futures,
            self._room,
            self._message_adapter.packer,
            self._gateway_packer(),
            device_qos=self._config.qos,
            queue_policy=self._config.queue_policy,
        )
        self._keeper = ConnectionKeeper(
            self._establish_session,
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
        return self._counter.snapshot(
            queued_calls=self._room.messages,
            in_flight_messages=manager.in_flight,
            connections=manager.connections,
            last_disconnect=manager.last_end.cause if manager.last_end else "",
            seconds_limited=self._admission.seconds_limited,
            backpressure_pauses=self._admission.backpressure.pauses,
        )

    async def connect(self) -> None:
        """Connect, ask for the session's limits, and stay connected until ``disconnect`` or ``stop``.

        Raises ``OSError`` when the server cannot be reached, ``ConnectionRefusedByServer`` (also a ``ConnectionError``) with the
        server's reason, ``TimeoutError`` when it does not answer, ``NotConnectedError`` when the client is stopped meanwhile, and
        ``ValueError`` without a host. A server that is busy is asked again. Does nothing when the client is connected.
        """
        if self._config.host is None:
            raise ValueError("host must be set, in the configuration or as TB_HOST")
        self._stop_event.clear()
        self._message_service.start()
        self._started = True
        await self._keeper.start()

    async def disconnect(self) -> None:
        """Close the connection. What is queued stays queued, and ``connect`` works again."""
        await self._keeper.stop()
        await self._mqtt_manager.disconnect()

    async def stop(self, timeout: float = BaseClient.DEFAULT_TIMEOUT) -> None:
        """Send what is queued for at most ``timeout`` seconds, close, and answer the rest as not delivered (-1)."""
        started, self._started = self._started, False
        try:
            if started:
                async with asyncio.timeout(timeout):
                    await self._message_service.drain()
        except TimeoutError:
            logger.warning("Stopping with data that was not delivered: %s", self.statistics)
        finally:
            self._stop_event.set()
            # A cancellation while draining, or while this runs, must not leave a half stopped client.
            await _uninterrupted(self._shut_down())

    async def _shut_down(self) -> None:
        await self.disconnect()
        await self._message_service.shutdown()

    @overload
    async def send_timeseries(
        self, data: Any, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def send_timeseries(self, data: Any, wait_for_publish: Literal[False], timeout: float | None = ...) -> list[Delivery]: ...
    @overload
    async def send_timeseries(
        self, data: Any, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | list[Delivery]: ...
    async def send_timeseries(
        self, data: Any, wait_for_publish: bool = True, timeout: float | None = None
    ) -> PublishResult | list[Delivery]:
        """Send a ``TimeseriesEntry``, ``{"ts": ms, "values": {...}}``, ``{key: value}``, or a list that mixes them.

        Returns the ``PublishResult`` of all its datapoints, or a list with one future of it when ``wait_for_publish`` is false.
        After ``timeout`` seconds (``None``: no limit) the result has reason code -1 and the data stays queued. Waits while
        the queues are full. Raises ``ValueError`` for data that the platform cannot store.
        """
        encoded = EncodedUplink.timeseries(data, _now_ms())
        return await self._send_uplink(encoded, DEVICE_TELEMETRY_TOPIC, wait_for_publish, timeout)

    @overload
    async def send_attributes(
        self, attributes: Any, wait_for_publish: Literal[True] = ..., timeout: float | None = ...
    ) -> PublishResult: ...
    @overload
    async def send_attributes(
        self, attributes: Any, wait_for_publish: Literal[False], timeout: float | None = ...
    ) -> list[Delivery]: ...
    @overload
    async def send_attributes(
        self, attributes: Any, wait_for_publish: bool = ..., timeout: float | None = ...
    ) -> PublishResult | list[Delivery]: ...
    async def send_attributes(
        self, attributes: Any, wait_for_publish: bool = True, timeout: float | None = BaseClient.DEFAULT_TIMEOUT
    ) -> PublishResult | list[Delivery]:
        """Send client attributes: ``{key: value}``, an ``AttributeEntry`` or a list of them. Otherwise as ``send_timeseries``."""
        encoded = EncodedUplink.attributes(attributes)
        return await self._send_uplink(encoded, DEVICE_ATTRIBUTES_TOPIC, wait_for_publish, timeout)

    async def _send_uplink(
        self, encoded: EncodedUplink, topic: str, wait_for_publish: bool, timeout: float | None
    ) -> PublishResult | list[Delivery]:
        self._require_started()
        service = self._message_service
        delivery = service.try_publish_uplink(encoded) or await service.publish_uplink(encoded)
        if not wait_for_publish:
            return [delivery]
        return await self._wait_for(delivery, topic, encoded.nbytes, timeout)

    async def _wait_for(self, delivery: Delivery, topic: str, size: int, timeout: float | None) -> PublishResult:
        """The result of a delivery, or one that says that it is still queued.

        A caller who is cancelled, or whose time is over, gives up the future, not the delivery.
        """
        limit = None if timeout is None or timeout < 0 else timeout
        try:
            async with asyncio.timeout(limit):
                return await delivery
        except TimeoutError:
            return PublishResult(topic, self._config.qos, -1, size, LocalReasonCode.NOT_DELIVERED)

    def _require_started(self) -> None:
        if not self._started:
            raise NotConnectedError("connect() must be called before anything is sent")

    async def _establish_session(self) -> None:
        """From TCP to a session in which traffic may flow."""
        config = self._config
        try:
            await self._set_session_up(config)
        except BaseException:
            # A session that is half set up is of no use, and whoever tries again begins with a new one.
            await self._mqtt_manager.disconnect()
            raise

    async def _set_session_up(self, config: DeviceConfig) -> None:
        await self._mqtt_manager.connect(
            str(config.host),
            config.port,
            username=config.access_token or config.username,
            password=None if config.access_token else config.password,
            keepalive=config.keepalive,
            ssl_context=config.ssl_context(),
        )
        await self._mqtt_manager.subscribe(DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION)
        self._apply_limits(await self._request_limits())
        await self._prepare_traffic()
        self._mqtt_manager.open_for_traffic()

    async def _prepare_traffic(self) -> None:
        """What has to be done before queued messages may go."""

    async def _request_limits(self) -> SessionLimits:
        """Ask for the limits; servers before 3.8 do not answer, and other brokers neither."""
        request_id = next(self._rpc_request_ids)
        reply: asyncio.Future[bytes] = self._mqtt_manager.session_future()

        async def receive(_topic: str, payload: bytes) -> None:
            if not reply.done():
                reply.set_result(payload)

        topic = build_device_rpc_response_topic(request_id)
        self._mqtt_manager.register_handler(topic, receive)
        try:
            request = MqttPublishMessage(build_device_rpc_request_topic(request_id), REQUEST)
            request.resend = False
            self._mqtt_manager.publish(request)
            async with asyncio.timeout(self._config.limits_timeout):
                return SessionLimits.parse(await reply)
        except TimeoutError:
            logger.info("The server did not tell its limits within %g s, defaults are used", self._config.limits_timeout)
        except ValueError as error:
            logger.warning("The server's limits are not usable, defaults are used: %s", error)
        finally:
            self._mqtt_manager.unregister_handler(topic)
            reply.cancel()
        return SessionLimits()

    def _apply_limits(self, limits: SessionLimits) -> None:
        percentage = self._config.rate_limit_percentage
        apply_rate_limits(self._rate_limiter, limits.device, percentage)
        apply_rate_limits(self._gateway_rate_limiter, limits.gateway, percentage)
        # The session itself cost a message, and so did the end of the one before (platform_contract.md, section 5).
        self._rate_limiter.message_rate_limit.spend(1 if self._mqtt_manager.connections == 1 else 2)
        self._message_service.max_remaining_length = limits.max_payload_size
        self.max_payload_size = self._payload_size(DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, limits)
        self._message_adapter.splitter.max_payload_size = self.max_payload_size
        self._message_adapter.splitter.max_datapoints = self._rate_limiter.telemetry_datapoints_rate_limit.minimal_limit
        self._admission.limits_changed()

    def _payload_size(self, timeseries_topic: str, attributes_topic: str, limits: SessionLimits) -> int:
        """Bytes that fit in a publish to either topic: a few less than possible for the shorter one."""
        version = self._mqtt_manager.mqtt_version
        topics = timeseries_topic, attributes_topic
        return min(max_payload_size(topic, limits.max_payload_size, version) for topic in topics)


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish ``work`` even when the caller is cancelled meanwhile; the cancellation goes on after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _unlimited(name: str) -> RateLimiter:
    """Limits that admit everything until the server tells its own."""
    return RateLimiter(
        RateLimit("", f"{name} messages"),
        RateLimit("", f"{name} telemetry messages"),
        RateLimit("", f"{name} telemetry datapoints"),
    )


def _random_client_id() -> str:
    alphabet = string.ascii_uppercase + string.digits
    return "tb-client-" + "".join(random.choices(alphabet, k=6))  # a name, not a secret
