"""Loops that drain the queues. Each waits on an event, a future or one exact timer.

The rule: a message that a worker has taken is in ``unsent``, where a lost connection or the end of the client finds it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client._native import GatheredSends
from tb_mqtt_client.common.async_utils import is_cancelled, wait_for_set
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.delays import AcceptTimes
from tb_mqtt_client.service.delivery.device_clock import DeviceClock
from tb_mqtt_client.service.delivery.lanes import BatchBounds, LaneQueue
from tb_mqtt_client.service.delivery.packing import PackedBatch, UplinkPacker
from tb_mqtt_client.service.delivery.payload_limits import PayloadLimits
from tb_mqtt_client.service.delivery.plain_sends import queued_uplinks
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.transport import Transport
from tb_mqtt_client.service.delivery.work_item import QueuedUplink, WorkItem

logger: ExtendedLogger = get_logger(__name__)

FAILURES_ALONE = 3
"""An item is given up when it was the only one in this many failed rounds in a row."""
PAUSE_SECONDS = 1.0
"""Seconds between two attempts with a single item, in which the cause may go away."""


class FailedRounds:
    """Counts the failed rounds of one loop, and decides how many items (sends or messages) the next round takes."""

    def __init__(self, name: str) -> None:
        """Create the counter of the loop that drains the queue of this name."""
        self._name = name
        self._log = OccasionalLog(logger)
        self.pause_seconds = PAUSE_SECONDS
        """Seconds of a pause."""
        self._last_alone: object = None
        self._failures_alone = 0
        self.pauses: bool = False
        """Whether the next round has to wait."""
        self.at_most: int = sys.maxsize
        """The number of items that the next round may take."""

    def succeeded(self) -> None:
        """Double the number of items that the next round may take, after a round without an error."""
        if self.at_most < sys.maxsize:
            self.at_most *= 2

    def failed(self, error: BaseException, items: Sequence[object] = ()) -> bool:
        """Log the exception of a round, and decide on the next round.

        Args:
            error: The exception.
            items: The items of the round.

        Returns:
            True if the only item of the round is to be given up.
        """
        text = "Unexpected error in the %s queue, which continues (items concerned: %d): %r"
        kind = type(error).__name__
        self._log.warn_of(kind, text, self._name, len(items), error, level=logging.ERROR, error=error)
        # A lack of memory is not the fault of an item.
        is_lack_of_memory = isinstance(error, MemoryError)
        self.pauses = len(items) <= 1 or is_lack_of_memory
        if items:
            # Half as many items each time isolate the item that causes the error.
            self.at_most = max(1, len(items) // 2)
        if len(items) != 1 or is_lack_of_memory:
            return False
        [item] = items
        self._failures_alone = self._failures_alone + 1 if item is self._last_alone else 1
        self._last_alone = item
        if self._failures_alone < FAILURES_ALONE:
            return False
        self._last_alone = None
        self.pauses = False
        return True

    async def pause(self) -> None:
        """Wait before the next round if it has to repeat a single item, or if memory was lacking."""
        if not self.pauses:
            return
        try:
            await asyncio.sleep(self.pause_seconds)
        finally:
            self.pauses = False


BATCH_PAYLOADS = 32
"""The number of payloads that one batch may fill. Only the last payload of a batch is partly empty, so large batches waste less."""
BATCH_PAYLOADS_LIMITED = 4
"""The number of payloads in a batch while a limit of datapoints makes the payloads smaller."""

SINGLE_SENDS = 3
"""Batches of one send each, one after the other, after which a program seems to await each of its sends."""

BATCH_SECONDS = 0.25
"""How long the limits may delay the last message of a batch whose sends come from several lanes."""
LEAST_MESSAGES = 1e-3
"""A limit of fewer messages in ``BATCH_SECONDS`` does not make batches larger."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes messages within the limits; all workers of a client share one publisher."""

    transport: Transport
    admission: Admission
    counter: DeliveryCounter

    def try_publish(self, item: WorkItem) -> float:
        """Publish a message if the limits admit it.

        Returns:
            The seconds to wait; 0.0 when it was published.
        """
        wait = self.admission.try_take(item)
        if wait:
            return wait
        if item.has_datapoints:
            self.counter.publish(item.datapoints, item.superseded, item.message.payload_size, item.payload_limit)
            item.published_at = time.monotonic()
        try:
            self.transport.publish_now(item)
        except BaseException:
            if item.has_datapoints:
                self.counter.take_back(item.datapoints, item.superseded)
            raise
        return 0.0


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The collaborators of a worker, whatever its queue is."""

    publisher: Publisher
    check: Callable[[WorkItem], bool]
    """Called right before a message is published. Returns whether it may be published in this session; if not, it has held the
    message back, queued parts of it, or resolved it."""
    give_up: Callable[[Any], None]
    """Resolves a message or send that cannot be sent because of an unexpected error."""


class MessageQueueWorker:
    """Publishes the messages of a queue one after the other. Used directly for messages without datapoints."""

    def __init__(self, name: str, queue: AsyncDeque[Any], context: WorkerContext) -> None:
        """Create a worker.

        Args:
            name: The queue's name, for tasks and the log.
            queue: The queue.
            context: The collaborators of the worker.
        """
        self.name = name
        self.queue = queue
        self.unsent: deque[WorkItem] = deque()
        """Messages that were taken from the queue and are not published yet."""
        self._publisher = context.publisher
        self._transport = self._publisher.transport
        self._admission = self._publisher.admission
        self._writable = self._transport.service_writable
        self._check = context.check
        self._give_up = context.give_up
        self.failures: FailedRounds = FailedRounds(name)
        """Counts the failed rounds of this loop."""

    def is_empty(self) -> bool:
        """Return whether nothing is queued or taken."""
        return not self.unsent and self.queue.is_empty()

    async def run(self) -> None:
        """Publish until cancelled. An unexpected exception is logged, and the loop continues with its next round."""
        while True:
            try:
                await self._work()
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                self.failures.failed(error)
            except Exception as error:  # noqa: BLE001  # reported with its cause
                self.failures.failed(error)
            if self.failures.pauses:
                await self.failures.pause()

    async def _work(self) -> None:
        """Do one round: take a batch when it may be published, and publish it."""
        # Another worker may have taken the queued items.
        while not (self.unsent or self.queue.filled.is_set()):
            await self.queue.filled.wait()
        if not self.unsent:
            # Taken as late as possible: data that gathers while the window is full is sent together.
            if not self._is_ready():
                await self._wait_ready()
            self.unsent.extend(self._take_batch())
        while self.unsent:
            if not self._is_ready():
                await self._wait_ready()
            # The message may have been taken back when the connection was lost.
            if self.unsent and (wait := self._publish_first()):
                await self._admission.wait(wait)

    def take_back(self) -> list[WorkItem]:
        """Remove and return the messages that were taken from the queue and are not published yet."""
        unsent = list(self.unsent)
        self.unsent.clear()
        return unsent

    def remove_first(self, matches: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Remove and return a message that matches and is not published yet; ``None`` if none does."""
        for item in self.unsent:
            if matches(item):
                self.unsent.remove(item)
                return item
        found: WorkItem | None = self.queue.remove_first(matches)
        return found

    def _take_batch(self) -> list[WorkItem]:
        items: list[WorkItem] = self.queue.pop_now(1)
        return items

    def _is_ready(self) -> bool:
        return self._writable.is_set()

    async def _wait_ready(self) -> None:
        await wait_for_set(self._writable)

    def _publish_first(self) -> float:
        """Publish the first unsent message if the limits admit it; return the seconds to wait otherwise."""
        item = self.unsent.popleft()
        try:
            wait = self._publisher.try_publish(item) if self.may_publish(item) else 0.0
        except BaseException as error:
            # Back in its place, so that it is found there if this loop ends.
            self.unsent.appendleft(item)
            if not isinstance(error, Exception):
                raise
            if not self.failures.failed(error, [item]):
                return self.failures.pause_seconds
            self._give_up(self.unsent.popleft())
            return 0.0
        if wait:
            self.unsent.appendleft(item)
        return wait

    def may_publish(self, item: WorkItem) -> bool:
        """Return whether a message may be published in this session; if not, it was held back, split or resolved."""
        # Most messages are of the device itself, and were packed for the current limits.
        return (item.checked == self._admission.changes and not item.of_sub_devices) or self._check(item)


