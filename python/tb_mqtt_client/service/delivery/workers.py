"""Loops that empty queues. Each waits on an event, a future or one exact timer.

The rule: what a worker holds is in ``unsent``, where a lost connection or the end of the client finds it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from tb_mqtt_client.common.async_utils import is_cancelled, wait_for_set
from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.queue import AsyncDeque, QueueRoom
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.packing import MessageBounds, QueuedUplink, UplinkPacker
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.transport import Transport

logger = get_logger(__name__)

FAILURES_ALONE = 3
"""How often one item may fail on its own until it is given up."""
PAUSE_SECONDS = 1.0
"""Time between two attempts with the same item: the cause may be over by then."""


class FailedRounds:
    """Counts the failed rounds of one loop, and decides what the next one may take. An item is a message or a queued uplink."""

    def __init__(self, name: str, stop_event: asyncio.Event) -> None:
        """``name`` is the queue's, for the log. No pause lasts longer than until ``stop_event`` is set."""
        self._name = name
        self._stop_event = stop_event
        self._log = OccasionalLog(logger)
        self.pause_seconds = PAUSE_SECONDS
        self._last_alone: object = None
        self._failures_alone = 0
        self.pauses = False
        """Whether the next round has to wait."""
        self.at_most = sys.maxsize
        """How many items the next round may take."""

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
            async with asyncio.timeout(self.pause_seconds):
                await self._stop_event.wait()
        except TimeoutError:
            return
        finally:
            self.pauses = False


BATCH_PAYLOADS = 32
"""Payloads that one batch may fill. Only the last one of a batch is not full, so that more of them waste less."""
BATCH_PAYLOADS_LIMITED = 4
"""The same while a limit of datapoints makes the payloads smaller."""

GiveUpCallback = Callable[[Any], None]
"""Answers a message or a queued uplink that cannot be sent because of an unexpected error."""
FitsCallback = Callable[[MqttPublishMessage], bool]
"""Whether a message may go in this session; when not, it was dealt with."""


