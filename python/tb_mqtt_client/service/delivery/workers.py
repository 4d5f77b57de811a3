"""Loops that drain the queues. Each waits on an event, a future or one exact timer.

The rule: a message that a worker has taken is in ``unsent``, where a lost connection or the end of the client finds it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tb_mqtt_client.common.async_utils import is_cancelled, wait_for_set
from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.packing import PackedBatch, UplinkPacker
from tb_mqtt_client.service.delivery.payload_limits import PayloadLimits
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.transport import Transport
from tb_mqtt_client.service.delivery.work_item import QueuedUplink, WorkItem

logger = get_logger(__name__)

FAILURES_ALONE = 3
"""So many times one item may fail on its own until it is given up."""
PAUSE_SECONDS = 1.0
"""Time between two attempts with one item: the cause may be over by then."""


class FailedRounds:
    """Counts the failed rounds of one loop, and decides what the next one may take. An item is a message or a queued uplink."""

    def __init__(self, name: str) -> None:
        """Create the counter of the loop that drains the queue of this name."""
        self._name = name
        self._log = OccasionalLog(logger)
        self.pause_seconds = PAUSE_SECONDS
        self._last_alone: object = None
        self._failures_alone = 0
        self.pauses = False
        """Whether the next round has to wait."""
        self.at_most = sys.maxsize
        """The number of items that the next round may take."""

    def succeeded(self) -> None:
        """Let the next round take more."""
        if self.at_most < sys.maxsize:
            self.at_most *= 2

    def failed(self, error: BaseException, items: Sequence[object] = ()) -> bool:
        """Report the exception of a round with these items. Return whether the only one of them is to be given up."""
        text = "Unexpected error in the %s queue, which goes on (items concerned: %d): %r"
        kind = type(error).__name__
        self._log.warn_of(kind, text, self._name, len(items), error, level=logging.ERROR, error=error)
        # No item is the cause of a lack of memory.
        is_lack_of_memory = isinstance(error, MemoryError)
        self.pauses = len(items) <= 1 or is_lack_of_memory
        if items:
            # Halves isolate the item that is the cause.
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
        """Wait before the next round if the last failure asks for it."""
        if not self.pauses:
            return
        try:
            await asyncio.sleep(self.pause_seconds)
        finally:
            self.pauses = False


BATCH_PAYLOADS = 32
"""Payloads that one batch may fill. Only the last one of a batch is not full, so that more of them waste less."""
BATCH_PAYLOADS_LIMITED = 4
"""The number while a limit of datapoints makes the payloads smaller."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes messages within the limits; all workers of a client share it."""

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
        try:
            self.transport.publish_now(item)
        except BaseException:
            if item.has_datapoints:
                self.counter.take_back(item.datapoints, item.superseded)
            raise
        return 0.0


class MessageQueueWorker:
    """Drains a queue of messages that are ready, one after the other: those without datapoints."""

    def __init__(
        self,
        name: str,
        queue: AsyncDeque[Any],
        publisher: Publisher,
        *,
        fits: Callable[[WorkItem], bool],
        give_up: Callable[[Any], None],
    ) -> None:
        """Create a worker.

        Args:
            name: The queue's name, for tasks and the log.
            queue: The queue.
            publisher: Publishes messages within the limits.
            fits: Returns whether a message may be published in this session; if not, it has dealt with the message.
            give_up: Resolves a message or send that cannot be sent because of an unexpected error.
        """
        self.name = name
        self.queue = queue
        self.unsent: deque[WorkItem] = deque()
        """Messages that were taken from the queue and are not published yet."""
        self._publisher = publisher
        self._transport = publisher.transport
        self._admission = publisher.admission
        self._writable = self._transport.service_writable
        self._fits = fits
        self._give_up = give_up
        self._failures = FailedRounds(name)

    def is_empty(self) -> bool:
        """Return whether nothing is queued or taken."""
        return not self.unsent and self.queue.is_empty()

    async def run(self) -> None:
        """Work until cancelled. After an unexpected exception the next round follows."""
        while True:
            try:
                await self._work()
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                self._failures.failed(error)
            except Exception as error:  # noqa: BLE001  # reported with its cause
                self._failures.failed(error)
            if self._failures.pauses:
                await self._failures.pause()

    async def _work(self) -> None:
        """Do one round: take a batch when it may be published, and publish it."""
        if not self.unsent:
            # Another worker may have taken the queued items.
            while not self.queue.filled.is_set():
                await self.queue.filled.wait()
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
            wait = self._publisher.try_publish(item) if self.may_go(item) else 0.0
        except BaseException as error:
            # The end of this loop finds it here.
            self.unsent.appendleft(item)
            if not isinstance(error, Exception):
                raise
            if not self._failures.failed(error, [item]):
                return self._failures.pause_seconds
            self._give_up(self.unsent.popleft())
            return 0.0
        if wait:
            self.unsent.appendleft(item)
        return wait

    def may_go(self, item: WorkItem) -> bool:
        """Return whether a message may be published in this session; most were packed for its limits."""
        return (item.checked == self._admission.changes and not item.of_sub_devices) or self._fits(item)


