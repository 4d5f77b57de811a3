"""Accepts sends with datapoints: at once while there is capacity, and by the user's queue policy when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn, TypeVar

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.delivery import Delivery
from tb_mqtt_client.common.exceptions import NotConnectedError, QueueFullError
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.constants.option_values import QueuePolicy
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.delays import AcceptTimes
from tb_mqtt_client.service.delivery.expiry import Expiry
from tb_mqtt_client.service.delivery.lanes import LaneQueue
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.sub_devices import SubDeviceFilter
from tb_mqtt_client.service.delivery.terms import SendTerms
from tb_mqtt_client.service.delivery.work_item import ENCODED, Queued, QueuedUplink

T = TypeVar("T")

Submission = tuple[EncodedUplink, SendReceipt, SendTerms | None]
"""An encoded send of another thread, where its result goes, and its terms, if it has any."""


class Intake:
    """Accepts sends: creates the future of each send's ``PublishResult``, and queues the send."""

    def __init__(
        self,
        initial_queue: AsyncDeque[Queued],
        device_queue: LaneQueue,
        capacity: QueueCapacity,
        counter: DeliveryCounter,
        receipts: Receipts,
        policy: QueuePolicy,
        sends_a_turn: int,
        take_oldest: Callable[[], QueuedUplink | None],
        expiry: Expiry,
        accept_times: AcceptTimes,
        plain: PlainSends | None = None,
    ) -> None:
        """Create the intake of a client.

        Args:
            initial_queue: The queue for sends of sub-devices, which have to be routed.
            device_queue: The queue for the connected device's own sends.
            capacity: How much may be queued.
            counter: Counts the datapoints.
            receipts: Resolves sends that are dropped.
            policy: What happens when there is no capacity.
            sends_a_turn: The number of sends after which the other tasks of the event loop run.
            take_oldest: Removes the oldest send of the lowest priority of which no data is packed from its queue, and returns it.
            expiry: Watches sends that expire.
            accept_times: Gets to know when some of the sends are accepted.
            plain: The plain sends of `device_queue`; None if something has to be decided or done for each send.
        """
        self._initial_queue = initial_queue
        self._has_left_sends = False
        self._device_queue = device_queue
        self._capacity = capacity
        self._counter = counter
        self._receipts = receipts
        self._policy = policy
        # Numbers take memory, and only this policy needs the order of sends across queues.
        self._is_numbered = policy is QueuePolicy.DROP_OLDEST
        self._sends_a_turn = self._sends_until_accept = sends_a_turn
        # How many sends are accepted when the next one has to pass `accept`.
        self._turn_at = 0
        self._sub_devices: SubDeviceFilter | None = None
        self._closed = False
        self._take_oldest = take_oldest
        self._expiry = expiry
        self._accepted = 0
        self._accept_times = accept_times
        self._marking: asyncio.TimerHandle | None = None
        # The number of the last send that was marked, which those after it share.
        self._marked = 0
        self._create_unmarked: tuple[Callable[[], DeliveryFuture], Callable[[], Delivery | DeliveryFuture]] = _no_loop, _no_loop
        self._loop: asyncio.AbstractEventLoop
        self._is_mark_due = False
        self.create_future: Callable[[], DeliveryFuture] = _no_loop
        """Creates the receipt of a send. It raises if the queues have failed."""
        self.create_delivery: Callable[[], Delivery | DeliveryFuture] = _no_loop
        """Creates the receipt of a send that a plain function makes."""
        self._failure = ""
        self.plain: PlainSends | None = plain
        """The sends of the connected device about which nothing has to be decided, while there are such sends."""
        self.plain_of_sub_devices: PlainSends | None = None
        """Those of sub-devices."""
        self._sub_device_queue: LaneQueue = device_queue
        self._gathering: list[PlainSends] = []
        if plain is not None:
            self._gather_in(plain)
        self.waits_for_disk: bool = False
        """Whether a send of another thread waits until it is on disk or has its result."""
        self.watches_share: bool = False
        """Whether the capacity that data of refused sub-devices may take is nearly used up."""

    def plug_in(self, sub_devices: SubDeviceFilter, queue: LaneQueue) -> None:
        """Accept sends of sub-devices, and bound the capacity that data of refused ones may take.

        Args:
            sub_devices: Knows what is held back.
            queue: The queue for sends about whose device nothing has to be decided.
        """
        self._sub_devices = sub_devices
        self._sub_device_queue = queue
        self.plain_of_sub_devices = plain = queue.plain
        if plain is not None:
            self._gather_in(plain)
        sub_devices.watch_share(self._share_changed)

    def open(self) -> None:
        """Accept sends of the running loop."""
        self._open_with(_future_maker(asyncio.get_running_loop()), Delivery)

    def _open_with(
        self, create_future: Callable[[], DeliveryFuture], create_delivery: Callable[[], Delivery | DeliveryFuture]
    ) -> None:
        self._failure = ""
        self._create_unmarked = create_future, create_delivery
        self._loop = asyncio.get_running_loop()
        for plain in self._gathering:
            plain.belong_to(self._loop)
        self._stop_marking()
        self._mark_next()
        self._closed = False
        self._capacity.open()

    def close(self) -> None:
        """Let callers that wait for capacity raise ``NotConnectedError``."""
        self._closed = True
        self._stop_marking()
        self.stop_gathering()
        self._capacity.close()
        if self._sub_devices is not None:
            self._sub_devices.wake()

    def fail(self, failure: str) -> None:
        """Accept nothing until ``open``: sends raise ``NotConnectedError`` with this text."""
        self._failure = failure
        self.close()
        # In place of a check at each send, which would cost time while nothing has failed.
        self._create_with(self._refuse, self._refuse)

    @property
    def has_failed(self) -> bool:
        """Whether ``fail`` was called since the last ``open``."""
        return bool(self._failure)

    def require_open(self) -> None:
        """Check that the queues have not failed.

        Raises:
            NotConnectedError: ``fail`` was called since the last ``open``.
        """
        if self._failure:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotConnectedError(self._failure)

    # Marks: one send in a while is noted with its time. No other send may cost time for that, so what creates its future does it.

    def _mark_next(self) -> None:
        """Have the next send marked."""
        self._marking = None
        self._is_mark_due = True
        self._create_with(self._create_marked_future, self._create_marked_delivery)

    def _create_with(
        self, create_future: Callable[[], DeliveryFuture], create_delivery: Callable[[], Delivery | DeliveryFuture]
    ) -> None:
        self.create_future, self.create_delivery = create_future, create_delivery
        for plain in self._gathering:
            plain.create_future, plain.create_delivery = create_future, create_delivery

    def _create_marked_future(self) -> DeliveryFuture:
        self.mark_if_due()
        return self.create_future()

    def _create_marked_delivery(self) -> Delivery | DeliveryFuture:
        self.mark_if_due()
        return self.create_delivery()

    def mark_if_due(self) -> None:
        """Note the time of the next send, unless that of another one was noted a moment ago."""
        if not self._is_mark_due:
            return
        self._is_mark_due = False
        self._create_with(*self._create_unmarked)
        self._mark()
        self._marking = self._loop.call_later(self._accept_times.interval, self._mark_next)

    def _mark(self) -> None:
        self.count_gathered()
        for plain in self._gathering:
            plain.number_next(self._accepted + 1)
        self._marked = self._accepted + 1
        self._accept_times.mark(self._marked)

    def _stop_marking(self) -> None:
        self._is_mark_due = False
        self._create_with(*self._create_unmarked)
        if self._marking is not None:
            self._marking.cancel()
            self._marking = None

    # Plain sends: their queue accepts them natively, as many as were lent to it.

    def _gather_in(self, plain: PlainSends) -> None:
        self._gathering.append(plain)
        plain.create_future, plain.create_delivery = self.create_future, self.create_delivery
        self._capacity.recall = self.stop_gathering

    def may_gather(self, plain: PlainSends) -> bool:
        """Return whether ``begin_gathering`` can succeed."""
        if self._closed or self.watches_share or plain.blocked:
            return False
        # A send that goes directly to its queue must not overtake those that are not routed yet.
        return plain is not self.plain_of_sub_devices or not self._have_sends_to_be_routed()

    def begin_gathering(self, plain: PlainSends) -> bool:
        """Return whether ``gather_delivery`` of a queue may queue sends from now on."""
        plain.close()
        if not self.may_gather(plain):
            return False
        self.count_gathered()
        plain.number_next(self._marked)
        # Each queue may gather as many as are left: a turn has a few more sends if a gateway sends data of its own, too.
        left = self._turn_at - self._accepted
        return plain.open(left if left > 0 else self._sends_a_turn, in_turn=left > 0)

    async def begin_gathering_in_turn(self, plain: PlainSends) -> bool:
        """Return whether ``gather`` of a queue may queue sends from now on, after the turn of other tasks if it is time for that.

        Raises:
            NotConnectedError: The client was stopped meanwhile.
        """
        self.count_gathered()
        if self._accepted >= self._turn_at:
            await self._give_turn()
        self.begin_gathering(plain)
        return plain.gathers_in_turn

    def count_gathered(self) -> None:
        """Count all sends that were accepted, so that the counters and the capacity are exact."""
        for plain in self._gathering:
            self._accepted += plain.take_counted()

    def stop_gathering(self) -> None:
        """Have all sends pass the other ways, until gathering begins again."""
        for plain in self._gathering:
            plain.close()

    def try_accept(self, encoded: EncodedUplink, terms: SendTerms | None = None) -> DeliveryFuture | None:
        """Accept a send if it does not have to wait.

        This is not a coroutine, because most sends do not wait, and a coroutine would make each of them slower.

        Args:
            encoded: The datapoints.
            terms: Priority and expiry; None for a send without any.

        Returns:
            The future of the send's ``PublishResult``; None if the send has to wait, in ``accept``.
        """
        # From time to time the loops have to run, even if the program sends without ever waiting.
        if self._accepted >= self._turn_at:
            return None
        # Before the capacity is taken: this raises if the queues have failed.
        future = self.create_future()
        if not self._capacity.try_take(encoded.nbytes):
            return None
        self._queue(encoded, future, terms)
        return future

    def enqueue(self, encoded: EncodedUplink, terms: SendTerms | None = None) -> Delivery | DeliveryFuture:
        """Accept a send without ever waiting.

        Args:
            encoded: The datapoints.
            terms: Priority and expiry; None for a send without any.

        Returns:
            The pending ``PublishResult`` of the send, which may be dropped by the queue policy.

        Raises:
            QueueFullError: There is no capacity, and the policy is to wait or to raise.
        """
        if self.watches_share and self._policy in {QueuePolicy.WAIT, QueuePolicy.RAISE} and self.is_share_used_up(encoded):
            raise self.share_used_up(encoded)
        delivery = self.create_delivery()
        if not self.accept_for(encoded, delivery, terms):
            raise self.full()
        return delivery

    def full(self) -> QueueFullError:
        """Return the error of a send that does not wait for capacity."""
        capacity = self._capacity
        return QueueFullError(
            f"the queue is full: {capacity.sends:,} sends with {capacity.nbytes:,} bytes wait (max_queued_messages="
            f"{capacity.max_sends:,}, max_queued_bytes={capacity.max_bytes:,})"
        )

    async def accept(self, encoded: EncodedUplink, terms: SendTerms | None = None) -> DeliveryFuture:
        """Accept a send; without capacity, wait, raise or drop by the queue policy. A send that expires meanwhile is dropped.

        Args:
            encoded: The datapoints.
            terms: Priority and expiry; None for a send without any.

        Returns:
            The future of the send's ``PublishResult``.

        Raises:
            QueueFullError: There is no capacity, and the policy is to raise.
            NotConnectedError: The client was stopped while this waited.
        """
        if terms is None or not terms.expires_at:
            return await self._accept_in_turn(encoded, terms)
        try:
            async with asyncio.timeout(self._expiry.seconds_until(terms.expires_at)) as waiting:
                return await self._accept_in_turn(encoded, terms)
        except TimeoutError:
            if not waiting.expired():
                raise
        return self._dropped(encoded, LocalReasonCode.EXPIRED)

    async def _accept_in_turn(self, encoded: EncodedUplink, terms: SendTerms | None) -> DeliveryFuture:
        """Accept a send, see ``accept``, without regard to its expiry."""
        if self._accepted >= self._turn_at:
            await self._give_turn()
        sub_devices = self._sub_devices
        if sub_devices is not None and sub_devices.is_share_used_up and not await self._has_share(encoded, sub_devices):
            return self._dropped(encoded)
        if await self._take_capacity(encoded.nbytes):
            return self._accept(encoded, terms)
        return self._dropped(encoded)

    async def accept_all(self, uplinks: Sequence[EncodedUplink], terms: SendTerms | None = None) -> list[DeliveryFuture]:
        """Accept several sends, see ``accept``. With the policy to raise, all of them or none.

        Args:
            uplinks: The datapoints of each send.
            terms: Priority and expiry of all of them; None for none.

        Raises:
            QueueFullError: There is no capacity for all of them, and the policy is to raise.
            NotConnectedError: The client was stopped while this waited.
        """
        if self._accepted >= self._turn_at:
            await self._give_turn()
        if self._policy is QueuePolicy.RAISE:
            # Nothing else runs from here to the last of them, which therefore pass no further check.
            if refused := next((one for one in uplinks if self.watches_share and self.is_share_used_up(one)), None):
                raise self.share_used_up(refused)
            if not self._capacity.has_room(sum([encoded.nbytes for encoded in uplinks]), len(uplinks)):
                raise self.full()
            self._turn_at = max(self._turn_at, self._accepted + len(uplinks))
        return [self.try_accept(encoded, terms) or await self.accept(encoded, terms) for encoded in uplinks]

    async def _give_turn(self) -> None:
        """Let the other tasks of the event loop run.

        Raises:
            NotConnectedError: The client was stopped meanwhile.
        """
        await asyncio.sleep(0)
        # While shares are watched, each send passes here, also after one that was dropped.
        self.stop_gathering()
        self._turn_at = self._accepted + (0 if self.watches_share else self._sends_until_accept)
        if self._closed:
            # Nothing would resolve the future of a send.
            self.require_open()
            raise NotConnectedError("the client was stopped while this send waited for its turn")

    def _share_changed(self, checks_each: bool) -> None:
        """Have all sends pass ``accept``, which looks for refused devices, or one in ``sends_a_turn``."""
        self.stop_gathering()
        self.watches_share = checks_each
        self._sends_until_accept = 1 if checks_each else self._sends_a_turn
        self._turn_at = min(self._turn_at, self._accepted + self._sends_until_accept - 1)
        # Their data no longer counts for the capacity of others, so there may be capacity now.
        self._capacity.wake_first()

    async def _has_share(self, encoded: EncodedUplink, sub_devices: SubDeviceFilter) -> bool:
        """Return whether a send may take capacity, which is limited for data of refused devices.

        If their share of the capacity is used up, wait, raise, drop older data or return False, by the queue policy.
        """
        device = encoded.device
        while device is not None and sub_devices.is_share_used_up and sub_devices.is_refused(device):
            if self._policy is QueuePolicy.RAISE:
                raise self.share_used_up(encoded)
            if self._policy is QueuePolicy.DROP_NEWEST:
                return False
            if self._policy is QueuePolicy.DROP_OLDEST and (oldest := sub_devices.oldest_of_refused()) is not None:
                self.drop(oldest[1]())
                continue
            await sub_devices.wait_changed()
            if self._closed:
                raise NotConnectedError("the client was stopped while this send waited for capacity in its queue")
        return True

    # Sends of other threads, see `Submissions`.

    def accept_plain(self, entries: Iterator[Submission | T]) -> Submission | T | None:
        """Accept sends of an iterator, until there is one about which something has to be decided, or an object that is not a send.

        Programs with threads send much at a time, and each of these sends passes nothing but this loop.

        Returns:
            The first object that is not accepted; ``None`` at the end of the iterator. A send has to go to ``accept_for``.
        """
        if not self._may_accept_plain():
            return next(entries, None)
        sends_left, bytes_left = self._capacity.undecided_room()
        number, has_sub_devices = self._marked, self._sub_devices is not None
        own: list[QueuedUplink] = []
        of_sub_devices: list[QueuedUplink] = []
        datapoints = 0
        left = bytes_left
        refused = None
        for entry in entries:
            if not isinstance(entry, tuple) or entry[2] is not None or sends_left <= 0:
                refused = entry
                break
            encoded, receipt, _ = entry
            if encoded.nbytes > left:
                refused = entry
                break
            left -= encoded.nbytes
            sends_left -= 1
            datapoints += encoded.datapoints
            if has_sub_devices and encoded.has_device:
                of_sub_devices.append((encoded, receipt, number, None))
            else:
                own.append((encoded, receipt, number, None))
        accepted = len(own) + len(of_sub_devices)
        self._accepted += accepted
        self._capacity.take_anyway(accepted, bytes_left - left)
        self._counter.accept(datapoints)
        if own:
            self._device_queue.append_all(own)
        if of_sub_devices:
            self._queue_all_of_sub_devices(of_sub_devices)
        return refused

    def _may_accept_plain(self) -> bool:
        """Return whether nothing has to be decided about sends without terms for which there is capacity."""
        return not (self._is_numbered or self.watches_share or self._device_queue.has_lanes)

    def accept_for(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> bool:
        """Accept a send whose result goes to ``receipt``, or drop it by the queue policy.

        Returns:
            False if the send has to wait for capacity, in ``wait_for``.
        """
        policy, capacity = self._policy, self._capacity
        if self.watches_share and self.is_share_used_up(encoded) and not self._drop_for_share(encoded):
            self._drop_new(encoded, receipt)
            return True
        if capacity.try_take(encoded.nbytes):
            self._queue(encoded, receipt, terms)
            return True
        if policy is QueuePolicy.DROP_NEWEST:
            self._drop_new(encoded, receipt)
            return True
        if policy is QueuePolicy.DROP_OLDEST and self._drop_oldest_for(encoded.nbytes):
            self._queue(encoded, receipt, terms)
            return True
        return False

    async def wait_for(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> None:
        """Wait for capacity, and accept a send; drop it if it expires meanwhile.

        Raises:
            NotConnectedError: The client was stopped while this waited.
        """
        if terms is None or not terms.expires_at:
            await self._take_for(encoded, receipt, terms)
            return
        try:
            async with asyncio.timeout(self._expiry.seconds_until(terms.expires_at)) as waiting:
                await self._take_for(encoded, receipt, terms)
        except TimeoutError:
            if not waiting.expired():
                raise
            self._drop_new(encoded, receipt, LocalReasonCode.EXPIRED)

    async def _take_for(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> None:
        """Wait for capacity, and accept a send, see ``wait_for``."""
        await self._capacity.take(encoded.nbytes)
        self.mark_if_due()
        self._queue(encoded, receipt, terms)

    def leave_undelivered(self, encoded: EncodedUplink, receipt: SendReceipt, _terms: SendTerms | None) -> None:
        """Resolve a send that was never queued as undelivered, because the client is stopped."""
        self._counter.accept(encoded.datapoints)
        self._receipts.never_queued(encoded, receipt)

    def is_share_used_up(self, encoded: EncodedUplink) -> bool:
        """Return whether a send is for a refused device, and data of refused devices takes all capacity that it may take.

        Other threads may call this.
        """
        sub_devices, device = self._sub_devices, encoded.device
        return sub_devices is not None and device is not None and sub_devices.is_share_used_up and sub_devices.is_refused(device)

    def share_used_up(self, encoded: EncodedUplink) -> QueueFullError:
        """Return the error of a send for a refused device."""
        name = encoded.device.name if encoded.device is not None else ""
        text = f"The platform refuses device {name!r}, and data of refused devices takes half of the queue already"
        return QueueFullError(text)

    async def wait_for_share(self, encoded: EncodedUplink) -> None:
        """Wait until ``is_share_used_up`` is false, or the client is stopped."""
        while not self._closed and self._sub_devices is not None and self.is_share_used_up(encoded):
            await self._sub_devices.wait_changed()

    def _drop_for_share(self, encoded: EncodedUplink) -> bool:
        """Drop data of refused devices by the queue policy; return False if the send itself is to be dropped."""
        if self._policy is QueuePolicy.DROP_NEWEST:
            return False
        if self._policy is QueuePolicy.DROP_OLDEST and self._sub_devices is not None:
            while self.is_share_used_up(encoded) and (oldest := self._sub_devices.oldest_of_refused()) is not None:
                self.drop(oldest[1]())
        # With the other policies, the caller has waited. A few sends more than the share do no harm.
        return True

    def _dropped(self, encoded: EncodedUplink, reason_code: LocalReasonCode = LocalReasonCode.DROPPED) -> DeliveryFuture:
        future = self.create_future()
        self._drop_new(encoded, future, reason_code)
        return future

    def _drop_new(
        self, encoded: EncodedUplink, receipt: SendReceipt, reason_code: LocalReasonCode = LocalReasonCode.DROPPED
    ) -> None:
        self._counter.accept(encoded.datapoints)
        self._receipts.dropped(encoded, receipt, reason_code)

    def drop(self, uplink: QueuedUplink) -> None:
        """Resolve a send as dropped that was removed from its queue."""
        self._receipts.drop(uplink, LocalReasonCode.DROPPED)

    def _accept(self, encoded: EncodedUplink, terms: SendTerms | None) -> DeliveryFuture:
        try:
            future = self.create_future()
        except NotConnectedError:
            self._capacity.give_back(1, encoded.nbytes)
            raise
        self._queue(encoded, future, terms)
        return future

    def _queue(self, encoded: EncodedUplink, receipt: SendReceipt, terms: SendTerms | None) -> None:
        """Queue a send that has its capacity."""
        counter, datapoints = self._counter, encoded.datapoints
        # In place of `DeliveryCounter.accept`, since every send passes here.
        counter.accepted += datapoints
        counter.queued += datapoints
        self._accepted += 1
        number = self._accepted if self._is_numbered else self._marked
        uplink: QueuedUplink = encoded, receipt, number, terms
        if terms is not None or self._device_queue.has_lanes:
            self._put(uplink)
        # What `_put` does with most sends, without a further call.
        elif self._sub_devices is not None and encoded.has_device:
            self._queue_of_sub_device(uplink, self._sub_devices)
        else:
            self._device_queue.append(uplink)

    def _put(self, uplink: QueuedUplink) -> None:
        encoded, _, _, terms = uplink
        if terms is not None and terms.expires_at:
            self._expiry.add(uplink)
        if self._sub_devices is not None and encoded.has_device:
            self._queue_of_sub_device(uplink, self._sub_devices)
        else:
            self._device_queue.add(uplink)

    def _queue_of_sub_device(self, uplink: QueuedUplink, sub_devices: SubDeviceFilter) -> None:
        """Queue a send of a sub-device for packing, or for routing if something has to be decided about its device.

        Routing delays a send by a turn of the event loop. A send must not overtake those that wait for it.
        """
        device = uplink[ENCODED].device
        if not self._have_sends_to_be_routed() and device is not None and sub_devices.is_free(device):
            self._sub_device_queue.add(uplink)
        else:
            self._leave_to_routing([uplink])

    def _queue_all_of_sub_devices(self, uplinks: list[QueuedUplink]) -> None:
        """Queue sends of sub-devices without terms, see ``_queue_of_sub_device``."""
        if not self._have_sends_to_be_routed() and self._sub_devices is not None and self._sub_devices.are_all_free:
            self._sub_device_queue.append_all(uplinks)
        else:
            self._leave_to_routing(uplinks)

    def _leave_to_routing(self, uplinks: list[QueuedUplink]) -> None:
        if self.plain_of_sub_devices is not None:
            self.plain_of_sub_devices.close()
        self._initial_queue.append_all(uplinks)
        self._has_left_sends = True

    def _have_sends_to_be_routed(self) -> bool:
        """Return whether sends were left to routing since the queue was last found empty.

        Messages without datapoints, such as responses to RPC requests, may be in the queue at any time. Sends may overtake them.
        """
        self._has_left_sends = self._has_left_sends and not self._initial_queue.is_empty()
        return self._has_left_sends

    async def _take_capacity(self, nbytes: int) -> bool:
        """Take capacity, in the order of the callers; return False if the send is to be dropped."""
        return self._capacity.try_take(nbytes) or await self._make_room(nbytes)

    async def _make_room(self, nbytes: int) -> bool:
        """Take capacity by the queue policy; return False if the send is to be dropped."""
        if self._policy is QueuePolicy.RAISE:
            raise self.full()
        if self._policy is QueuePolicy.DROP_NEWEST:
            return False
        if self._policy is QueuePolicy.DROP_OLDEST and self._drop_oldest_for(nbytes):
            return True
        await self._capacity.take(nbytes)
        return True

    def _drop_oldest_for(self, nbytes: int) -> bool:
        """Drop the oldest sends until capacity could be taken; return False if that is not enough."""
        while (oldest := self._take_oldest()) is not None:
            self.drop(oldest)
            if self._capacity.try_take(nbytes):
                return True
        return False


def _future_maker(loop: asyncio.AbstractEventLoop) -> Callable[[], DeliveryFuture]:
    """Return what creates futures of a loop."""
    if isinstance(loop, asyncio.BaseEventLoop) and type(loop).create_future is asyncio.BaseEventLoop.create_future:
        # What the method does, in less than half of the time.
        return partial(asyncio.Future, loop=loop)
    return loop.create_future


def _no_loop() -> DeliveryFuture:
    raise RuntimeError("the service was not started")