class RetryQueueWorker(MessageQueueWorker):
    """Publishes messages again whose connection ended or that were refused temporarily, before any younger data."""

    def __init__(
        self,
        name: str,
        queue: AsyncDeque[Any],
        context: WorkerContext,
        *,
        wait_announced: Callable[[WorkItem], Awaitable[None]],
    ) -> None:
        """Create a worker.

        Args:
            name: See `MessageQueueWorker`.
            queue: See `MessageQueueWorker`.
            context: See `MessageQueueWorker`.
            wait_announced: Waits until the sub-devices of a message are announced in this session.
        """
        super().__init__(name, queue, context)
        self._writable = self._transport.writable
        self._wait_announced = wait_announced
        self.done: asyncio.Event = asyncio.Event()
        """Set while nothing is left to publish again."""
        self.done.set()

    def put(self, older: list[WorkItem], younger: Sequence[WorkItem] = ()) -> None:
        """Queue messages before and behind the queued ones."""
        self.queue.prepend_all([*older, *self.take_back()])
        self.queue.append_all(younger)
        if not self.queue.is_empty():
            self.done.clear()

    def clear(self) -> list[WorkItem]:
        """Remove and return all messages."""
        left = [*self.take_back(), *self.queue.pop_now(len(self.queue))]
        self.done.set()
        return left

    async def _work(self) -> None:
        """Do one round: publish all messages that are queued when it begins."""
        if not self.unsent:
            await wait_for_set(self.queue.filled)
            await self._wait_ready()
            self.unsent.extend(self._take_batch())
        while self.unsent:
            await self._wait_announced(self.unsent[0])
            await self._wait_ready()
            if self.unsent and (wait := self._publish_first()):
                await self._admission.wait(wait)
        if self.queue.is_empty():
            self.done.set()