class MessageQueueWorker:
    """Empties a queue of messages that are ready, one after the other: those without datapoints."""

    def __init__(
        self,
        name: str,
        queue: AsyncDeque[Any],
        stop_event: asyncio.Event,
        mqtt_manager: Transport,
        device_rate_limiter: RateLimiter,
        gateway_rate_limiter: RateLimiter | None = None,
        *,
        admission: Admission,
        counter: DeliveryCounter | None = None,
        fits: FitsCallback | None = None,
        give_up: GiveUpCallback | None = None,
    ) -> None:
        """Takes nothing more from ``queue`` once ``stop_event`` is set.

        ``admission`` and ``counter`` are shared with other workers of a client; the limiters are those of the admission.
        """
        self.name = name
        self.queue = queue
        self.unsent: deque[MqttPublishMessage] = deque()
        """Taken from the queue, but not published yet."""
        self._stop_event = stop_event
        self._mqtt_manager = mqtt_manager
        self._admission = admission
        self._counter = counter or DeliveryCounter()
        self._fits = fits or (lambda _: True)
        self._give_up = give_up or (lambda _: None)
        self._failures = FailedRounds(name, stop_event)

    def is_empty(self) -> bool:
        """Whether nothing is queued or in this worker's hands."""
        return self.queue.is_empty() and not self.unsent

    async def run(self) -> None:
        """Work until cancelled, or until the stop event is found set. After an unexpected exception the next round comes."""
        while not self._stop_event.is_set():
            try:
                await self._work()
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                self._failures.failed(error)
            except Exception as error:  # noqa: BLE001  # reported with its cause
                self._failures.failed(error)
            await self._failures.pause()

    async def _work(self) -> None:
        """Do one round: take a batch when it may be published, and publish it."""
        # Another worker may have taken the queued messages, and `work_now` may have begun with them.
        while self.queue.is_empty() and not self.unsent:
            await self.queue.wait_put()
        if not self.unsent:
            # Taken as late as possible: what gathers while the window is full travels together.
            await self._wait_ready()
            self.unsent.extend(self._take_batch())
        while self.unsent:
            await self._send_first()

    def take_back(self) -> list[MqttPublishMessage]:
        """Give up what is not published so far."""
        unsent = list(self.unsent)
        self.unsent.clear()
        return unsent

    def remove(self, message: MqttPublishMessage) -> bool:
        """Give up one message. False when it is not here, or published."""
        if message in self.unsent:
            self.unsent.remove(message)
            return True
        return self.queue.remove_now(message)

    def _take_batch(self) -> Iterable[MqttPublishMessage]:
        messages: list[MqttPublishMessage] = self.queue.pop_now(1)
        return messages

    async def _wait_ready(self) -> None:
        await self._mqtt_manager.wait_writable_for_service()

    async def _send_first(self) -> None:
        """Publish the first unsent message, or wait for what it lacks."""
        await self._wait_ready()
        # Taken back when the connection was lost, perhaps.
        if self.unsent and (wait := self._publish_first()):
            await self._admission.wait(wait)

    def _publish_first(self) -> float:
        """Publish the first unsent message, if the limits admit it. Seconds to wait otherwise."""
        message = self.unsent.popleft()
        try:
            wait = self._try_publish(message) if self._fits(message) else 0.0
        except BaseException as error:
            # The end of this loop finds it here.
            self.unsent.appendleft(message)
            if not isinstance(error, Exception):
                raise
            if not self._failures.failed(error, [message]):
                return self._failures.pause_seconds
            self._give_up(self.unsent.popleft())
            return 0.0
        if wait:
            self.unsent.appendleft(message)
        return wait

    def _try_publish(self, message: MqttPublishMessage) -> float:
        """Publish a message if the limits admit it. Seconds to wait otherwise."""
        wait = self._admission.try_take(message)
        if wait:
            return wait
        if not message.is_service_message:
            self._counter.publish(message.datapoints, message.superseded, message.payload_size, message.payload_limit)
        try:
            self._mqtt_manager.publish_now(message)
        except BaseException:
            if not message.is_service_message:
                self._counter.take_back(message.datapoints, message.superseded)
            raise
        return 0.0

    async def process(self, message: MqttPublishMessage) -> tuple[float | None, int | None, RateLimit | None]:
        """Publish one message that is not in the queue, as soon as there is room in the in-flight window.

        ``(None, None, None)`` when the limits admitted it; otherwise nothing was taken and nothing published, and it says which
        limit: seconds of its window, tokens that are needed, the limit. While publishing pauses there are only the seconds.
        """
        await self._wait_ready()
        wait = self._try_publish(message)
        if not wait:
            return None, None, None
        message_limit, datapoints_limit = self._admission.limits_of(message)
        window, tokens, limit = await self.check_rate_limits_for_message(message.datapoints, message_limit, datapoints_limit)
        return (wait, None, None) if window is None else (window[1], tokens, limit)

    @staticmethod
    async def check_rate_limits_for_message(
        datapoints_count: int, message_rate_limit: RateLimit, datapoints_rate_limit: RateLimit
    ) -> tuple[tuple[int, float] | None, int, RateLimit | None]:
        """Which limit has too few tokens for one message: its window, the tokens that are needed, and the limit.

        ``(None, 0, None)`` when none has. Nothing is taken.
        """
        for limit, tokens in ((message_rate_limit, 1), (datapoints_rate_limit, datapoints_count)):
            window = await limit.check_limit_reached(tokens)
            if window:
                return window, tokens, limit
        return None, 0, None


