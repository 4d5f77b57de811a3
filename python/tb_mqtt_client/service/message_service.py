"""The queues of one client, and the way of a call through them: in, to the worker of its kind, and back when it was not delivered.

The rule: a datapoint that was accepted is in exactly one place (a queue, a worker's hands, in flight), and its call is answered
when it leaves the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

from tb_mqtt_client.common.async_utils import Delivery, answer_as
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import DEFAULT_MAX_REMAINING_LENGTH, MqttPublishMessage, max_payload_size
from tb_mqtt_client.common.options import DEFAULT_MAX_QUEUED_BYTES
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import AsyncDeque, QueueRoom
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_CONNECT_TOPIC, GATEWAY_DISCONNECT_TOPIC
from tb_mqtt_client.constants.option_values import QueuePolicy
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.intake import Entrance
from tb_mqtt_client.service.delivery.outcomes import Outcomes
from tb_mqtt_client.service.delivery.packing import DELIVERY, ENCODED, NUMBER, Queued, QueuedUplink, UplinkPacker, queued_uplink
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.sub_devices import SubDevices
from tb_mqtt_client.service.delivery.suspects import SuspectWorker
from tb_mqtt_client.service.delivery.timestamp_advice import TimestampAdvice
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.workers import FailedRounds, MessageQueueWorker, RetryQueueWorker, UplinkQueueWorker
from tb_mqtt_client.service.mqtt_manager import MQTTManager

logger = get_logger(__name__)

ANNOUNCING_TOPICS = frozenset({GATEWAY_CONNECT_TOPIC, GATEWAY_DISCONNECT_TOPIC})

SENDS_A_TURN = 500
"""Sends that are accepted, and routed, before other tasks of the loop get their turn."""

WorkerT = TypeVar("WorkerT", bound=MessageQueueWorker)


class MessageService:
    """The queues of one client: initial, service, device uplink, gateway uplink, and retry by QoS."""

    def __init__(
        self,
        mqtt_manager: MQTTManager,
        main_stop_event: asyncio.Event,
        backpressure: BackpressureController,
        device_rate_limiter: RateLimiter,
        packer: UplinkPacker,
        max_queue_size: int = 1_000_000,
        batch_collect_max_time_ms: float = 10,
        batch_collect_max_count: int = SENDS_A_TURN,
        gateway_packer: UplinkPacker | None = None,
        gateway_rate_limiter: RateLimiter | None = None,
        *,
        max_queued_bytes: int = DEFAULT_MAX_QUEUED_BYTES,
        device_qos: int = 1,
        queue_policy: QueuePolicy = QueuePolicy.WAIT,
    ) -> None:
        """Nothing more is sent once ``main_stop_event`` is set.

        At most ``max_queue_size`` calls and ``max_queued_bytes`` of their datapoints are queued. ``batch_collect_max_count``: calls
        that are accepted, and routed, before other tasks of the loop get their turn. ``batch_collect_max_time_ms`` changes nothing:
        no call waits for a batch to fill, and what gathers meanwhile travels together. The packers share a ``FutureMap``.
        """
        self._mqtt_manager = mqtt_manager
        self._stop_event = main_stop_event
        self._device_rate_limiter = device_rate_limiter
        self._gateway_rate_limiter = gateway_rate_limiter
        self._batch_collect_max_count = batch_collect_max_count
        self._futures = packer.future_map
        self.admission = Admission(device_rate_limiter, gateway_rate_limiter, backpressure)
        """When a message may go."""
        self._timestamp_advice = TimestampAdvice(logger)
        self.counter = DeliveryCounter()
        """What became of the datapoints."""
        self.room = QueueRoom(max_queue_size, max_queued_bytes)
        """What is queued."""
        self.max_remaining_length = DEFAULT_MAX_REMAINING_LENGTH
        """Bytes of the session's largest packet, without its first two to five."""
        self._receipts = Receipts(self._futures, self.counter, self.room)
        self._initial: AsyncDeque[Queued] = AsyncDeque()
        self.entrance = Entrance(
            self._initial, self.room, self.counter, self._receipts, queue_policy, batch_collect_max_count, self._take_oldest
        )
        """Where calls with datapoints come in."""
        # Set while nobody drains, so that an acknowledgement does not look through the queues for nothing.
        self._drained = asyncio.Event()
        self._drained.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = FailedRounds("initial", main_stop_event)

        self._retry_by_qos = self._worker(RetryQueueWorker, "retry by QoS", AsyncDeque(), wait_announced=self._wait_announced)
        self._outcomes = Outcomes(
            self._receipts, self._futures, self.counter, self.admission, self._retry_by_qos, self._publish_service_again
        )
        self._suspects = self._outcomes.suspects
        options = {"suspects": self._suspects, "wait_announced": self._wait_announced}
        self._suspect_worker = self._worker(SuspectWorker, "suspects", AsyncDeque(), **options)
        self._service = self._worker(MessageQueueWorker, "service", AsyncDeque())
        # There may be thousands of them after a reconnect: a call's answer cannot wait behind them.
        self._announcements = self._worker(MessageQueueWorker, "announcements", AsyncDeque())
        self._device_uplink = self._uplink_worker("device uplink", AsyncDeque(), packer, device_qos)
        self._gateway_uplink: UplinkQueueWorker | None = None
        self._uplink_workers = [self._device_uplink]
        self._service_workers = [self._announcements, self._service]
        self._gateway_queue: AsyncDeque[QueuedUplink] = AsyncDeque()
        self._sub_devices: SubDevices | None = None
        if gateway_packer is not None:
            self._add_gateway_uplink(gateway_packer)
        mqtt_manager.patch_client_for_retry_logic(self.put_retry_messages, self.acknowledged)

    def plug_in(self, sub_devices: SubDevices, packer: UplinkPacker) -> None:
        """Let the component of a gateway hold back data of sub-devices, and rename it. ``packer`` packs the data."""
        self._add_gateway_uplink(packer)
        self._sub_devices = self._outcomes.sub_devices = sub_devices
        self.entrance.plug_in(sub_devices)

    def _add_gateway_uplink(self, packer: UplinkPacker) -> None:
        # Always QoS 1: at QoS 0 the server does not report refusals (docs/platform_contract.md, section 4).
        self._gateway_uplink = self._uplink_worker("gateway uplink", self._gateway_queue, packer, 1)
        self._uplink_workers.append(self._gateway_uplink)

    def _worker(self, kind: type[WorkerT], name: str, queue: AsyncDeque[Any], **options: Any) -> WorkerT:
        return kind(
            name,
            queue,
            self._stop_event,
            self._mqtt_manager,
            self._device_rate_limiter,
            self._gateway_rate_limiter,
            admission=self.admission,
            counter=self.counter,
            give_up=self._give_up,
            **{"fits": self._fits} | options,
        )

    def _uplink_worker(self, name: str, queue: AsyncDeque[QueuedUplink], packer: UplinkPacker, qos: int) -> UplinkQueueWorker:
        options = {"packer": packer, "room": self.room, "qos": qos}
        options |= {"on_suspicious_ts": self._timestamp_advice.note, "fits": self._fits_session}
        return self._worker(UplinkQueueWorker, name, queue, **options, retry=self._retry_by_qos, on_oversized=self._note_drained)

    # The life of the loops.

    @property
    def has_failed(self) -> bool:
        """Whether a loop has ended by itself: nothing is accepted until ``open``."""
        return self.entrance.has_failed

    def open(self) -> None:
        """Accept messages and sends of the running loop. They stay queued until ``start``."""
        self.entrance.open()

    def start(self) -> None:
        """Start the loops; nothing happens when they run."""
        if self._tasks:
            return
        self.open()
        self._start_loop("initial", self._dispatch_initial_queue_loop())
        self._start_loop("retry by QoS", self._dispatch_retry_by_qos_queue_loop())
        for worker in (self._suspect_worker, *self._service_workers, *self._uplink_workers):
            self._start_loop(worker.name, worker.run())

    def _start_loop(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop, name=f"tb-mqtt-client {name} queue")
        task.add_done_callback(self._loop_ended)
        self._tasks.append(task)

    async def drain(self) -> None:
        """Wait until everything that was accepted is answered."""
        self._drained.clear()
        self._note_drained()
        await self._drained.wait()

    async def pause(self) -> None:
        """End the loops. Queued data stays queued, and ``start`` continues with it."""
        await self._end_loops()
        # Unsent messages of the workers go where the end of a session puts them: before anything younger.
        self.put_retry_messages([], SessionEnd("the client was disconnected"))

    async def _end_loops(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def shutdown(self) -> None:
        """End the loops and answer everything that is left as not delivered."""
        try:
            await self._end_loops()
        finally:
            self.entrance.close()
            self._clear_now()

    async def clear(self) -> None:
        """Answer everything that is queued as not delivered. What is in flight goes on."""
        self._clear_now()

    def _clear_now(self) -> None:
        queued: list[Queued] = [*self._retry_by_qos.clear(), *self._suspects.clear()]
        for worker in (*self._service_workers, *self._uplink_workers):
            queued += worker.take_back()
            queued += worker.queue.pop_now(len(worker.queue))
        if self._sub_devices is not None:
            queued += self._sub_devices.take_held()
        queued += self._initial.pop_now(len(self._initial))
        for item in queued:
            self._receipts.undelivered(item)
        self._note_drained()

    def has_service_messages(self) -> bool:
        """Whether messages without datapoints are queued or in a worker's hands, for the limits or the window."""
        return not all(worker.is_empty() for worker in self._service_workers)

    def is_empty(self) -> bool:
        """Whether nothing is queued, held or in a worker's hands."""
        workers = (self._retry_by_qos, self._suspect_worker, *self._service_workers, *self._uplink_workers)
        workers_empty = all(worker.is_empty() for worker in workers)
        return workers_empty and self._initial.is_empty() and not (self._sub_devices is not None and self._sub_devices.holds_data)

    def _all_queued(self) -> list[Queued]:
        """Return what is queued, held or taken by a worker, wherever it is."""
        queued: list[Queued] = [*self._initial.items_now(), *self._suspects.all()]
        for worker in (self._retry_by_qos, *self._service_workers, *self._uplink_workers):
            queued += [*worker.unsent, *worker.queue.items_now()]
        if self._sub_devices is not None:
            queued += self._sub_devices.held()
        return queued

    async def print_queues_statistics(self) -> None:
        """Write into the log what is queued now, at INFO."""
        queues = {"initial": len(self._initial)}
        for worker in (*self._service_workers, *self._uplink_workers, self._retry_by_qos):
            queues[worker.name] = len(worker.queue) + len(worker.unsent)
        queues[self._suspect_worker.name] = len(self._suspects.all())
        logger.info("Queued: %s", ", ".join(f"{name} {length}" for name, length in queues.items()))

    # The way in.

    async def publish(self, message: MqttPublishMessage) -> list[Delivery]:
        """Accept a message; the futures, which are those of the message, get its ``PublishResult``.

        An uplink message comes in as a call does, and its data travel with those of others.
        """
        if isinstance(message.payload, bytes):
            self.submit(message)
            return message.delivery_futures
        encoded, _, _ = queued_uplink(message, message.payload.encoded)
        delivery = await self.entrance.accept(encoded)
        for future in message.delivery_futures:
            answer_as(future, delivery)
        return message.delivery_futures

    def _take_oldest(self) -> QueuedUplink | None:
        """Take the oldest call of which nothing is packed so far out of its queue. ``None`` when there is none."""
        queues: list[AsyncDeque[Any]] = [worker.queue for worker in self._uplink_workers]
        candidates: list[tuple[int, Callable[[], Queued]]] = [
            (first[NUMBER], queue.take_now) for queue in queues if (first := queue.first_now()) is not None
        ]
        if self._sub_devices is not None and (held := self._sub_devices.oldest()) is not None:
            candidates.append(held)
        if not candidates and isinstance(first := self._initial.first_now(), tuple):
            candidates.append((first[NUMBER], self._initial.take_now))
        if not candidates:
            return None
        _, take_oldest = min(candidates, key=lambda candidate: candidate[0])
        return cast("QueuedUplink", take_oldest())

    def submit(self, message: MqttPublishMessage) -> None:
        """Accept a message whose payload is bytes, at once; its ``delivery_futures`` get its ``PublishResult``.

        One with a ``device`` waits until that is announced. Raises ``NotConnectedError`` when the loops have failed.
        """
        self.entrance.require_open()
        self._initial.append(message)

    def withdraw(self, message: MqttPublishMessage) -> None:
        """Forget a message without datapoints that is not published so far, because nobody waits for what it would do."""
        places = [self._initial.remove_now, self._service.remove, self._suspects.remove]
        if self._sub_devices is not None:
            places.append(self._sub_devices.remove)
        if any(remove(message) for remove in places):
            self._receipts.undelivered(message)
            self._note_drained()

    async def _dispatch_initial_queue_loop(self) -> None:
        """Route: service, device uplink or gateway uplink. After an unexpected exception the next round comes."""
        while not self._stop_event.is_set():
            await self._initial.wait_filled()
            queued = self._initial.pop_now(min(self._batch_collect_max_count, self._failures.at_most))
            try:
                self._route(queued)
            except BaseException as error:
                # The end of this loop finds them here.
                left = self._not_routed(queued)
                self._initial.prepend_all(left)
                if not isinstance(error, Exception):
                    raise
                if self._failures.failed(error, left):
                    self._give_up(self._initial.take_now())
                await self._failures.pause()
            else:
                self._failures.succeeded()
            for worker in self._uplink_workers:
                worker.work_now()
            if not self._initial.is_empty():
                await asyncio.sleep(0)

    def _route(self, queued: list[Queued]) -> None:
        service_messages = [message for message in queued if isinstance(message, MqttPublishMessage)]
        if service_messages:
            for message in service_messages:
                self._route_message(message)
            self._route_uplinks([uplink for uplink in queued if isinstance(uplink, tuple)])
        else:
            self._route_uplinks(cast("list[QueuedUplink]", queued))

    def _not_routed(self, queued: list[Queued]) -> list[Queued]:
        """Return the items that are in no other queue, and were not answered."""
        elsewhere = {id(_future_of(item)) for item in self._all_queued()}
        return [item for item in queued if id(one := _future_of(item)) not in elsewhere and (one.cancelled() or not one.done())]

    def _give_up(self, item: Queued) -> None:
        """Answer an item that cannot be sent because of an unexpected error, which was reported."""
        what = repr(item) if isinstance(item, MqttPublishMessage) else f"A send of {item[ENCODED].datapoints} datapoints"
        logger.error("%s is given up after several unexpected errors and counts as undelivered", what)
        self._receipts.undelivered(item)
        self._note_drained()

    def _route_uplinks(self, uplinks: Iterable[QueuedUplink]) -> None:
        if self._gateway_uplink is None:
            self._device_uplink.queue.append_all(uplinks)
            return
        device_uplinks: list[QueuedUplink] = []
        gateway_uplinks: list[QueuedUplink] = []
        for uplink in uplinks:
            (gateway_uplinks if uplink[ENCODED].has_device else device_uplinks).append(uplink)
        self._device_uplink.queue.append_all(device_uplinks)
        if self._sub_devices is None:
            self.queue_uplinks(gateway_uplinks)
        elif gateway_uplinks:
            self._sub_devices.put_uplinks(gateway_uplinks)

    def _route_message(self, message: MqttPublishMessage) -> None:
        if message.device is None or self._sub_devices is None:
            self.queue_message(message)
        else:
            self._sub_devices.put_message(message)
            self._note_drained()

    def queue_message(self, message: MqttPublishMessage) -> None:
        """Queue a message without datapoints for publishing."""
        self._worker_of(message).queue.append_all([message])

    def _worker_of(self, message: MqttPublishMessage) -> MessageQueueWorker:
        return self._announcements if message.topic in ANNOUNCING_TOPICS else self._service

    # For the component for sub-devices, see `Pipeline`.

    def queue_uplinks(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends of sub-devices for publishing."""
        self._gateway_queue.append_all(uplinks)

    def take_queued_uplinks(self) -> list[QueuedUplink]:
        """Remove and return the queued sends of sub-devices."""
        return self._gateway_queue.pop_now(len(self._gateway_queue))

    def take_queued_messages(self) -> list[MqttPublishMessage]:
        """Remove and return the queued messages without datapoints, announcements excepted."""
        queue = self._service.queue
        return queue.pop_now(len(queue))

    def publish_again(self, message: MqttPublishMessage) -> None:
        """Queue a message with datapoints before all others."""
        self._retry_by_qos.put([message])

    def check_packed_again(self) -> None:
        """Check packed data once more for devices that may not pass: an uplink worker does not check it."""
        packed = [message for worker in self._uplink_workers for message in worker.take_back()]
        if packed:
            self._retry_by_qos.put([], packed)

    def send_in_parts(self, message: MqttPublishMessage) -> bool:
        """Replace a message of several devices by one for each; return False for a message of one device."""
        return self._outcomes.send_in_parts(message)

    def undelivered(self, item: Queued) -> None:
        """Resolve a send or message as not delivered."""
        self._receipts.undelivered(item)

    def rejected(self, item: Queued, announcement: PublishResult) -> None:
        """Resolve a send or message with the refusal of its device's announcement."""
        self._receipts.rejected(item, announcement)

    def note_removed(self) -> None:
        """Check whether the queues are empty now."""
        self._note_drained()

    async def _wait_announced(self, message: MqttPublishMessage) -> None:
        if self._sub_devices is not None and not message.is_device_message:
            await self._sub_devices.wait_announced(message)

    # The way back.

    def acknowledged(self, message: MqttPublishMessage, reason_code: int) -> None:
        """A PUBACK came: answer the calls of its message, or publish the message again."""
        try:
            self._outcomes.acknowledged(message, reason_code)
            if not reason_code and self._sub_devices is not None and not message.is_device_message:
                self._sub_devices.acknowledged(message)
        except Exception:
            # A defect, which is reported where the packet was read. The senders get at least what the platform said.
            self._receipts.resolve(message, reason_code)
            raise
        finally:
            self._note_drained()

    def quota_exceeded(self) -> None:
        """The platform said that sub-devices exceed a quota, for which it ends the connection."""
        # A notice may be read when its session has ended already, and says nothing about the next one.
        if self._mqtt_manager.is_ready():
            self._outcomes.noticed_quota()

    def _publish_service_again(self, message: MqttPublishMessage) -> None:
        self._worker_of(message).queue.prepend_all([message])

    async def put_retry_message(self, message: MqttPublishMessage) -> None:
        """Take a message back that was published and is to be published again, before anything younger."""
        self.put_retry_messages([message], SessionEnd("no acknowledgement"))

    def put_retry_messages(self, messages: list[MqttPublishMessage], end: SessionEnd) -> None:
        """Take messages back whose connection ended before their PUBACK; they go first, in their old order, on the next one."""
        again = self._outcomes.lost(messages, end)
        service = [message for message in again if message.is_service_message]
        for worker in self._service_workers:
            own = [message for message in service if self._worker_of(message) is worker]
            worker.queue.prepend_all([*own, *worker.take_back()])
        uplinks = [message for message in again if not message.is_service_message]
        self._retry_by_qos.put(uplinks, [message for worker in self._uplink_workers for message in worker.take_back()])
        self._note_drained()

    def _fits(self, message: MqttPublishMessage) -> bool:
        """Whether a message may go now; when not, it was dealt with."""
        if self._sub_devices is not None and not message.is_device_message and self._sub_devices.keep_back(message):
            self._note_drained()
            return False
        return self._fits_session(message)

    def _fits_session(self, message: MqttPublishMessage) -> bool:
        """The same for data that was packed since its devices were announced."""
        limit = max_payload_size(message.topic, self.max_remaining_length, self._mqtt_manager.mqtt_version)
        sub_devices = None if message.is_device_message else self._sub_devices
        if (sub_devices is None or not sub_devices.follow(message)) and self._outcomes.fits(message, limit):
            return True
        self._note_drained()
        return False

    async def _dispatch_retry_by_qos_queue_loop(self) -> None:
        """Publish again what has to be, before anything younger."""
        await self._retry_by_qos.run()

    def _note_drained(self) -> None:
        sub_devices = self._sub_devices
        if sub_devices is not None and sub_devices.has_moved and self._is_idle() and not self.room.is_wanted:
            sub_devices.forget_moved()
        if not self._drained.is_set() and self._is_idle():
            self._drained.set()

    def _is_idle(self) -> bool:
        return not self._mqtt_manager.in_flight and self.is_empty()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """End everything if a loop ended by itself, which is a defect: no sender may wait forever."""
        if task not in self._tasks or self._stop_event.is_set():
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            task.get_loop().call_exception_handler({"message": f"{task.get_name()} failed", "exception": error, "task": task})
        for other in self._tasks:
            other.cancel()
        self._tasks.clear()
        cause = "was cancelled" if error is None else f"failed: {error!r}"
        self.entrance.fail(f"the task {task.get_name()!r} of this client {cause}. connect() starts it again")
        self._clear_now()


def _future_of(item: Queued) -> Delivery:
    """Return the future that stays with an item in whatever queue it is."""
    return item.delivery_futures[0] if isinstance(item, MqttPublishMessage) else item[DELIVERY]
