"""The sends of one client: data is checked, encoded, and handed to the queues, in each of the ways in which a program may send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

from tb_mqtt_client._native import EncodedUplink, TableReader
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt, seconds_or_none
from tb_mqtt_client.common.config_loader import DeviceConfig
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult, pending_result
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import DEVICE_TELEMETRY_TOPIC
from tb_mqtt_client.constants.option_values import Priority
from tb_mqtt_client.service.call_guard import CallGuard
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.device_clock import DeviceClock
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.tables import Rows, TableSum, send_parts
from tb_mqtt_client.service.delivery.terms import NORMAL, SendTerms
from tb_mqtt_client.service.delivery.timestamps import check_unstamped, stamp_of
from tb_mqtt_client.service.message_service import MessageService


class Sends:
    """Accepts the sends of one client.

    A send is gathered (``PlainSends``) if nothing has to be decided about it. Otherwise a coroutine encodes it and has it accepted
    (``try_accept``, ``accept``), and a plain function enqueues it (``enqueue``). Another thread submits it (``submit``).
    """

    def __init__(
        self,
        config: DeviceConfig,
        guard: CallGuard,
        message_service: MessageService,
        admission: Admission,
        device_clock: DeviceClock | None,
    ) -> None:
        """Create the sends of a client.

        Args:
            config: The configuration of the client.
            guard: Says whether the client may be called.
            message_service: Its queues.
            admission: Its limits.
            device_clock: The clock of the device if the client checks it.
        """
        self._config = config
        self._guard = guard
        self._life = guard.life
        self._message_service = message_service
        self.intake: Intake = message_service.intake
        """Accepts what was encoded."""
        self._admission = admission
        self._device_clock = device_clock
        self.stamp: Callable[[], int | None] = stamp_of(config.timestamps) if device_clock is None else device_clock.stamp
        """Returns the timestamp of telemetry that is sent without one; ``None`` if the platform sets it, or the client when the
        clock of the device is set: the data then needs ``unstamped``."""

    def encode_timeseries(self, data: Any) -> EncodedUplink:
        """Encode timeseries of the device, in any thread."""
        stamp = self.stamp
        # In place of a call of the usual function, since every send passes here.
        now = time.time_ns() // 1_000_000 if stamp is now_ms else stamp()
        encoded = EncodedUplink.timeseries(data, now, None, self._config.round_floats)
        if now is None:
            encoded = self.unstamped(encoded)
        return encoded

    def encode_attributes(self, data: Any) -> EncodedUplink:
        """Encode client attributes of the device, in any thread."""
        return EncodedUplink.attributes(data, None, self._config.round_floats)

    def unstamped(self, encoded: EncodedUplink) -> EncodedUplink:
        """Return timeseries as they are queued if ``stamp`` has returned ``None``.

        Raises:
            ValueError: The platform would misread a key of data without a timestamp.
        """
        if self._device_clock is None:
            check_unstamped(encoded)
            return encoded
        return self._device_clock.hold(encoded)

    def terms(self, priority: Priority | str, expires_after: float | None) -> SendTerms | None:
        """Return the terms of a send, see ``send_terms``."""
        if priority is NORMAL and expires_after is None:
            return None
        return self._message_service.terms(priority, expires_after)

    async def begin_gathering(self, plain: PlainSends) -> bool:
        """Return whether ``plain`` may gather sends of coroutines; if it is their turn, the other tasks of the loop run first."""
        self._guard.require_started()
        return self.intake.may_gather(plain) and await self.intake.begin_gathering_in_turn(plain)

    def begin_gathering_now(self, plain: PlainSends) -> bool:
        """Return whether ``plain`` may gather sends of functions that do not wait."""
        self._guard.require_started()
        return self.intake.begin_gathering(plain)

    def try_accept(self, encoded: EncodedUplink, terms: SendTerms | None) -> DeliveryFuture | None:
        """Accept a send if it does not have to wait, and return the future of its result; otherwise None: ``accept`` waits."""
        guard = self._guard
        # Called at every send, so asyncio.get_running_loop(), which makes a system call, is not used. A forked child therefore
        # passes, because its copy of the loop claims to run; there asyncio refuses to await the result, and stop() raises.
        if not (self._life.accepts_sends and get_ident() == guard.thread and guard.is_loop_running()):
            guard.require_started()
        return self.intake.try_accept(encoded, terms)

    async def accept(self, encoded: EncodedUplink, terms: SendTerms | None) -> DeliveryFuture:
        """Accept a send, and return the future of its result, see ``Intake.accept``."""
        # Not every caller has called ``try_accept`` before.
        self._guard.require_started()
        return await self.intake.accept(encoded, terms)

    async def wait_for(self, delivery: DeliveryFuture, topic: str, size: int, timeout: float | None) -> PublishResult:
        """Return the result of a delivery, or one with reason code -1 after ``timeout`` seconds, when the data is still queued.

        A cancelled caller, or one whose time is over, cancels the future, not the delivery.
        """
        if timeout is None or (limit := seconds_or_none(timeout)) is None:
            return await delivery
        try:
            async with asyncio.timeout(limit):
                return await delivery
        except TimeoutError:
            return pending_result(topic, self._config.qos, size)

    async def wait_for_all(
        self, deliveries: Sequence[DeliveryFuture], topic: str, sizes: Sequence[int], timeout: float
    ) -> list[PublishResult]:
        """Return the results of several deliveries after at most ``timeout`` seconds in all, see ``wait_for``."""
        end = asyncio.get_running_loop().time() + timeout
        results: list[PublishResult] = []
        for delivery, size in zip(deliveries, sizes, strict=True):
            left = max(0.0, end - asyncio.get_running_loop().time())
            results.append(delivery.result() if delivery.done() else await self.wait_for(delivery, topic, size, left))
        return results

    def enqueue(self, encoded: EncodedUplink, terms: SendTerms | None) -> Delivery | DeliveryFuture:
        """Accept a send without waiting, and return its pending result, see ``Intake.enqueue``."""
        guard = self._guard
        if not (self._life.accepts_sends and get_ident() == guard.thread and guard.is_loop_running()):
            guard.require_started()
        return self.intake.enqueue(encoded, terms)

    def submit(
        self,
        uplink: EncodedUplink,
        receiver: SendReceipt,
        timeout: float | None,
        priority: Priority | str = Priority.NORMAL,
        expires_after: float | None = None,
    ) -> None:
        """Accept a send in any thread, see ``DeviceClient.submit``."""
        self._guard.require_accepting()
        self._message_service.submissions.put(uplink, receiver, timeout, self.terms(priority, expires_after))

    def withdraw(self, delivery: object) -> bool:
        """Remove a queued send, see ``DeviceClient.withdraw``."""
        self._guard.require_own_loop_if_used()
        return self._message_service.withdraw_send(delivery)

    async def send_table(
        self, open_reader: Callable[[], TableReader], wait_for_publish: bool, priority: Priority | str, expires_after: float | None
    ) -> PublishResult | list[DeliveryFuture]:
        """Send a table of the device, and return what ``send_timeseries`` returns."""
        terms = self.terms(priority, expires_after)
        self._guard.require_started()

        async def accept(rows: Rows) -> tuple[EncodedUplink, DeliveryFuture]:
            return await self.accept_part(rows[2], terms)

        total = TableSum(DEVICE_TELEMETRY_TOPIC, self._config.qos)
        return await send_parts(open_reader, accept, total, wait_for_publish)

    async def accept_part(self, encoded: EncodedUplink, terms: SendTerms | None) -> tuple[EncodedUplink, DeliveryFuture]:
        """Accept a part of a table. Return its datapoints as they are queued, and the future of their result."""
        if self.stamp() is None:
            encoded = self.unstamped(encoded)
        return encoded, self.try_accept(encoded, terms) or await self.accept(encoded, terms)

    def send_message(self, message: MqttPublishMessage) -> DeliveryFuture:
        """Queue a message without datapoints, and return the future of its result. Cancelling the future does not cancel the
        message.

        Raises:
            ValueError: The message is too large for the session.
            NotConnectedError: Nothing may be sent.
        """
        self.check_sendable(message)
        # The platform has no QoS 2, and accepts no QoS 0 for sub-devices (docs/platform_contract.md,
        # section 4).
        message.qos = 0 if self._config.qos == 0 and message.is_device_message else 1
        delivery: DeliveryFuture = asyncio.get_running_loop().create_future()
        message.delivery_futures.append(delivery)
        self._message_service.submit(message)
        return delivery

    def check_sendable(self, message: MqttPublishMessage) -> None:
        """Raise ``ValueError`` for a message that is too large for this session, and ``NotConnectedError`` before ``connect()``."""
        self._guard.require_started()
        limit = self._admission.payload_limits(of_sub_devices=False).payload_size(message.topic)
        if message.payload_size > limit:
            raise ValueError(
                f"the payload for {message.topic} has {message.payload_size} bytes, and the platform accepts at most {limit}"
            )