class UplinkQueueWorker(MessageQueueWorker):
    """Packs the sends of a queue together, a batch of payloads at a time, and publishes the payloads."""

    def __init__(
        self,
        name: str,
        queue: LaneQueue,
        context: WorkerContext,
        *,
        packer: UplinkPacker,
        capacity: QueueCapacity,
        qos: int,
        sends_a_batch: int,
        retry: RetryQueueWorker,
        on_oversized: Callable[[], None],
        on_suspicious_ts: Callable[[int], None],
        on_expired: Callable[[list[QueuedUplink]], None],
        on_backlog_sent: Callable[[int], None],
        accept_times: AcceptTimes,
        clock: Callable[[], int],
    ) -> None:
        """Create a worker.

        Args:
            name: See `MessageQueueWorker`.
            queue: See `MessageQueueWorker`.
            context: See `MessageQueueWorker`.
            packer: Packs sends into payloads.
            capacity: The capacity that queued sends take.
            qos: The QoS of the messages.
            sends_a_batch: The number of sends that are packed at a time, at most.
            retry: The worker whose messages are older, and are published first.
            on_oversized: Called when all datapoints of a batch were too large for any payload.
            on_suspicious_ts: Called with a timestamp that is not likely to be in milliseconds.
            on_expired: Called with sends that turned out to be expired when a batch was taken.
            on_backlog_sent: Called with the number of datapoints of the backlog that were taken for a batch.
            accept_times: Knows when sends were accepted.
            clock: Returns monotonic nanoseconds.
        """
        super().__init__(name, queue, context)
        self.lanes = queue
        """The queue."""
        self.packer = packer
        self._writable = self._transport.writable
        self._capacity = capacity
        self._qos = qos
        self._sends_a_batch = sends_a_batch
        self._nothing_older = retry.done
        self._on_oversized = on_oversized
        self._on_suspicious_ts = on_suspicious_ts
        self._on_expired = on_expired
        self._on_backlog_sent = on_backlog_sent
        self._accept_times = accept_times
        self._clock = clock
        self._oversized_log = OccasionalLog(logger)
        self._single_sends = 0
        if queue.plain is not None:
            queue.plain.publish_at_once = self._publish_at_once

    def _publish_at_once(self) -> bool:
        """Publish a queued send in its caller's turn if it seems to be sent alone; return whether the queue is empty now.

        If a program awaits one send after the other, a send can only lose time in a queue. If one of the last batches had several
        sends, this one is probably the first of several, too, and they share a message.
        """
        if self._single_sends < SINGLE_SENDS or not (self._transport.idle.is_set() and self._is_ready()) or self.unsent:
            return False
        # With QoS 0, the send would be over before its caller waits, and the other tasks of the event loop would rarely run.
        if not self._qos:
            return False
        is_done = False
        try:
            self.unsent.extend(self._take_batch())
            while self.unsent and not self._publish_first():
                pass
            is_done = not self.unsent and self.queue.is_empty()
        finally:
            if not is_done:
                # The loop continues with what is left, also after an interrupt.
                self.queue.filled.set()
        return is_done

    def _is_ready(self) -> bool:
        return self._nothing_older.is_set() and self._writable.is_set()

    async def _wait_ready(self) -> None:
        while not self._is_ready():
            await self._nothing_older.wait()
            await self._writable.wait()

    def _take_batch(self) -> list[WorkItem]:
        """Pack queued sends; return the messages."""
        limits = self._admission.payload_limits(of_sub_devices=self.packer.of_sub_devices)
        firsts = self.lanes.firsts_now() if self.lanes.has_lanes else None
        uplinks, nbytes, number = self._take_sends(limits)
        try:
            batch = self.packer.pack(uplinks, self._qos, limits, self._admission.changes)
        except BaseException as error:
            uplinks = queued_uplinks(uplinks, number) if isinstance(uplinks, GatheredSends) else list(uplinks)
            is_hopeless = isinstance(error, Exception) and self.failures.failed(error, uplinks)
            if not is_hopeless:
                # Back in their places, so that they are found there if this loop ends.
                self.queue.prepend_all(uplinks)
            if not isinstance(error, Exception):
                raise
            if is_hopeless:
                self._give_up(uplinks[0])
            return []
        if self.failures.at_most < sys.maxsize:
            self.failures.succeeded()
        self._single_sends = self._single_sends + 1 if len(uplinks) == 1 else 0
        self._capacity.give_back(len(uplinks), nbytes)
        if not isinstance(uplinks, GatheredSends) and self.lanes.has_lanes:
            for _, _, _, terms in uplinks:
                if terms is not None:
                    terms.end()
        if batch.is_remarkable:
            self._report(batch)
        if batch.items:
            accepted_at = self._accepted_at(uplinks, firsts, number)
            for item in batch.items:
                item.accepted_at = accepted_at
        return batch.items

    def _accepted_at(
        self, uplinks: Sequence[QueuedUplink] | GatheredSends, firsts: list[QueuedUplink] | None, number: int
    ) -> float | None:
        """Return when the oldest send of a batch was accepted, by its number or by the first sends of the lanes."""
        if isinstance(uplinks, GatheredSends):
            return self._accept_times.of_number(number)
        return self._accept_times.of_first(uplinks[:1] if firsts is None else self._taken(firsts))

    def _taken(self, firsts: list[QueuedUplink]) -> list[QueuedUplink]:
        """Return those of the first sends of the lanes that are not there any more."""
        left = {id(uplink) for uplink in self.lanes.firsts_now()}
        return [uplink for uplink in firsts if id(uplink) not in left]

    def _take_sends(self, limits: PayloadLimits) -> tuple[Sequence[QueuedUplink] | GatheredSends, int, int]:
        """Take the sends of a batch; return them, their encoded bytes, and the number of the first one if they are gathered."""
        if self.lanes.has_lanes:
            return *self._pop_lanes(limits), 0
        if (plain := self._take_plain(limits)) is not None:
            gathered, number = plain
            return gathered, gathered.nbytes, number
        return *self._pop_batch(limits), 0

    def _report(self, batch: PackedBatch) -> None:
        """Count and log datapoints of a batch that are rejected, or that the platform stores differently."""
        self._publisher.counter.convert(batch.values_rounded, batch.values_stored_as_text)
        for ts in batch.suspicious_ts:
            self._on_suspicious_ts(ts)
        for oversized in batch.oversized:
            self._publisher.counter.refuse_queued(1, oversized.result.reason_code)
            self._oversized_log.warn_of(
                "oversized",
                "The datapoint %r needs a payload of %d bytes, which exceeds the limit: it is rejected",
                oversized.key,
                oversized.result.payload_size,
            )
        if batch.oversized and not batch.items:
            self._on_oversized()

    def _pop_lanes(self, limits: PayloadLimits) -> tuple[list[QueuedUplink], int]:
        """Take the sends of a batch from lanes that compete; return them and their encoded bytes."""
        batch = self.lanes.take_batch(self._bounds(limits), self._clock())
        if batch.expired:
            self._on_expired(batch.expired)
        if batch.backlog_datapoints:
            self._on_backlog_sent(batch.backlog_datapoints)
        return batch.uplinks, batch.nbytes

    def _bounds(self, limits: PayloadLimits) -> BatchBounds:
        """Return the size of a batch that the limits admit within ``BATCH_SECONDS``: data that is sent meanwhile cannot join it."""
        of_sub_devices = self.packer.of_sub_devices
        datapoints, messages = self._admission.admitted_within(BATCH_SECONDS, of_sub_devices=of_sub_devices)
        if messages < 1:
            # A message is due less often, so it takes more datapoints.
            seconds = BATCH_SECONDS / max(messages, LEAST_MESSAGES)
            datapoints, messages = self._admission.admitted_within(seconds, of_sub_devices=of_sub_devices)
        messages = max(1.0, messages)
        at_most = min(self.failures.at_most, self._sends_a_batch)
        nbytes = min(BATCH_PAYLOADS, messages) * limits.max_payload_size
        if self._qos and (link := self._transport.batch_bytes) is not None:
            nbytes = min(nbytes, link)
        return BatchBounds(nbytes, max(1.0, datapoints), messages if of_sub_devices else math.inf, at_most)

    def _batch_bytes(self, limits: PayloadLimits) -> tuple[int, bool]:
        """Return how many encoded bytes fill a batch of several sends, and whether the link bounds them."""
        budget = BATCH_PAYLOADS * limits.max_payload_size
        # At QoS 0 the speed of the link is unknown.
        link = self._transport.batch_bytes if self._qos else None
        return (link, True) if link is not None and link < budget else (budget, False)

    def _take_plain(self, limits: PayloadLimits) -> tuple[GatheredSends, int] | None:
        """Take as many plain sends as fill a batch, see ``LaneQueue.take_plain``."""
        # The first send is taken on any link.
        budget, _ = self._batch_bytes(limits)
        max_datapoints = BATCH_PAYLOADS_LIMITED * limits.max_datapoints if limits.max_datapoints else sys.maxsize
        return self.lanes.take_plain(min(self.failures.at_most, self._sends_a_batch), budget, max_datapoints)

    def _pop_batch(self, limits: PayloadLimits) -> tuple[list[QueuedUplink], int]:
        """Take as many sends as fill a batch; return them and their encoded bytes."""
        self.lanes.take_in_plain()
        at_once = 100
        left = len(self.lanes)
        at_most = min(self.failures.at_most, self._sends_a_batch)
        budget, is_bounded = self._batch_bytes(limits)
        # A single send is packed on any link.
        if is_bounded and left > 1:
            # A hundred sends may take minutes on a slow link: the size of the first one shows how many fit.
            at_once = 1
        capacity = self._capacity
        if left == capacity.sends and capacity.nbytes <= budget and left <= at_most and not limits.max_datapoints:
            # All queued sends are here, and their bytes are known.
            return self.lanes.pop_now(left), capacity.nbytes
        max_datapoints = sys.maxsize
        if limits.max_datapoints:
            # The messages of a batch wait for tokens, and data that is sent meanwhile cannot join them.
            max_datapoints, at_once = BATCH_PAYLOADS_LIMITED * limits.max_datapoints, 1
        uplinks: list[QueuedUplink] = []
        nbytes = datapoints = 0
        while nbytes < budget and datapoints < max_datapoints and len(uplinks) < at_most and left:
            taken = self.lanes.pop_now(min(at_once, at_most - len(uplinks)))
            left -= len(taken)
            uplinks += taken
            nbytes += sum([encoded.nbytes for encoded, _, _, _ in taken])
            if limits.max_datapoints:
                datapoints += sum([encoded.datapoints for encoded, _, _, _ in taken])
            elif is_bounded:
                at_once = max(1, min(100, (budget - nbytes) * len(uplinks) // max(1, nbytes)))
        return uplinks, nbytes


class ClockedUplinkQueueWorker(UplinkQueueWorker):
    """Packs nothing while a queued send waits for the clock of the device to be set."""

    def __init__(self, *arguments: Any, device_clock: DeviceClock, **options: Any) -> None:
        """Create a worker.

        Args:
            *arguments: See `UplinkQueueWorker`.
            device_clock: Gives sends their time.
            **options: See `UplinkQueueWorker`.
        """
        super().__init__(*arguments, **options)
        self._may_pack = device_clock.may_pack
        self.packer.stamped = device_clock.stamped

    def _is_ready(self) -> bool:
        return super()._is_ready() and (bool(self.unsent) or self._may_pack.is_set())

    async def _wait_ready(self) -> None:
        while not self._is_ready():
            if not super()._is_ready():
                await super()._wait_ready()
            else:
                await self._may_pack.wait()
