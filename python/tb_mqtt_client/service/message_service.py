"""The queues of one client, and the path of a send or message through them to its worker, and back if it is published again.

The rule: an accepted datapoint is in exactly one place (in a queue, taken by a worker, or in flight), and its send's future is
resolved when its last datapoint leaves the last place.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import is_, itemgetter
from typing import Any, cast

from tb_mqtt_client.common.async_utils import DeliveryFuture, FutureMap, SendReceipt, resolve_with
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.options import DEFAULT_MAX_QUEUED_BYTES
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import MessageKind
from tb_mqtt_client.constants.option_values import QueuePolicy, Replay, TimestampSource
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.backlog import BacklogLeft, BacklogPace, total_of
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.delays import AcceptTimes, Delays
from tb_mqtt_client.service.delivery.device_clock import DeviceClock
from tb_mqtt_client.service.delivery.expiry import Expiry
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.lanes import DROPPED_FIRST, LIVE, LaneQueue, Oldest, is_undecided
from tb_mqtt_client.service.delivery.outcomes import Outcomes
from tb_mqtt_client.service.delivery.packing import UplinkPacker, device_packer, queued_uplink, sub_device_packer
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.send_store import SendStore
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.stored_intake import StoredIntake
from tb_mqtt_client.service.delivery.sub_devices import SubDeviceFilter
from tb_mqtt_client.service.delivery.submissions import Submissions
from tb_mqtt_client.service.delivery.suspects import Suspects, SuspectWorker
from tb_mqtt_client.service.delivery.terms import Lane, SendTerms, backlog_terms, send_terms
from tb_mqtt_client.service.delivery.timestamp_advice import TimestampAdvice
from tb_mqtt_client.service.delivery.timestamps import UNSTAMPED_SENDS_A_BATCH
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.work_item import ENCODED, FUTURE, NUMBER, TERMS, Queued, QueuedUplink, WorkItem, has_attributes
from tb_mqtt_client.service.delivery.workers import (
    ClockedUplinkQueueWorker,
    FailedRounds,
    MessageQueueWorker,
    Publisher,
    RetryQueueWorker,
    UplinkQueueWorker,
    WorkerContext,
)
from tb_mqtt_client.service.mqtt_manager import MQTTManager

logger: ExtendedLogger = get_logger(__name__)

ANNOUNCING = frozenset({MessageKind.DEVICE_CONNECT, MessageKind.DEVICE_DISCONNECT})

RELEASED_AT_ONCE = 1000
"""The number of sends that leave memory together when the queues are full and there is a store."""
SENDS_A_TURN = 500
"""The number of sends that are accepted or routed before the other tasks of the event loop run."""


class MessageService:
    """The queues of one client: initial, service, device uplink, gateway uplink, and retry by QoS."""

    def __init__(
        self,
        mqtt_manager: MQTTManager,
        admission: Admission,
        futures: FutureMap,
        tasks: Tasks,
        *,
        max_queued_sends: int = 1_000_000,
        max_queued_bytes: int = DEFAULT_MAX_QUEUED_BYTES,
        device_qos: int = 1,
        round_floats: bool = True,
        queue_policy: QueuePolicy = QueuePolicy.WAIT,
        store: SendStore | None = None,
        timestamps: TimestampSource = TimestampSource.CLIENT,
        device_clock: DeviceClock | None = None,
        replay: Replay = Replay.LIVE_FIRST,
        backlog_share: float = 0.5,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Create the queues of one client; nothing is published before ``start``.

        Args:
            mqtt_manager: Publishes the messages.
            admission: Decides when a message may be published.
            futures: Ties the futures of sends to those of messages.
            tasks: Owns the tasks of the loops, and reports one that ends on its own.
            max_queued_sends: Sends that may be queued.
            max_queued_bytes: Encoded bytes that may be queued.
            device_qos: The QoS of the device's own telemetry and attributes.
            round_floats: Whether floats are rounded that the platform would store as text.
            queue_policy: What happens to a send when the queues are full.
            store: Keeps the sends on disk; ``None`` if they are in memory only.
            timestamps: Whether telemetry may be sent without a timestamp.
            device_clock: Gives sends their time; ``None`` if they have it when they are accepted.
            replay: Whether live data or the backlog goes first.
            backlog_share: The share of the backlog while live data could use everything that the limits admit.
            clock: Returns monotonic nanoseconds.
        """
        self._mqtt_manager, self._admission, self._futures = mqtt_manager, admission, futures
        self._timestamp_advice = TimestampAdvice(logger)
        self._device_clock, self._store = device_clock, store
        self._sends_a_batch = sys.maxsize if timestamps is TimestampSource.CLIENT else UNSTAMPED_SENDS_A_BATCH
        self.counter: DeliveryCounter = DeliveryCounter()
        """Counts the datapoints by state."""
        self.capacity: QueueCapacity = QueueCapacity(max_queued_sends, max_queued_bytes)
        """How much may be queued."""
        self._receipts = Receipts(futures, self.counter, self.capacity)
        self._initial: AsyncDeque[Queued] = AsyncDeque()
        self._queue_options: dict[str, Any] = {"backlog_share": backlog_share, "backlog_first": replay is Replay.IN_ORDER}
        self._clock = clock
        self._expiry = Expiry(clock, self._expire)
        self._expired_in_queues = 0
        self._accept_times = AcceptTimes(self._oldest_number)
        self.delays: Delays = Delays()
        """How long acknowledged messages waited in the queue and for their PUBACK."""
        self.backlog_pace: BacklogPace = BacklogPace(self._backlog_left, admission.applying_limit, clock)
        """Measures how the backlog is sent."""
        # The store, the clock of the device and the dropping of old sends need each send.
        is_each_needed = store is not None or device_clock is not None or queue_policy is QueuePolicy.DROP_OLDEST
        has_plain = not is_each_needed and timestamps is TimestampSource.CLIENT
        self._plain_options = {"round_floats": round_floats} if has_plain else None
        self._device_queue: LaneQueue = self._new_queue()
        self.intake: Intake = self._make_intake(queue_policy)
        """Accepts sends."""
        self.submissions: Submissions = Submissions(self.intake, self.capacity, queue_policy, tasks)
        """Accepts sends of other threads."""
        # Set while no caller drains, so that an acknowledgement does not check the queues for nothing.
        self._drained = asyncio.Event()
        self._drained.set()
        self._task_owner = tasks
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = FailedRounds("initial")

        context = WorkerContext(Publisher(mqtt_manager, admission, self.counter), self._check, self._give_up)
        self._uplink_context = replace(context, check=self._check_just_packed)
        self._retry_by_qos = RetryQueueWorker("retry by QoS", AsyncDeque(), context, wait_announced=self._wait_announced)
        self._outcomes = Outcomes(
            self._receipts, futures, self.counter, admission, self._retry_by_qos, self._publish_service_again, self.delays
        )
        self.suspects: Suspects = self._outcomes.suspects
        """Messages that may have ended a connection."""
        self._suspect_worker = SuspectWorker(
            "suspects", AsyncDeque(), context, suspects=self.suspects, wait_announced=self._wait_announced
        )
        self._service = MessageQueueWorker("service", AsyncDeque(), context)
        # A queue of their own: after a reconnect there may be thousands, and the response to an RPC must not wait behind them.
        self._announcements = MessageQueueWorker("announcements", AsyncDeque(), context)
        self.device_uplink: UplinkQueueWorker = self._uplink_worker(
            "device uplink", self._device_queue, device_packer(futures), device_qos
        )
        """Drains the device uplink queue."""
        self._gateway_uplink: UplinkQueueWorker | None = None
        self._uplink_workers = [self.device_uplink]
        self._service_workers = [self._announcements, self._service]
        self._sub_devices: SubDeviceFilter | None = None
        self.capacity.set_aside = self._sends_set_aside
        mqtt_manager.patch_client_for_retry_logic(self.put_retry_messages, self.acknowledged)

    def _sends_set_aside(self) -> int:
        """Return the number of queued sends of refused sub-devices and of the backlog, which the replay bounds."""
        refused = 0 if self._sub_devices is None else self._sub_devices.held_for_refused
        return refused + sum([len(worker.lanes.backlog.sends) for worker in self._uplink_workers])

    def _new_queue(self) -> LaneQueue:
        """Return the queue of an uplink worker."""
        options = self._plain_options
        plain = None if options is None else PlainSends(self.capacity, self.counter, **options)
        return LaneQueue(plain, **self._queue_options)

    def _make_intake(self, policy: QueuePolicy) -> Intake:
        initial, own, take_oldest = self._initial, self._device_queue, self._take_oldest
        times = self._accept_times
        parts = initial, own, self.capacity, self.counter, self._receipts, policy, SENDS_A_TURN, take_oldest, self._expiry, times
        if self._store is None:
            return Intake(*parts, self._device_queue.plain)
        self._store.attach(self)
        return StoredIntake(*parts, store=self._store, release_oldest=self._release_oldest, clock=self._clock)

    def plug_in(self, sub_devices: SubDeviceFilter) -> None:
        """Create the gateway uplink queue, with a component that holds data of sub-devices back and renames it.

        Call this before ``start``.
        """
        self._sub_devices = self._outcomes.sub_devices = sub_devices
        queue = self._new_queue()
        self.intake.plug_in(sub_devices, queue)
        # Always QoS 1: at QoS 0 the server answers with an unsolicited PUBACK (docs/platform_contract.md, section 4).
        self._gateway_uplink = self._uplink_worker("gateway uplink", queue, sub_device_packer(self._futures), 1)
        self._uplink_workers.append(self._gateway_uplink)

    def _uplink_worker(self, name: str, queue: LaneQueue, packer: UplinkPacker, qos: int) -> UplinkQueueWorker:
        make: Callable[..., UplinkQueueWorker] = UplinkQueueWorker
        if self._device_clock is not None:
            make = partial(ClockedUplinkQueueWorker, device_clock=self._device_clock)
        return make(
            name,
            queue,
            self._uplink_context,
            packer=packer,
            capacity=self.capacity,
            qos=qos,
            sends_a_batch=self._sends_a_batch,
            retry=self._retry_by_qos,
            on_oversized=self._note_drained,
            on_suspicious_ts=self._timestamp_advice.note,
            on_expired=self._expire,
            on_backlog_sent=self.backlog_pace.note_sent,
            accept_times=self._accept_times,
            clock=self._clock,
        )

    # The life of the loops.

    @property
    def failed_rounds(self) -> list[FailedRounds]:
        """The counters of failed rounds of all loops."""
        return [self._failures, *(worker.failures for worker in self._workers())]

    def _workers(self) -> list[MessageQueueWorker]:
        return [self._retry_by_qos, self._suspect_worker, *self._service_workers, *self._uplink_workers]

    @property
    def has_failed(self) -> bool:
        """Whether a loop ended unexpectedly, so that nothing is accepted until ``open``."""
        return self.intake.has_failed

    def open(self) -> None:
        """Accept messages and sends of the running loop. They stay queued until ``start``."""
        self.intake.open()
        self.submissions.open()

    def start(self) -> None:
        """Start the loops, unless they run already."""
        if self._tasks:
            return
        self.open()
        loops = {"initial": self._dispatch_initial_queue_loop(), self._retry_by_qos.name: self._dispatch_retry_by_qos_queue_loop()}
        loops |= {worker.name: worker.run() for worker in self._workers() if worker is not self._retry_by_qos}
        self._tasks = [self._task_owner.keep(loop, f"{name} queue") for name, loop in loops.items()]

    async def drain(self) -> None:
        """Wait until all futures of accepted sends and messages are resolved, or until ``end_drain``."""
        self._drained.clear()
        self.submissions.accept_now()
        self._note_drained()
        await self._drained.wait()

    def end_drain(self) -> None:
        """Let ``drain`` return, because what is left is safe in the store."""
        self._drained.set()

    async def pause(self) -> None:
        """End the loops. Queued data stays queued, and ``start`` continues with it."""
        await self._end_loops()
        # Unsent messages of the workers go where the end of a session puts them: before any younger data.
        self.put_retry_messages([], SessionEnd("the client was disconnected"))

    async def _end_loops(self) -> None:
        tasks, self._tasks = self._tasks, []
        await self._task_owner.end(tasks)

    async def shutdown(self) -> None:
        """End the loops, and resolve everything that is left as undelivered, or as kept in the store."""
        try:
            await self._end_loops()
        finally:
            self.intake.close()
            self.submissions.close()
            if self._store is None:
                self._clear_now(self._receipts.undelivered)
            else:
                await self._leave_in(self._store)

    async def _leave_in(self, store: SendStore) -> None:
        """Resolve everything that is left as kept in the store, and close the store."""
        try:
            if store.is_open:
                await store.finish()
        finally:
            # A cancelled end resolves everything, too.
            self._clear_now(partial(self._receipts.kept, is_on_disk=store.holds))
            await store.close()

    def fail(self, failure: str) -> None:
        """Accept nothing until ``open``, because a loop ended unexpectedly.

        All queued data is undelivered. With a store, it stays where it is until ``shutdown``, which keeps it.

        Args:
            failure: The text of the ``NotConnectedError`` that sends raise.
        """
        self.intake.fail(failure)
        self.submissions.close()
        if self._store is None:
            self._clear_now(self._receipts.undelivered)

    async def clear(self) -> None:
        """Resolve all queued data as undelivered. Messages in flight stay in flight."""
        self._clear_now(self._receipts.undelivered)

    def _clear_now(self, resolve: Callable[[Queued], None]) -> None:
        queued: list[Queued] = [*self._retry_by_qos.clear(), *self.suspects.clear()]
        for worker in (*self._service_workers, *self._uplink_workers):
            queued += worker.take_back()
            queued += worker.queue.pop_now(len(worker.queue))
        if self._sub_devices is not None:
            queued += self._sub_devices.take_held()
        queued += self._initial.pop_now(len(self._initial))
        self._expiry.clear()
        for item in queued:
            resolve(item)
        self._note_drained()

    def has_service_messages(self) -> bool:
        """Return whether messages without datapoints wait for the limits or for the in-flight window."""
        return not all(worker.is_empty() for worker in self._service_workers)

    def is_empty(self) -> bool:
        """Return whether nothing is queued, held back or taken by a worker."""
        workers_empty = all(worker.is_empty() for worker in self._workers())
        return workers_empty and self._initial.is_empty() and not (self._sub_devices is not None and self._sub_devices.holds_data)

    def _all_queued(self) -> list[Queued]:
        """Return all data that is queued, held back or taken by a worker."""
        queued: list[Queued] = [*self._initial.items_now(), *self.suspects.all()]
        for worker in (self._retry_by_qos, *self._service_workers, *self._uplink_workers):
            queued += [*worker.unsent, *worker.queue.items_now()]
        if self._sub_devices is not None:
            queued += self._sub_devices.held()
        return queued

    # Accepting sends and messages.

    async def publish(self, message: MqttPublishMessage) -> list[DeliveryFuture]:
        """Accept a message.

        An uplink message is accepted as a send is, and its data is packed together with other data.

        Returns:
            The futures of the message, which are resolved with its ``PublishResult``.

        Raises:
            NotConnectedError: The loops have failed.
        """
        if isinstance(message.payload, bytes):
            self.submit(message)
            return message.delivery_futures
        send_future = await self.intake.accept(queued_uplink(message, message.payload.encoded))
        for future in message.delivery_futures:
            resolve_with(future, send_future)
        return message.delivery_futures

    def _take_oldest(self) -> QueuedUplink | None:
        """Remove and return the oldest send of the lowest priority of which nothing is packed yet; ``None`` if there is none."""
        oldest = self._oldest()
        return oldest[1]() if oldest is not None else None

    def _oldest(self, lanes: Sequence[Lane] = DROPPED_FIRST) -> Oldest | None:
        """Return the send that a full queue drops first, see `Oldest`; ``None`` if nothing is queued that is not packed yet."""
        candidates = [oldest for worker in self._uplink_workers if (oldest := worker.lanes.oldest(lanes)) is not None]
        if self._sub_devices is not None and (held := self._sub_devices.oldest(lanes)) is not None:
            candidates.append(held)
        if candidates:
            return min(candidates, key=lambda candidate: candidate[0])
        # Sends that are not routed yet.
        first = self._initial.first_now()
        if not isinstance(first, tuple):
            return None
        return (0, first[NUMBER]), lambda: cast("QueuedUplink", self._initial.take_now())

    def _oldest_number(self) -> int | None:
        """Return the number of the oldest send of which nothing is packed, the backlog apart; ``None`` if there is none."""
        return min([oldest[0][1] for lane in LIVE if (oldest := self._oldest((lane,))) is not None], default=None)

    def oldest_seconds(self) -> float | None:
        """Return the age of the oldest datapoint that waits to be published, in memory or in a store; ``None`` if none waits.

        Data that waits to be published again counts, data in flight does not.
        """
        number = self._oldest_number()
        times = [None if number is None else self._accept_times.of_number(number)]
        retried, packed = self._retry_by_qos, [item for worker in self._uplink_workers for item in worker.unsent]
        times += [item.accepted_at for item in (*packed, *retried.unsent, *retried.queue.items_now(), *self.suspects.all())]
        ages = [self._accept_times.age(accepted) for accepted in times if accepted is not None]
        of_backlog = self.backlog_pace.oldest_seconds()
        return max([*ages, of_backlog] if of_backlog is not None else ages, default=None)

    def terms(self, priority: Any, expires_after: Any) -> SendTerms | None:
        """Return the terms of a send, see `send_terms`."""
        return send_terms(priority, expires_after, self._clock)

    def _backlog_left(self) -> BacklogLeft:
        lanes = [worker.lanes.backlog for worker in self._uplink_workers]
        queued = [BacklogLeft(len(lane.sends), lane.datapoints, lane.nbytes, lane.oldest_ms) for lane in lanes]
        return total_of(queued if self._store is None else [*queued, self._store.backlog_left()])

    def _expire(self, uplinks: list[QueuedUplink]) -> None:
        """Resolve expired sends. They stay in their queues, which skip them, until they are worth a search."""
        for uplink in uplinks:
            self._receipts.drop(uplink, LocalReasonCode.EXPIRED)
        self._expired_in_queues += len(uplinks)
        # A quarter of the sends at most: the search costs little for each of them, and the memory in use stays near its bounds.
        if 4 * self._expired_in_queues >= self.capacity.sends or not self._drained.is_set():
            self._expired_in_queues = 0
            self._initial.remove_all(lambda item: isinstance(item, tuple) and not is_undecided(item))
            for worker in self._uplink_workers:
                worker.lanes.forget_decided()
            if self._sub_devices is not None:
                self._sub_devices.forget_decided()
        self._note_drained()

    # For the store, see `StoredQueues`.

    def _release_oldest(self) -> int:
        """Leave the oldest sends that are on disk to the store, a part of the capacity; return their number."""
        store = self._store
        assert store is not None
        taken: list[QueuedUplink] = []
        # Not the backlog, which would be read again at once.
        while len(taken) < RELEASED_AT_ONCE and (oldest := self._oldest(LIVE)) is not None and store.is_on_disk(oldest[0][1]):
            taken.append(oldest[1]())
        if any(has_attributes(uplink) for uplink in taken):
            # Those that stay would overtake older ones, which replace them on the platform.
            taken += self._take_uplinks(has_attributes)
        # The store ends those that expire.
        released = [uplink for uplink in taken if (terms := uplink[TERMS]) is None or terms.end()]
        self.capacity.give_back(len(released), sum([uplink[ENCODED].nbytes for uplink in released]))
        store.release(released)
        return len(taken)

    def _take_uplinks(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return the sends that match and of which nothing is packed yet, oldest first."""
        found = self._initial.remove_all(lambda item: isinstance(item, tuple) and matches(item))
        for worker in self._uplink_workers:
            found += worker.lanes.remove_all(matches)
        if self._sub_devices is not None:
            found += self._sub_devices.take_uplinks(matches)
        return sorted(cast("list[QueuedUplink]", found), key=itemgetter(NUMBER))

    def backlog_terms(self, accepted_ms: int, expires_ms: int, *, is_urgent: bool = False) -> SendTerms:
        """Return the terms of a send that was read from disk."""
        return backlog_terms(accepted_ms, expires_ms, self._clock(), now_ms(), is_urgent=is_urgent)

    def queue_backlog(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends that were read from disk, oldest first. They take capacity even if there is none."""
        self.capacity.take_anyway(len(uplinks), sum([uplink[ENCODED].nbytes for uplink in uplinks]))
        for uplink in uplinks:
            terms = uplink[TERMS]
            if terms is not None and terms.expires_at:
                self._expiry.add(uplink)
        own = uplinks
        if self._sub_devices is not None:
            own = [uplink for uplink in uplinks if not uplink[ENCODED].has_device]
            of_sub_devices = [uplink for uplink in uplinks if uplink[ENCODED].has_device]
            self._sub_devices.put_found(of_sub_devices)
        self._device_queue.append_all(own)

    def bytes_set_aside(self) -> int | None:
        """Return the bytes of sends that stay in memory for any time because the platform refuses their devices.

        ``None`` if they take all the capacity that they may take.
        """
        sub_devices = self._sub_devices
        if sub_devices is None:
            return 0
        return None if sub_devices.is_share_used_up else sub_devices.bytes_for_refused

    def is_memory_wanted(self) -> bool:
        """Return whether a sender waits for capacity."""
        return self.capacity.is_wanted

    def store_changed(self) -> None:
        """Note that the backlog became empty, or that the disk works again."""
        if self.capacity.is_wanted:
            self._release_oldest()
        self._note_drained()

    def submit(self, message: MqttPublishMessage) -> WorkItem:
        """Accept a message whose payload is bytes; its futures are resolved with its ``PublishResult``.

        One with a ``device`` waits until the device is announced.

        Returns:
            The message's place in the pipeline.

        Raises:
            NotConnectedError: The loops have failed.
        """
        self.intake.require_open()
        item = WorkItem.of(message)
        self._initial.append(item)
        return item

    def withdraw(self, message: MqttPublishMessage) -> None:
        """Remove a message without datapoints, and resolve it as undelivered, unless it is published already."""

        def is_it(item: Queued) -> bool:
            return isinstance(item, WorkItem) and item.message is message

        places: list[Callable[[Callable[[Any], bool]], Queued | None]] = [
            self._initial.remove_first,
            self._service.remove_first,
            self.suspects.remove_first,
        ]
        if self._sub_devices is not None:
            places.append(self._sub_devices.remove_first)
        item = next((found for remove_first in places if (found := remove_first(is_it)) is not None), None)
        if item is not None:
            self._receipts.undelivered(item)
            self._note_drained()

    def withdraw_send(self, future: object) -> bool:
        """Remove a send of which nothing is packed yet, and resolve it as dropped. Return False if there is no such send.

        Args:
            future: The send's future, or what is in its place.
        """
        self.submissions.accept_now()
        is_receipt_of = is_ if self._store is None else self._store.is_receipt_of

        def is_it(item: Any) -> bool:
            return isinstance(item, tuple) and is_receipt_of(item[FUTURE], future)

        places: list[Callable[[Callable[[Any], bool]], Queued | None]] = [
            self._initial.remove_first,
            *(worker.queue.remove_first for worker in self._uplink_workers),
        ]
        if self._sub_devices is not None:
            places.append(self._sub_devices.remove_uplink)
        item = next((found for remove_first in places if (found := remove_first(is_it)) is not None), None)
        if not isinstance(item, tuple):
            return self._store is not None and self._store.withdraw(future)
        self.intake.drop(item)
        self._note_drained()
        return True

    async def _dispatch_initial_queue_loop(self) -> None:
        """Route messages to the service queue or the announcements, and sends of sub-devices to the gateway uplink queue.

        Sends of the connected device are not routed here: ``Intake`` puts them into the device uplink queue. An unexpected
        exception is logged, and the loop continues.
        """
        while True:
            while self._initial.is_empty():
                await self._initial.filled.wait()
            queued = self._initial.pop_now(min(SENDS_A_TURN, self._failures.at_most))
            try:
                self._route(queued)
            except BaseException as error:
                # Back in their places, so that they are found there if this loop ends.
                left = self._not_routed(queued)
                self._initial.prepend_all(left)
                if not isinstance(error, Exception):
                    raise
                if self._failures.failed(error, left):
                    self._give_up(self._initial.take_now())
                await self._failures.pause()
            else:
                self._failures.succeeded()
            if not self._initial.is_empty():
                await asyncio.sleep(0)

    def _route(self, queued: list[Queued]) -> None:
        for item in queued:
            if isinstance(item, WorkItem):
                self._route_message(item)
        if self._sub_devices is not None:
            self._sub_devices.put_uplinks([item for item in queued if isinstance(item, tuple)])

    def _not_routed(self, queued: list[Queued]) -> list[Queued]:
        """Return the items that are in no other queue and whose futures are not resolved."""
        elsewhere = {id(_future_of(item)) for item in self._all_queued()}
        return [item for item in queued if id(one := _future_of(item)) not in elsewhere and (one.cancelled() or not one.done())]

    def _give_up(self, item: Queued) -> None:
        """Resolve an item that cannot be sent because of an unexpected error, which was reported."""
        what = repr(item) if isinstance(item, WorkItem) else f"a send of {item[ENCODED].datapoints} datapoints"
        logger.error("Giving up on %s after several unexpected errors; its data is undelivered", what)
        self._receipts.undelivered(item)
        self._note_drained()

    def _route_message(self, item: WorkItem) -> None:
        if item.device is None or self._sub_devices is None:
            self.queue_message(item)
        else:
            self._sub_devices.put_message(item)
            self._note_drained()

    def queue_message(self, item: WorkItem) -> None:
        """Queue a message without datapoints for publishing."""
        self._worker_of(item).queue.append_all([item])

    def _worker_of(self, item: WorkItem) -> MessageQueueWorker:
        return self._announcements if item.kind in ANNOUNCING else self._service

    # For the component for sub-devices, see `Pipeline`.

    @property
    def _gateway_queue(self) -> AsyncDeque[Any]:
        assert self._gateway_uplink is not None
        return self._gateway_uplink.queue

    def queue_uplinks(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends of sub-devices for publishing."""
        self._gateway_queue.append_all(uplinks)

    def take_queued_uplinks(self) -> list[QueuedUplink]:
        """Remove and return the queued sends of sub-devices."""
        return self._gateway_queue.pop_now(len(self._gateway_queue))

    def take_queued_messages(self) -> list[WorkItem]:
        """Remove and return the queued messages without datapoints, announcements excepted."""
        queue = self._service.queue
        return queue.pop_now(len(queue))

    def publish_again(self, item: WorkItem) -> None:
        """Queue a message with datapoints before all others."""
        self._retry_by_qos.put([item])

    def check_packed_again(self) -> None:
        """Have packed data checked for devices that are not announced, which uplink workers do not check."""
        packed = [item for worker in self._uplink_workers for item in worker.take_back()]
        if packed:
            self._retry_by_qos.put([], packed)

    def send_in_parts(self, item: WorkItem) -> bool:
        """Replace a message of several devices by one for each; return False for a message of one device."""
        return self._outcomes.send_in_parts(item)

    def undelivered(self, item: Queued) -> None:
        """Resolve a send or message as not delivered."""
        self._receipts.undelivered(item)

    def rejected(self, item: Queued, announcement: PublishResult) -> None:
        """Resolve a send or message with the refusal of its device's announcement."""
        self._receipts.rejected(item, announcement)

    def note_removed(self) -> None:
        """Check whether the queues are empty now."""
        self._note_drained()

    async def _wait_announced(self, item: WorkItem) -> None:
        if self._sub_devices is not None and item.of_sub_devices:
            await self._sub_devices.wait_announced(item)

    # Outcomes of published messages.

    def acknowledged(self, item: WorkItem, reason_code: int) -> None:
        """Resolve a message by the reason code of its PUBACK, or publish it again."""
        try:
            self._outcomes.acknowledged(item, reason_code)
        except Exception:
            # A defect, which is reported where the packet was read. The callers get at least the platform's reason code.
            self._receipts.resolve(item, reason_code)
            raise
        finally:
            if self._sub_devices is not None or not self._drained.is_set():
                self._note_drained()

    def quota_exceeded(self) -> None:
        """Note that sub-devices exceed a quota, after which the platform ends the connection."""
        # A notice may be read when its session has ended already, and says nothing about the next one.
        if self._mqtt_manager.is_ready():
            self._outcomes.noticed_quota()

    def _publish_service_again(self, item: WorkItem) -> None:
        self._worker_of(item).queue.prepend_all([item])

    async def put_retry_message(self, message: MqttPublishMessage) -> None:
        """Queue a published message again, ahead of newer data."""
        self.put_retry_messages([WorkItem.of(message)], SessionEnd("no acknowledgement"))

    def put_retry_messages(self, items: list[WorkItem], end: SessionEnd) -> None:
        """Queue unacknowledged messages of a connection that ended: first, and in their old order."""
        again = self._outcomes.lost(items, end)
        service = [item for item in again if not item.has_datapoints]
        for worker in self._service_workers:
            own = [item for item in service if self._worker_of(item) is worker]
            worker.queue.prepend_all([*own, *worker.take_back()])
        uplinks = [item for item in again if item.has_datapoints]
        self._retry_by_qos.put(uplinks, [item for worker in self._uplink_workers for item in worker.take_back()])
        self._note_drained()

    def _check(self, item: WorkItem) -> bool:
        """Return whether a message may be published now; if not, hold it back, split it, or resolve it.

        It may not if a device in it is not announced, was renamed or deleted, or if the message exceeds the session's limits.
        """
        if item.of_sub_devices and self._sub_devices is not None and self._sub_devices.keep_back(item):
            self._note_drained()
            return False
        return self._check_just_packed(item)

    def _check_just_packed(self, item: WorkItem) -> bool:
        """Return whether a message of an uplink worker may be published now; if not, split it or resolve it.

        Its devices are announced: sends of other devices are not queued for packing, see ``check_packed_again``.
        """
        is_taken = item.of_sub_devices and self._sub_devices is not None and self._sub_devices.follow(item)
        if not is_taken and (item.checked == self._admission.changes or self._outcomes.fits(item)):
            return True
        self._note_drained()
        return False

    async def _dispatch_retry_by_qos_queue_loop(self) -> None:
        """Publish messages again, before any younger data."""
        await self._retry_by_qos.run()

    def _note_drained(self) -> None:
        sub_devices = self._sub_devices
        if sub_devices is not None and sub_devices.has_moved and self._is_idle() and not self.capacity.is_wanted:
            sub_devices.forget_moved()
        if not self._drained.is_set() and self._is_idle():
            self._drained.set()

    def _is_idle(self) -> bool:
        is_all_in_memory = self._store is None or not self._store.has_backlog
        return is_all_in_memory and not self._mqtt_manager.in_flight and self.is_empty() and self.submissions.is_empty


def _future_of(item: Queued) -> SendReceipt:
    """Return the future or receipt that stays with an item in whatever queue it is."""
    return item.futures[0] if isinstance(item, WorkItem) else item[FUTURE]
