"""Queues and the loops that empty them: from an accepted call to a PUBLISH, and from its PUBACK to the call's answer.

The rule: a datapoint that was accepted is in exactly one place (a queue, a worker's hands, in flight), and its call is answered
when it leaves the last one. Each queue has one loop; a loop waits on an event, a future or one exact timer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, take_all
from tb_mqtt_client.common.async_utils import Delivery, FutureMap
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import AsyncDeque, QueueRoom
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.common.statistics import DeliveryCounter
from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.uplink_packer import QueuedUplink, UplinkPacker

logger = get_logger(__name__)

NOT_DELIVERED = -1
"""Reason code of a message that the platform did not answer; every other code is the platform's."""

BATCH_PAYLOADS = 32
"""Payloads that one batch may fill. Only the last one of a batch is not full, so that more of them waste less."""

CALLS_BEFORE_YIELD = 500
"""Calls that are accepted before the caller has to let the loops run: a producer that awaits nothing cannot starve them."""

Clock = Callable[[], int]
Queued = QueuedUplink | MqttPublishMessage


class Admission:
    """The rate limits of one client: everything that a message needs is taken at once, or its worker waits."""

    def __init__(self, device: RateLimiter, gateway: RateLimiter, clock: Clock = time.monotonic_ns) -> None:
        self._device = device
        self._gateway = gateway
        self._clock = clock
        self._changed = asyncio.Event()

    def try_take(self, message: MqttPublishMessage) -> float:
        """Take what the message needs. Seconds to wait; 0.0 when it was taken."""
        limiter = self._device if message.is_device_message else self._gateway
        if message.is_service_message:
            needs = [(limiter.message_rate_limit.buckets, 1)]
        else:
            needs = [
                (limiter.telemetry_message_rate_limit.buckets, message.devices),
                (limiter.telemetry_datapoints_rate_limit.buckets, message.datapoints - message.superseded),
            ]
        # A payload packed under the wider limits of an earlier session may need more than a window now holds.
        requests = [(buckets, min(needed, buckets.smallest_capacity or needed)) for buckets, needed in needs]
        wait = take_all(requests, self._clock())
        if wait is None:
            return 0.0
        nanoseconds, capacity, seconds = wait
        logger.debug("Limit %d:%g reached, %r waits %.3f s", capacity, seconds, message, nanoseconds / 1e9)
        return nanoseconds / 1e9

    async def wait(self, seconds: float) -> None:
        """Wait that long, or until the limits change."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def limits_changed(self) -> None:
        """Wake those who wait by the old limits."""
        self._changed.set()


class MessageQueueWorker:
    """Empties one queue: takes what is there, makes publishes of it, and publishes them one after the other."""

    def __init__(
        self,
        name: str,
        queue: AsyncDeque[Any],
        mqtt_manager: MQTTManager,
        admission: Admission,
        counter: DeliveryCounter,
    ) -> None:
        self.name = name
        self.queue = queue
        self._mqtt_manager = mqtt_manager
        self._admission = admission
        self._counter = counter
        self.unsent: deque[MqttPublishMessage] = deque()
        """Made, but not published so far."""

    def take_batch(self) -> Iterable[MqttPublishMessage]:
        """Publishes of what is queued."""
        messages: list[MqttPublishMessage] = self.queue.pop_now(1)
        return messages

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.queue.wait_filled()
            # Taken as late as possible: what gathers while the window is full travels together.
            await self._mqtt_manager.wait_writable()
            self.unsent.extend(self.take_batch())
            while self.unsent:
                await self.process(self.unsent[0])

    async def process(self, message: MqttPublishMessage) -> None:
        """Publish the first unsent message when window and limits allow it."""
        while True:
            await self._mqtt_manager.wait_writable()
            wait = self._admission.try_take(message)
            if not wait:
                break
            await self._admission.wait(wait)
        self.unsent.popleft()
        if not message.is_service_message:
            size, limit = message.payload_size, message.payload_limit
            self._counter.published(message.datapoints, message.superseded, size, limit)
        self._mqtt_manager.publish(message)


class UplinkQueueWorker(MessageQueueWorker):
    """Empties a queue of calls with datapoints: as many as fill a batch of payloads are packed together."""

    def __init__(self, *args: Any, packer: UplinkPacker, room: QueueRoom, qos: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._packer = packer
        self._room = room
        self._qos = qos

    def take_batch(self) -> Iterable[MqttPublishMessage]:
        """Pack what is queued."""
        uplinks, nbytes = self._pop_batch()
        batch = self._packer.pack(uplinks, self._qos)
        self._room.give_back(len(uplinks), nbytes)
        for oversized in batch.oversized:
            self._counter.refused_unsent(1, oversized.result.reason_code)
            logger.warning(
                "The datapoint %r needs a payload of %d bytes, which is over the limit: it is not sent",
                oversized.key,
                oversized.result.payload_size,
            )
        return batch.messages

    def _pop_batch(self) -> tuple[list[QueuedUplink], int]:
        budget = BATCH_PAYLOADS * self._packer.payload_budget
        uplinks: list[QueuedUplink] = []
        nbytes = 0
        while nbytes < budget and not self.queue.is_empty():
            for uplink in self.queue.pop_now(100):
                uplinks.append(uplink)
                nbytes += uplink.encoded.nbytes
        return uplinks, nbytes


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
    ) -> None:
        self._counter = counter
        self._futures = futures
        self._room = room
        self._initial: AsyncDeque[Queued] = AsyncDeque()
        self._since_yield = 0
        self._mqtt_manager = mqtt_manager
        # Set while nobody drains, so that an acknowledgement does not look through the queues for nothing.
        self._drained = asyncio.Event()
        self._drained.set()
        self._held: dict[DeviceIdentity, list[QueuedUplink]] = {}

        def worker(name: str) -> tuple[Any, ...]:
            return name, AsyncDeque(), mqtt_manager, admission, counter

        self._retry_by_qos = MessageQueueWorker(*worker("retry by QoS"))
        self._service = MessageQueueWorker(*worker("service"))
        self._device_uplink = UplinkQueueWorker(*worker("device uplink"), packer=device_packer, room=room, qos=device_qos)
        # Always QoS 1: at QoS 0 the server answers with an unsolicited PUBACK (platform_contract.md, section 4).
        self._gateway_uplink = (
            UplinkQueueWorker(*worker("gateway uplink"), packer=gateway_packer, room=room, qos=1)
            if gateway_packer is not None
            else None
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def _workers(self) -> list[MessageQueueWorker]:
        workers = [self._retry_by_qos, self._service, self._device_uplink]
        return workers if self._gateway_uplink is None else [*workers, self._gateway_uplink]

    def start(self) -> None:
        """Start the loops; nothing happens when they run."""
        if self._tasks:
            return
        loops: list[tuple[str, Coroutine[Any, Any, None]]] = [("initial", self._dispatch_initial_queue_loop())]
        loops += [(worker.name, worker.run()) for worker in self._workers]
        for name, loop in loops:
            task = asyncio.create_task(loop, name=f"tb-mqtt-client {name} queue")
            task.add_done_callback(self._loop_ended)
            self._tasks.append(task)

    async def publish_uplink(self, encoded: EncodedUplink) -> Delivery:
        """Accept a call's datapoints; waits while the queues are full. The future gets the call's ``PublishResult``."""
        nbytes = encoded.nbytes
        if not self._room.try_take(nbytes):
            await self._room.take(nbytes)
        delivery: Delivery = asyncio.get_running_loop().create_future()
        self._counter.accepted(encoded.timeseries_count + encoded.attribute_count)
        self._initial.append(QueuedUplink(encoded, delivery))
        self._since_yield += 1
        if self._since_yield >= CALLS_BEFORE_YIELD:
            self._since_yield = 0
            await asyncio.sleep(0)
        return delivery

    def publish(self, message: MqttPublishMessage) -> None:
        """Accept a message whose payload is bytes; its ``delivery_futures`` get its ``PublishResult``."""
        self._initial.append(message)

    def hold(self, device: DeviceIdentity) -> None:
        """Keep back a device's datapoints: the platform would create it with the wrong profile before its connect is
        acknowledged (platform_contract.md, section 4).
        """
        self._held.setdefault(device, [])

    def release(self, device: DeviceIdentity) -> None:
        """The device's connect was acknowledged: send what was kept back."""
        if self._gateway_uplink is not None:
            self._gateway_uplink.queue.append_all(self._held.pop(device, []))

    def reject_held(self, device: DeviceIdentity, connect_result: PublishResult) -> None:
        """The device's connect was refused: answer what was kept back with the same reason."""
        for uplink in self._held.pop(device, []):
            datapoints = self._discard(uplink)
            self._counter.refused_unsent(datapoints, connect_result.reason_code)
            _answer(uplink.delivery, connect_result.with_datapoints(datapoints))

    async def _dispatch_initial_queue_loop(self) -> None:
        """Route: service, device uplink or gateway uplink."""
        while True:
            await self._initial.wait_filled()
            for queued in self._initial.pop_now(CALLS_BEFORE_YIELD):
                if isinstance(queued, MqttPublishMessage):
                    self._service.queue.append(queued)
                else:
                    self._route_uplink(queued)
            await asyncio.sleep(0)

    def _route_uplink(self, uplink: QueuedUplink) -> None:
        if self._gateway_uplink is None or (device := uplink.encoded.device) is None:
            self._device_uplink.queue.append(uplink)
        elif (held := self._held.get(device)) is not None:
            held.append(uplink)
        else:
            self._gateway_uplink.queue.append(uplink)

    def put_retry_messages(self, messages: list[MqttPublishMessage]) -> None:
        """Take messages back whose connection ended before their PUBACK; they go first when there is a new one."""
        for message in messages:
            if not message.is_service_message:
                self._counter.returned(message.datapoints)
        self._retry_by_qos.queue.prepend_all(messages)

    def acknowledged(self, message: MqttPublishMessage, reason_code: int) -> None:
        """Answer the calls of a message whose PUBACK came."""
        if not message.is_service_message:
            if reason_code == 0:
                self._counter.acknowledged(message.datapoints)
            else:
                self._counter.refused(message.datapoints, reason_code)
        if reason_code != 0:
            logger.warning("The platform refused %r: %s", message, reason_name(reason_code))
        self._answer_message(message, reason_code)
        self._note_drained()

    def _answer_message(self, message: MqttPublishMessage, reason_code: int) -> None:
        packet_id = message.message_id if message.message_id is not None else -1
        result = PublishResult(message.topic, message.qos, packet_id, message.payload_size, reason_code, message.datapoints)
        for delivery in message.delivery_futures:
            _answer(delivery, result)
            self._futures.child_resolved(delivery)

    def is_empty(self) -> bool:
        """Whether nothing is queued, held or in a worker's hands."""
        queues = [self._initial, *(worker.queue for worker in self._workers)]
        unsent = any(worker.unsent for worker in self._workers)
        return all(queue.is_empty() for queue in queues) and not any(self._held.values()) and not unsent

    async def drain(self) -> None:
        """Wait until everything that was accepted is answered."""
        self._drained.clear()
        self._note_drained()
        await self._drained.wait()

    def _note_drained(self) -> None:
        if not self._drained.is_set() and not self._mqtt_manager.in_flight and self.is_empty():
            self._drained.set()

    async def shutdown(self) -> None:
        """End the loops and answer everything that is left as not delivered."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.clear()

    def clear(self) -> None:
        """Answer everything that is queued as not delivered."""
        queued: list[Queued] = self._initial.pop_now(len(self._initial))
        for held in self._held.values():
            queued += held
        self._held.clear()
        for worker in self._workers:
            queued += worker.unsent
            worker.unsent.clear()
            queued += worker.queue.pop_now(len(worker.queue))
        for item in queued:
            self._answer_undelivered(item)

    def _answer_undelivered(self, item: Queued) -> None:
        if isinstance(item, MqttPublishMessage):
            if not item.is_service_message:
                self._counter.undelivered(queued=item.datapoints, in_flight=0)
            self._answer_message(item, NOT_DELIVERED)
            return
        datapoints = self._discard(item)
        self._counter.undelivered(queued=datapoints, in_flight=0)
        _answer(item.delivery, PublishResult("", 1, -1, item.encoded.nbytes, NOT_DELIVERED, datapoints))

    def _discard(self, uplink: QueuedUplink) -> int:
        """Give back the room of a call that is not sent; its datapoints."""
        self._room.give_back(1, uplink.encoded.nbytes)
        return uplink.encoded.timeseries_count + uplink.encoded.attribute_count

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


def _answer(delivery: Delivery, result: PublishResult) -> None:
    # A caller who was cancelled while waiting has no use for the answer.
    if not delivery.done():
        delivery.set_result(result)
