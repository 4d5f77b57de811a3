"""From an accepted call to its answer: queues, routing, and what becomes of a message that was not acknowledged.

The rule: a datapoint that was accepted is in exactly one place (a queue, a worker's hands, in flight), and its call is answered
when it leaves the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, cast

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery, FutureMap
from tb_mqtt_client.common.config_loader import QueuePolicy
from tb_mqtt_client.common.exceptions import BackpressureException
from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt_message import DEFAULT_MAX_REMAINING_LENGTH, MqttPublishMessage, max_payload_size
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import AsyncDeque, QueueRoom
from tb_mqtt_client.common.statistics import DeliveryCounter
from tb_mqtt_client.constants.reason_codes import (
    BLAMING_DISCONNECTS,
    LIMITING_DISCONNECTS,
    QUOTA_REFUSALS,
    LocalReasonCode,
    ReasonCode,
    reason_name,
)
from tb_mqtt_client.service.admission import Admission
from tb_mqtt_client.service.mqtt_manager import MQTTManager, SessionEnd
from tb_mqtt_client.service.queue_worker import MessageQueueWorker, RetryQueueWorker, UplinkQueueWorker
from tb_mqtt_client.service.uplink_packer import ENCODED, NUMBER, QueuedUplink, UplinkPacker

logger = get_logger(__name__)

CALLS_BEFORE_YIELD = 500
"""Calls that are accepted before their caller has to let the loops run."""

SERVICE_ATTEMPTS = 3
"""How often a message without datapoints is published that the platform refuses for its quota, or disconnects for."""
SUSPECT_ATTEMPTS = 2
"""How often the platform may disconnect for a message that was in flight alone, until the message is given up."""

Queued = QueuedUplink | MqttPublishMessage


class MessageService:
    """The queues of one client: initial, service, device uplink, gateway uplink, and retry by QoS."""

    def __init__(
        self,
        mqtt_manager: MQTTManager,
        admission: Admission,
        counter: DeliveryCounter,
        futures: FutureMap,
        room: QueueRoom,
        device_packer: UplinkPacker,
        gateway_packer: UplinkPacker | None = None,
        *,
        device_qos: int = 1,
        queue_policy: QueuePolicy = QueuePolicy.WAIT,
    ) -> None:
        self._mqtt_manager = mqtt_manager
        self._admission = admission
        self._counter = counter
        self._futures = futures
        self._room = room
        self._queue_policy = queue_policy
        self._refusals_log = OccasionalLog(logger)
        self.max_remaining_length = DEFAULT_MAX_REMAINING_LENGTH
        """Bytes of the session's largest packet, without its first two to five."""
        self._initial: AsyncDeque[Queued] = AsyncDeque()
        self._accepted = 0
        self._create_future: Callable[[], Delivery] = _no_loop
        # Set while nobody drains, so that an acknowledgement does not look through the queues for nothing.
        self._drained = asyncio.Event()
        self._drained.set()
        self._held: dict[DeviceIdentity, deque[QueuedUplink]] = {}
        self._refused_devices: dict[DeviceIdentity, PublishResult] = {}
        self._announcement_answered = asyncio.Event()

        def common(name: str) -> tuple[Any, ...]:
            return name, mqtt_manager, admission, counter, self._fits

        def uplink_worker(name: str, packer: UplinkPacker, qos: int) -> UplinkQueueWorker:
            return UplinkQueueWorker(
                *common(name), packer=packer, room=room, qos=qos, retry=self._retry_by_qos, on_oversized=self._note_drained
            )

        self._retry_by_qos = RetryQueueWorker(*common("retry by QoS"), wait_announced=self._wait_announced)
        self._service = MessageQueueWorker(*common("service"))
        self._device_uplink = uplink_worker("device uplink", device_packer, device_qos)
        # Always QoS 1: at QoS 0 the server answers with an unsolicited PUBACK (platform_contract.md, section 4).
        self._gateway_uplink = uplink_worker("gateway uplink", gateway_packer, 1) if gateway_packer is not None else None
        self._uplink_workers = [worker for worker in (self._device_uplink, self._gateway_uplink) if worker is not None]
        self._workers: list[MessageQueueWorker] = [self._retry_by_qos, self._service, *self._uplink_workers]
        self._tasks: list[asyncio.Task[None]] = []
        mqtt_manager.patch_client_for_retry_logic(self.acknowledged, self.put_retry_messages)

    # The life of the loops.

    def start(self) -> None:
        """Start the loops; nothing happens when they run."""
        if self._tasks:
            return
        self._create_future = asyncio.get_running_loop().create_future
        self._room.open()
        loops: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
            ("initial", self._dispatch_initial_queue_loop),
            ("retry by QoS", self._dispatch_retry_by_qos_queue_loop),
            *((worker.name, worker.run) for worker in (self._service, *self._uplink_workers)),
        ]
        for name, loop in loops:
            task = asyncio.create_task(loop(), name=f"tb-mqtt-client {name} queue")
            task.add_done_callback(self._loop_ended)
            self._tasks.append(task)

    async def drain(self) -> None:
        """Wait until everything that was accepted is answered."""
        self._drained.clear()
        self._note_drained()
        await self._drained.wait()

    async def shutdown(self) -> None:
        """End the loops and answer everything that is left as not delivered."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.clear()

    def clear(self) -> None:
        """Answer everything that is queued as not delivered, and those who wait for room."""
        self._room.close()
        queued: list[Queued] = [*self._retry_by_qos.clear()]
        for worker in (self._service, *self._uplink_workers):
            queued += worker.take_back()
            queued += worker.queue.pop_now(len(worker.queue))
        for held in self._held.values():
            queued += held
        self._held.clear()
        self._refused_devices.clear()
        queued += self._initial.pop_now(len(self._initial))
        for item in queued:
            self._answer_undelivered(item)
        self._note_drained()

    def is_empty(self) -> bool:
        """Whether nothing is queued, held or in a worker's hands."""
        workers_empty = all(worker.is_empty() for worker in self._workers)
        return workers_empty and self._initial.is_empty() and not any(self._held.values())

    # The way in.

    def try_publish_uplink(self, encoded: EncodedUplink) -> Delivery | None:
        """Accept a call's datapoints if nothing has to be waited for. The future gets the call's ``PublishResult``.

        No coroutine: most calls come this way, and what they cost is what a program that does not wait pays.
        """
        # Now and then the caller has to let the loops run: a producer that awaits nothing cannot starve them.
        if self._accepted % CALLS_BEFORE_YIELD == 0 or not self._room.try_take(encoded.nbytes):
            return None
        return self._accept(encoded)

    async def publish_uplink(self, encoded: EncodedUplink) -> Delivery:
        """The same for calls that may have to wait. What happens when the queue is full is the user's choice: ``QueuePolicy``."""
        nbytes = encoded.nbytes
        if self._accepted % CALLS_BEFORE_YIELD == 0:
            await asyncio.sleep(0)
        if self._room.try_take(nbytes) or await self._overflow(nbytes):
            return self._accept(encoded)
        datapoints = encoded.datapoints
        self._counter.accept(datapoints)
        self._counter.drop(datapoints)
        delivery = self._create_future()
        _answer(delivery, PublishResult("", 1, -1, nbytes, LocalReasonCode.DROPPED, datapoints))
        return delivery

    def _accept(self, encoded: EncodedUplink) -> Delivery:
        delivery = self._create_future()
        self._counter.accept(encoded.datapoints)
        self._accepted += 1
        # A number costs memory, and only this policy has to know who came first.
        number = self._accepted if self._queue_policy is QueuePolicy.DROP_OLDEST else 0
        self._initial.append((encoded, delivery, number))
        return delivery

    async def _overflow(self, nbytes: int) -> bool:
        """There is no room: whether there is now, by the user's policy."""
        if self._queue_policy is QueuePolicy.RAISE:
            raise BackpressureException
        if self._queue_policy is QueuePolicy.DROP_NEWEST:
            return False
        if self._queue_policy is QueuePolicy.DROP_OLDEST:
            while self._drop_oldest():
                if self._room.try_take(nbytes):
                    return True
        await self._room.take(nbytes)
        return True

    def _drop_oldest(self) -> bool:
        """Answer the oldest call of which nothing is packed so far as dropped. False when there is none."""
        queues: list[AsyncDeque[Any]] = [worker.queue for worker in self._uplink_workers]
        candidates: list[tuple[int, Callable[[], Queued]]] = [
            (first[NUMBER], queue.take_now) for queue in queues if (first := queue.first_now()) is not None
        ]
        candidates += [(held[0][NUMBER], held.popleft) for held in self._held.values() if held]
        if not candidates and isinstance(first := self._initial.first_now(), tuple):
            candidates.append((first[NUMBER], self._initial.take_now))
        if not candidates:
            return False
        _, take_oldest = min(candidates, key=lambda candidate: candidate[0])
        encoded, delivery, _ = cast("QueuedUplink", take_oldest())
        datapoints = self._discard(encoded)
        self._counter.drop(datapoints)
        _answer(delivery, PublishResult("", 1, -1, encoded.nbytes, LocalReasonCode.DROPPED, datapoints))
        return True

    def publish(self, message: MqttPublishMessage) -> None:
        """Accept a message whose payload is bytes; its ``delivery_futures`` get its ``PublishResult``."""
        self._initial.append(message)

    def withdraw(self, message: MqttPublishMessage) -> None:
        """Forget a message without datapoints that is not published so far, because nobody waits for what it would do."""
        queued = self._initial.remove_now(message) or self._service.remove(message)
        if queued:
            self._answer_undelivered(message)
            self._note_drained()

    async def _dispatch_initial_queue_loop(self) -> None:
        """Route: service, device uplink or gateway uplink."""
        while True:
            await self._initial.wait_filled()
            queued = self._initial.pop_now(CALLS_BEFORE_YIELD)
            service_messages = [message for message in queued if isinstance(message, MqttPublishMessage)]
            if service_messages:
                self._service.queue.append_all(service_messages)
                self._route_uplinks([uplink for uplink in queued if isinstance(uplink, tuple)])
            else:
                self._route_uplinks(cast("list[QueuedUplink]", queued))
            await asyncio.sleep(0)

    def _route_uplinks(self, uplinks: Iterable[QueuedUplink]) -> None:
        if self._gateway_uplink is None:
            self._device_uplink.queue.append_all(uplinks)
            return
        device_uplinks, gateway_uplinks = [], []
        watched = self._held or self._refused_devices
        for uplink in uplinks:
            encoded = uplink[ENCODED]
            if not encoded.has_device:
                device_uplinks.append(uplink)
            elif not watched or self._may_go(uplink):
                gateway_uplinks.append(uplink)
        self._device_uplink.queue.append_all(device_uplinks)
        self._gateway_uplink.queue.append_all(gateway_uplinks)

    def _may_go(self, uplink: QueuedUplink) -> bool:
        """Whether a sub-device's call may be packed; when not, it is kept back or answered."""
        device = uplink[ENCODED].device
        if device is None:
            return True
        if device in self._held:
            self._held[device].append(uplink)
            return False
        if device in self._refused_devices:
            self._reject_uplink(uplink, self._refused_devices[device])
            return False
        return True

    # Sub-devices: their datapoints wait for the acknowledgement of their connect.

    def hold(self, device: DeviceIdentity) -> None:
        """Keep back a device's datapoints: the platform would create it with the wrong profile before its connect is
        acknowledged (platform_contract.md, section 4).
        """
        self._refused_devices.pop(device, None)
        self._held.setdefault(device, deque())

    def hold_all(self, devices: Iterable[DeviceIdentity]) -> None:
        """Keep back the datapoints of devices that have to be announced again, the queued ones too."""
        for device in devices:
            self.hold(device)
        if self._gateway_uplink is not None:
            queue = self._gateway_uplink.queue
            self._route_uplinks(queue.pop_now(len(queue)))

    def release(self, device: DeviceIdentity) -> None:
        """The device's connect was acknowledged: send what was kept back."""
        if self._gateway_uplink is not None:
            self._gateway_uplink.queue.append_all(self._held.pop(device, ()))
        self._announcement_answered.set()

    def reject_held(self, device: DeviceIdentity, connect_result: PublishResult) -> None:
        """The device's connect was refused: answer what was kept back, and what comes, with the same reason."""
        self._refused_devices[device] = connect_result
        for uplink in self._held.pop(device, ()):
            self._reject_uplink(uplink, connect_result)
        self._announcement_answered.set()
        self._note_drained()

    def _reject_uplink(self, uplink: QueuedUplink, connect_result: PublishResult) -> None:
        encoded, delivery, _ = uplink
        datapoints = self._discard(encoded)
        self._counter.refuse_queued(datapoints, connect_result.reason_code)
        _answer(delivery, connect_result.with_datapoints(datapoints))

    async def _wait_announced(self, message: MqttPublishMessage) -> None:
        """Wait until all devices that a message is of have been announced in this session."""
        devices = [message.device] if message.device else message.packed.device_identities() if message.packed else []
        while any(device in self._held for device in devices):
            self._announcement_answered.clear()
            await self._announcement_answered.wait()

    # The way back: acknowledged, refused, or lost with its connection.

    def acknowledged(self, message: MqttPublishMessage, reason_code: int) -> None:
        """A PUBACK came: answer the calls of its message, or publish the message again."""
        if reason_code == 0:
            if not message.is_service_message:
                self._counter.acknowledge(message.datapoints)
            self._answer_message(message, reason_code)
        elif reason_code in QUOTA_REFUSALS:
            self._refused_for_now(message, reason_code)
        elif self._send_in_parts(message):
            self._counter.take_back(message.datapoints, message.superseded)
            logger.debug("%r was refused (%s), its devices are sent one by one", message, reason_name(reason_code))
        else:
            self._refused(message, reason_code)
        self._note_drained()

    def _refused_for_now(self, message: MqttPublishMessage, reason_code: int) -> None:
        likely = self._admission.likely_limit(message)
        text = "The platform refused %r for now: %s. The limit: %s"
        self._refusals_log.warn_of(("for now", reason_code), text, message, reason_name(reason_code), likely)
        self._admission.backpressure.notify_quota_exceeded()
        if not message.is_service_message:
            self._counter.take_back(message.datapoints, message.superseded)
            self._retry_by_qos.put([message])
            return
        message.refusals += 1
        if message.refusals < SERVICE_ATTEMPTS:
            self._service.queue.prepend_all([message])
        else:
            self._answer_message(message, reason_code)

    def _refused(self, message: MqttPublishMessage, reason_code: int) -> None:
        text = "The platform rejected %r: %s"
        self._refusals_log.warn_of(("rejected", reason_code), text, message, reason_name(reason_code))
        if not message.is_service_message:
            self._counter.refuse(message.datapoints, message.superseded, reason_code)
        self._answer_message(message, reason_code)

    def _send_in_parts(self, message: MqttPublishMessage) -> bool:
        """Replace a message of several devices by one for each, so that only the bad one fails. False when there is only one."""
        if message.packed is None or message.devices < 2:
            return False
        sources = [datapoints for _, datapoints in message.packed.sources]
        parts, owners, first = [], [], 0
        for device, payload, written, count in message.packed.split_by_device():
            answered_for = sum(sources[first : first + count])
            first += count
            part = MqttPublishMessage(message.topic, payload, message.qos, datapoints=answered_for)
            part.device, part.superseded = device, answered_for - written
            part.payload_limit, part.suspect = message.payload_limit, message.suspect
            parts.append(part)
            owners.append((part.delivery_futures[0], count))
        self._futures.replace_child(message.delivery_futures[0], owners)
        self._retry_by_qos.put(parts)
        return True

    def put_retry_messages(self, messages: list[MqttPublishMessage], end: SessionEnd) -> None:
        """Take messages back whose connection ended before their PUBACK; they go first, in their old order, on the next one."""
        messages = [message for message in messages if message.resend]
        uplinks = [message for message in messages if not message.is_service_message]
        for message in uplinks:
            self._counter.take_back(message.datapoints, message.superseded)
        if end.reason_code in BLAMING_DISCONNECTS:
            messages = self._without_the_guilty(messages, end.reason_code)
            uplinks = [message for message in messages if not message.is_service_message]
        elif end.reason_code in LIMITING_DISCONNECTS:
            self._admission.backpressure.notify_disconnect()
            if uplinks:
                logger.warning("A limit was exceeded: %s", self._admission.likely_limit(uplinks[0]))
        if uplinks:
            datapoints = sum(message.datapoints for message in uplinks)
            logger.info("%d datapoints in %d messages are sent again: queued=%d", datapoints, len(uplinks), self._counter.queued)
        service = [message for message in messages if message.is_service_message]
        self._service.queue.prepend_all([*service, *self._service.take_back()])
        self._retry_by_qos.put(uplinks, [message for worker in self._uplink_workers for message in worker.take_back()])
        self._note_drained()

    def _without_the_guilty(self, messages: list[MqttPublishMessage], reason_code: int) -> list[MqttPublishMessage]:
        """The server may have disconnected for one of these: each goes alone next time, and is given up after some of those."""
        kept = []
        for message in messages:
            alone = message.suspect and len(messages) == 1
            if alone or message.is_service_message:
                message.refusals += 1
            if message.refusals < (SERVICE_ATTEMPTS if message.is_service_message else SUSPECT_ATTEMPTS):
                message.suspect = True
                kept.append(message)
            elif not self._send_in_parts(message):
                self._reject_unsent(message, reason_code)
        return kept

    def _fits(self, message: MqttPublishMessage) -> bool:
        """Whether a message is within this session's limits. Those of an earlier session may have been wider."""
        limit = max_payload_size(message.topic, self.max_remaining_length, self._mqtt_manager.mqtt_version)
        small_enough = message.payload_size <= limit
        if small_enough and self._admission.admits_ever(message):
            return True
        if not self._send_in_parts(message):
            self._reject_unsent(message, ReasonCode.QUOTA_EXCEEDED if small_enough else ReasonCode.PACKET_TOO_LARGE)
            self._note_drained()
        return False

    def _reject_unsent(self, message: MqttPublishMessage, reason_code: int) -> None:
        text = "%r is given up and counts as rejected: %s"
        self._refusals_log.warn_of(("given up", reason_code), text, message, reason_name(reason_code))
        if not message.is_service_message:
            self._counter.refuse_queued(message.datapoints, reason_code)
        self._answer_message(message, reason_code)

    async def _dispatch_retry_by_qos_queue_loop(self) -> None:
        """Publish again what has to be, before anything younger."""
        await self._retry_by_qos.run()

    # Answers.

    def _answer_message(self, message: MqttPublishMessage, reason_code: int) -> None:
        packet_id = message.message_id if message.message_id is not None else -1
        result = PublishResult(message.topic, message.qos, packet_id, message.payload_size, reason_code, message.datapoints)
        for delivery in message.delivery_futures:
            _answer(delivery, result)
            self._futures.child_resolved(delivery)

    def _answer_undelivered(self, item: Queued) -> None:
        if isinstance(item, MqttPublishMessage):
            if not item.is_service_message:
                self._counter.leave_undelivered(item.datapoints)
            self._answer_message(item, LocalReasonCode.NOT_DELIVERED)
            return
        encoded, delivery, _ = item
        datapoints = self._discard(encoded)
        self._counter.leave_undelivered(datapoints)
        _answer(delivery, PublishResult("", 1, -1, encoded.nbytes, LocalReasonCode.NOT_DELIVERED, datapoints))

    def _discard(self, encoded: EncodedUplink) -> int:
        """Give back the room of a call that is not sent; its datapoints."""
        self._room.give_back(1, encoded.nbytes)
        return encoded.datapoints

    def _note_drained(self) -> None:
        if not self._drained.is_set() and not self._mqtt_manager.in_flight and self.is_empty():
            self._drained.set()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """A loop never ends by itself: if one does, that is a defect, and nobody may wait for it in vain."""
        if task.cancelled():
            return
        task.get_loop().call_exception_handler(
            {"message": f"{task.get_name()} failed", "exception": task.exception(), "task": task}
        )
        for other in self._tasks:
            other.cancel()
        self._tasks.clear()
        self.clear()


def _no_loop() -> Delivery:
    raise RuntimeError("the service was not started")


def _answer(delivery: Delivery, result: PublishResult) -> None:
    # A caller who was cancelled while waiting has no use for the answer.
    if not delivery.done():
        delivery.set_result(result)