class RetryQueueWorker(MessageQueueWorker):
    """Publishes again what lost its connection or was refused for a time, before anything younger with datapoints goes."""

    def __init__(self, *args: Any, wait_announced: Callable[[MqttPublishMessage], Awaitable[None]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wait_announced = wait_announced
        self._done = asyncio.Event()
        self._done.set()

    def put(self, older: list[MqttPublishMessage], younger: Iterable[MqttPublishMessage] = ()) -> None:
        """Queue messages before and behind those that are queued."""
        self.queue.prepend_all([*older, *self.take_back()])
        self.queue.append_all(younger)
        if not self.queue.is_empty():
            self._done.clear()

    def clear(self) -> list[MqttPublishMessage]:
        """Everything that is left, which is nobody's then."""
        left = [*self.take_back(), *self.queue.pop_now(len(self.queue))]
        self._done.set()
        return left

    @property
    def done(self) -> bool:
        """Whether nothing is left to publish again."""
        return self._done.is_set()

    async def wait_done(self) -> None:
        """Wait until nothing is left to publish again."""
        await wait_for_set(self._done)

    async def _work(self) -> None:
        """Publish everything that is queued when the round begins."""
        if not self.unsent:
            await self.queue.wait_filled()
            await self._wait_ready()
            self.unsent.extend(self._take_batch())
        while self.unsent:
            await self._wait_announced(self.unsent[0])
            await self._send_first()
        if self.queue.is_empty():
            self._done.set()

    async def _wait_ready(self) -> None:
        await self._mqtt_manager.wait_writable()


class UplinkQueueWorker(MessageQueueWorker):
    """Empties a queue of calls with datapoints: as many as fill a batch of payloads are packed together."""

    def __init__(
        self,
        *args: Any,
        packer: UplinkPacker,
        room: QueueRoom,
        qos: int,
        retry: RetryQueueWorker,
        on_oversized: Callable[[], None],
        on_suspicious_ts: Callable[[int], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.packer = packer
        self._room = room
        self._qos = qos
        self._retry = retry
        self._on_oversized = on_oversized
        self._on_suspicious_ts = on_suspicious_ts
        self._oversized_log = OccasionalLog(logger)

    def work_now(self) -> None:
        """Do at once what ``run`` would do in the loop's next turn, as far as nothing has to be waited for.

        For who has just filled the queue of a worker that waits for that: a single call is on its way a turn earlier.
        """
        if self.unsent or self.queue.is_empty() or self._failures.pauses or not self._is_ready():
            return
        self.unsent.extend(self._take_batch())
        while self.unsent and self._is_ready():
            if self._publish_first():
                return

    def _is_ready(self) -> bool:
        return self._retry.done and self._mqtt_manager.is_writable()

    async def _wait_ready(self) -> None:
        while not self._is_ready():
            await self._retry.wait_done()
            await self._mqtt_manager.wait_writable()

    def _take_batch(self) -> Iterable[MqttPublishMessage]:
        """Pack what is queued."""
        bounds = self._admission.bounds(gateway=self.packer.gateway)
        uplinks, nbytes = self._pop_batch(bounds)
        try:
            batch = self.packer.pack(uplinks, self._qos, bounds)
        except BaseException as error:
            # The end of this loop finds them here.
            self.queue.prepend_all(uplinks)
            if not isinstance(error, Exception):
                raise
            if self._failures.failed(error, uplinks):
                self._give_up(self.queue.take_now())
            return []
        self._failures.succeeded()
        self._room.give_back(len(uplinks), nbytes)
        for rounded, stored_as_text in batch.conversions:
            self._counter.convert(rounded, stored_as_text)
        for ts in batch.suspicious_ts:
            self._on_suspicious_ts(ts)
        for oversized in batch.oversized:
            self._counter.refuse_queued(1, oversized.result.reason_code)
            self._oversized_log.warn_of(
                "oversized",
                "The datapoint %r needs a payload of %d bytes, which is over the limit: it is rejected",
                oversized.key,
                oversized.result.payload_size,
            )
        if batch.oversized and not batch.messages:
            self._on_oversized()
        return batch.messages

    def _pop_batch(self, bounds: MessageBounds) -> tuple[list[QueuedUplink], int]:
        budget, at_once = BATCH_PAYLOADS * self.packer.payload_budget, 100
        # Without acknowledgements a link shows nothing.
        link = self._mqtt_manager.batch_bytes if self._qos else None
        if is_bounded := link is not None and link < budget:
            # A hundred calls may be minutes on a slow link: the first one shows how many fit.
            budget, at_once = link, 1
        max_datapoints = sys.maxsize
        if bounds.datapoints:
            # The messages of a batch wait for their turn, and data that gathers meanwhile cannot join them.
            max_datapoints, at_once = BATCH_PAYLOADS_LIMITED * bounds.datapoints, 1
        uplinks: list[QueuedUplink] = []
        nbytes = datapoints = 0
        at_most = self._failures.at_most
        while nbytes < budget and datapoints < max_datapoints and len(uplinks) < at_most and not self.queue.is_empty():
            taken = self.queue.pop_now(min(at_once, at_most - len(uplinks)))
            uplinks += taken
            nbytes += sum([encoded.nbytes for encoded, _, _ in taken])
            if bounds.datapoints:
                datapoints += sum([encoded.datapoints for encoded, _, _ in taken])
            elif is_bounded:
                at_once = max(1, min(100, (budget - nbytes) * len(uplinks) // max(1, nbytes)))
        return uplinks, nbytes