class RetryQueueWorker(MessageQueueWorker):
    """Publishes messages again that lost their connection or were refused for a time, before any younger data."""

    def __init__(self, *args: Any, wait_announced: Callable[[WorkItem], Awaitable[None]], **kwargs: Any) -> None:
        """Create a worker, as `MessageQueueWorker` does. ``wait_announced`` waits until a message's devices are announced."""
        super().__init__(*args, **kwargs)
        self._writable = self._transport.writable
        self._wait_announced = wait_announced
        self.done = asyncio.Event()
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
        """Publish everything that is queued when the round begins."""
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
    """Drains a queue of sends: as many as fill a batch of payloads are packed together."""

    def __init__(
        self,
        *args: Any,
        packer: UplinkPacker,
        capacity: QueueCapacity,
        qos: int,
        retry: RetryQueueWorker,
        on_oversized: Callable[[], None],
        on_suspicious_ts: Callable[[int], None],
        **kwargs: Any,
    ) -> None:
        """Create a worker, as `MessageQueueWorker` does.

        Args:
            *args: As `MessageQueueWorker` takes.
            packer: Writes the payloads.
            capacity: The capacity that queued sends take.
            qos: The QoS of the messages.
            retry: Its messages are older, and go first.
            on_oversized: Called when a batch of sends had only datapoints that fit in no payload.
            on_suspicious_ts: Called with a timestamp that is not likely to be in milliseconds.
            **kwargs: As `MessageQueueWorker` takes.
        """
        super().__init__(*args, **kwargs)
        self.packer = packer
        self._writable = self._transport.writable
        self._capacity = capacity
        self._qos = qos
        self._nothing_older = retry.done
        self._on_oversized = on_oversized
        self._on_suspicious_ts = on_suspicious_ts
        self._oversized_log = OccasionalLog(logger)

    def _is_ready(self) -> bool:
        return self._nothing_older.is_set() and self._writable.is_set()

    async def _wait_ready(self) -> None:
        while not self._is_ready():
            await self._nothing_older.wait()
            await self._writable.wait()

    def _take_batch(self) -> list[WorkItem]:
        """Pack queued sends."""
        limits = self._admission.payload_limits(of_sub_devices=self.packer.of_sub_devices)
        uplinks, nbytes = self._pop_batch(limits)
        try:
            batch = self.packer.pack(uplinks, self._qos, limits, self._admission.changes)
        except BaseException as error:
            # The end of this loop finds them here.
            self.queue.prepend_all(uplinks)
            if not isinstance(error, Exception):
                raise
            if self._failures.failed(error, uplinks):
                self._give_up(self.queue.take_now())
            return []
        if self._failures.at_most < sys.maxsize:
            self._failures.succeeded()
        self._capacity.give_back(len(uplinks), nbytes)
        if batch.is_remarkable:
            self._report(batch)
        return batch.items

    def _report(self, batch: PackedBatch) -> None:
        """Count and log datapoints of a batch that are rejected, or that the platform stores differently."""
        self._publisher.counter.convert(batch.values_rounded, batch.values_stored_as_text)
        for ts in batch.suspicious_ts:
            self._on_suspicious_ts(ts)
        for oversized in batch.oversized:
            self._publisher.counter.refuse_queued(1, oversized.result.reason_code)
            self._oversized_log.warn_of(
                "oversized",
                "The datapoint %r needs a payload of %d bytes, which is over the limit: it is rejected",
                oversized.key,
                oversized.result.payload_size,
            )
        if batch.oversized and not batch.items:
            self._on_oversized()

    def _pop_batch(self, limits: PayloadLimits) -> tuple[list[QueuedUplink], int]:
        """Take as many sends as fill a batch; return them and their encoded bytes."""
        budget, at_once = BATCH_PAYLOADS * limits.max_payload_size, 100
        left = len(self.queue)
        # Without acknowledgements nothing is known about the link, and a single send is packed on any link.
        link = self._transport.batch_bytes if self._qos and left > 1 else None
        if is_bounded := link is not None and link < budget:
            # A hundred sends may be minutes on a slow link: the first one shows how many fit.
            budget, at_once = link, 1
        max_datapoints = sys.maxsize
        if limits.max_datapoints:
            # The messages of a batch wait for their turn, and data that gathers meanwhile cannot join them.
            max_datapoints, at_once = BATCH_PAYLOADS_LIMITED * limits.max_datapoints, 1
        uplinks: list[QueuedUplink] = []
        nbytes = datapoints = 0
        at_most = self._failures.at_most
        while nbytes < budget and datapoints < max_datapoints and len(uplinks) < at_most and left:
            taken = self.queue.pop_now(min(at_once, at_most - len(uplinks)))
            left -= len(taken)
            uplinks += taken
            nbytes += sum([encoded.nbytes for encoded, _, _ in taken])
            if limits.max_datapoints:
                datapoints += sum([encoded.datapoints for encoded, _, _ in taken])
            elif is_bounded:
                at_once = max(1, min(100, (budget - nbytes) * len(uplinks) // max(1, nbytes)))
        return uplinks, nbytes
