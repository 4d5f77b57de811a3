"""The store of one client: assembles thread, commits and replay of an open log, and knows which caller waits for which send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import DeliveryFuture, SendReceipt
from tb_mqtt_client.common.exceptions import NotConnectedError, StoreFullError, StoreInUseError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.publish_result import Certainty, PublishResult
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.store import Durability, Store, WhenFull
from tb_mqtt_client.service.delivery.backlog import BacklogLeft
from tb_mqtt_client.service.delivery.device_clock import DeviceClock
from tb_mqtt_client.service.delivery.send_store import StoredQueues
from tb_mqtt_client.service.delivery.work_item import FUTURE, QueuedUplink
from tb_mqtt_client.service.store.bounds import Bounds, full_error
from tb_mqtt_client.service.store.due import DueSends
from tb_mqtt_client.service.store.forks import watch_forks
from tb_mqtt_client.service.store.group_commit import GroupCommit
from tb_mqtt_client.service.store.log import HIGH_PRIORITY, DroppedSend, OpenLog, SendLog, StoredSend
from tb_mqtt_client.service.store.receipts import Receipt, ReplayedReceipt, StoredDelivery
from tb_mqtt_client.service.store.released import ReleasedFutures
from tb_mqtt_client.service.store.replay import Replay
from tb_mqtt_client.service.store.space import StoreSpace
from tb_mqtt_client.service.store.thread import StoreThread

logger: ExtendedLogger = get_logger(__name__)

MAX_FILE_BYTES = 8 * 2**20
"""Bytes of one file of the log: a file can be deleted when all sends in it are settled."""
FILES = 16
"""The least number of files into which the allowed bytes of a store are divided, unless these are very small."""
CLOSE_SECONDS = 30.0
"""Seconds that the last commit and closing may take together. Sends that are not on disk by then are undelivered."""


class _Open:
    """An open log, and what belongs to it."""

    def __init__(
        self, thread: StoreThread, log: SendLog, commits: GroupCommit, replay: Replay, space: StoreSpace, due: DueSends
    ) -> None:
        self.thread = thread
        self.log = log
        self.commits = commits
        self.replay = replay
        self.space = space
        self.due = due
        self.lost_datapoints = log.lost_datapoints


class DiskStore:
    """Keeps the sends of one client on disk, see ``SendStore``."""

    def __init__(
        self,
        options: Store,
        owner: Callable[[], str],
        open_log: OpenLog,
        *,
        replays_in_order: bool = False,
        device_clock: DeviceClock | None = None,
    ) -> None:
        """Create the store of a client, which is opened by ``open``.

        Args:
            options: The options.
            owner: Returns the text that identifies platform and credential.
            open_log: Opens the files.
            replays_in_order: Whether new sends go behind the backlog.
            device_clock: Gives sends their time; ``None`` if they have it when they are accepted.
        """
        self.options = options
        self._clock = device_clock
        if device_clock is not None:
            device_clock.on_set = self.stamp
        self._owner = owner
        self._open_log = open_log
        self.waits: bool = options.durability is Durability.ALWAYS
        self._now: _Open | None = None
        self._open_lock = asyncio.Lock()
        self._unwanted: asyncio.Future[None] | None = None
        """Resolved when a log is closed whose caller was cancelled while it was opened."""
        self._queues: StoredQueues
        self._loop: asyncio.AbstractEventLoop
        self._is_online = False
        self._keeps = False
        self._closed_by: float | None = None
        """The time of the event loop by which the store has to be closed, once it is finished."""
        self._replays_in_order = replays_in_order
        self._releasing = 0
        """The number of sends that are being released in the thread."""
        self._left = 0
        """The number of sends that have left memory, if none of them was lost to damage since."""
        self._futures = ReleasedFutures()
        self._withdrawn: set[int] = set()
        """Numbers of withdrawn sends that the log does not know as settled, so that it may still return them."""
        self._is_forked = False
        """Whether this is a process that was forked while the store was open."""

    def attach(self, queues: StoredQueues) -> None:
        """Keep the sends of these queues."""
        self._queues = queues

    # The life of the store.

    @property
    def is_open(self) -> bool:
        """Whether the store is open, so that sends can be accepted."""
        return self._now is not None

    @property
    def _parts(self) -> _Open:
        if self._now is None:
            self._require_own_process()
            raise RuntimeError("the store is not open")
        return self._now

    def leave_to_parent(self) -> None:
        """Note that this is a process that was forked while the store was open: the parent has it."""
        self._now = None
        self._is_forked = True

    def _require_own_process(self) -> None:
        if self._is_forked:
            raise StoreInUseError(
                f"the store {self.options.path} belongs to the process that this one was forked from: start processes with the "
                "method spawn or forkserver, or create the client after the fork"
            )

    async def open(self) -> None:
        """Open the files in the thread of the store, and count what is in them; do nothing if they are open.

        Raises:
            OSError: The store cannot be opened; a ``StoreError`` if another process has it, or if it is not a store of this client.
        """
        self._require_own_process()
        async with self._open_lock:
            await self._wait_unwanted()
            if self._now is None:
                await self._open()

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        thread = StoreThread()
        options = self.options
        largest = max(min(MAX_FILE_BYTES, options.max_bytes // FILES), 64 * 1024)
        opening = thread.run(partial(self._open_log, options.path, self._owner(), largest))
        try:
            log = await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._unwanted = self._loop.create_future()
            opening.add_done_callback(partial(_close_unwanted, thread, self._unwanted))
            raise
        except BaseException:
            thread.end(waits=True)
            raise
        self._keeps = False
        bounds = Bounds(options, log)
        commits = GroupCommit(
            thread,
            log,
            bounds,
            options.commit_interval,
            at_once=self.waits,
            on_written=self._written,
            is_memory_wanted=self._queues.is_memory_wanted,
        )
        replay = Replay(
            thread,
            log,
            options.max_age,
            self._replayed,
            self._dropped,
            self._queues.bytes_set_aside,
            in_order=self._replays_in_order,
        )
        space = StoreSpace(
            options,
            thread,
            log,
            bounds,
            commits,
            is_online=lambda: self._is_online,
            on_dropped=self._dropped,
            on_measured=self._note_space,
        )
        due = DueSends(thread, log, options.max_age, self._dropped)
        self._now = _Open(thread, log, commits, replay, space, due)
        watch_forks(self)
        self._left = log.backlog_sends
        self._withdrawn.clear()
        self._apply_online()
        for name in log.obstacles:
            text = "%s in the store %s is not a file: it is moved to the folder quarantine of the store, if that is possible"
            logger.error(text, name, options.path)
        if log.damaged_places:
            logger.error(
                "The store %s has %d damaged places (see its folder quarantine). Datapoints lost, as far as known: %d",
                options.path, log.damaged_places, log.lost_datapoints,
            )  # fmt: skip
        if log.backlog_sends:
            logger.info("Found %d datapoints of an earlier client in the store %s", log.backlog_datapoints, options.path)
            self._queues.counter.recover(log.backlog_datapoints)
            due.arm()

    async def _wait_unwanted(self) -> None:
        """Wait until a log is closed whose caller was cancelled."""
        if self._unwanted is not None:
            await asyncio.wait([self._unwanted])
            self._unwanted = None

    def set_online(self, is_online: bool) -> None:
        """Replay the backlog while there is a session; with durability "spill", write while there is none."""
        self._is_online = is_online
        if self._now is not None:
            self._apply_online()
            self._note_space()

    def _apply_online(self) -> None:
        parts = self._parts
        parts.commits.set_writes(not self._is_online or self.options.durability is not Durability.SPILL)
        parts.replay.set_online(self._is_online)

    async def finish(self) -> None:
        """Write everything to disk. From now on, receipts that get a result stay in the store."""
        parts = self._parts
        parts.replay.close()
        parts.due.close()
        self._closed_by = self._loop.time() + CLOSE_SECONDS
        try:
            async with asyncio.timeout_at(self._closed_by):
                await parts.commits.check_place()
                await parts.commits.flush()
        except TimeoutError:
            logger.error("The store %s was not written within %g s: what it lacks is undelivered", self.options.path, CLOSE_SECONDS)  # noqa: TRY400
        except OSError as error:
            logger.error("The store %s cannot be written (%s): what it lacks is undelivered", self.options.path, error)  # noqa: TRY400
        finally:
            self._keeps = True
            parts.commits.close()

    async def close(self) -> None:
        """Close the files. Results of sends that are on disk only are set to kept."""
        parts, self._now = self._now, None
        if parts is None:
            await self._wait_unwanted()
            return
        parts.commits.close()
        parts.replay.close()
        parts.due.close()
        parts.space.close()
        self._leave_unwritten(parts)
        self._keep_released(parts)
        parts.commits.wake_all()
        closing = parts.thread.run(parts.log.close)
        closed_by, self._closed_by = self._closed_by, None
        seconds = CLOSE_SECONDS if closed_by is None else max(0.0, closed_by - self._loop.time())
        try:
            await asyncio.wait([closing], timeout=seconds)
        finally:
            parts.thread.end(waits=closing.done())
        if not closing.done():
            logger.error("The store %s was not closed within %g s: its disk does not respond", self.options.path, CLOSE_SECONDS)
        elif (error := closing.exception()) is not None:
            # Only settled sends are not noted on disk: they are sent again.
            logger.error("The store %s cannot be closed in order: %s", self.options.path, error)

    def _leave_unwritten(self, parts: _Open) -> None:
        """Resolve the sends that have left the queues, and that the disk has not taken."""
        for encoded, number, _, _, _ in parts.commits.take_behind():
            self._queues.counter.leave_undelivered(encoded.datapoints)
            if (delivery := self._futures.take(number)) is not None:
                _resolve(delivery, LocalReasonCode.NOT_DELIVERED, self._certainty_of_unwritten(parts, number))

    def _certainty_of_unwritten(self, parts: _Open, number: int) -> Certainty:
        # A disk that has not responded may still write the send, and the next client would send it.
        return Certainty.UNKNOWN if parts.commits.is_being_written(number) else Certainty.NEVER_SENT

    def _keep_released(self, parts: _Open) -> None:
        """Resolve the futures of sends that have left memory."""
        counter = self._queues.counter
        if parts.commits.has_lost_files:
            counter.leave_undelivered(counter.queued)
            outcome = LocalReasonCode.NOT_DELIVERED, Certainty.NEVER_SENT
        else:
            counter.keep(counter.queued)
            outcome = LocalReasonCode.KEPT, Certainty.KEPT
        for delivery in self._futures.take_all():
            _resolve(delivery, *outcome)

    # Accepting, see `SendStore`.

    def create_delivery(self, receiver: SendReceipt | None = None) -> DeliveryFuture:
        """Return the future of a new send; ``receiver`` is what the program gets in its place."""
        return StoredDelivery(self, receiver, loop=self._loop)

    def is_receipt_of(self, receipt: SendReceipt, future: object) -> bool:
        """Return whether a receipt is that of a send, for which the program has this future or receiver."""
        return (
            isinstance(receipt, Receipt)
            and receipt.delivery is not None
            and (receipt.delivery is future or receipt.delivery.receiver is future)
        )

    def is_own(self, receipt: SendReceipt) -> TypeGuard[DeliveryFuture]:
        """Return whether a receipt is a future that ``create_delivery`` has returned."""
        return isinstance(receipt, StoredDelivery)

    def accept(
        self, encoded: EncodedUplink, delivery: DeliveryFuture, priority: int = 0, expires_ms: int = 0
    ) -> tuple[Receipt, int]:
        """Take over a send, which is written to disk later. Return its receipt, and its number among all sends of the store."""
        assert isinstance(delivery, StoredDelivery)
        commits = self._parts.commits
        if self._awaits_clock(encoded):
            number = commits.hold(encoded, priority, expires_ms)
        else:
            # A send that was held may have waited for space while the clock was set.
            stamped = encoded if self._clock is None else self._clock.stamped(encoded)
            number = commits.accept(stamped, priority, expires_ms)
        delivery.number = number
        delivery.datapoints = encoded.datapoints
        delivery.nbytes = encoded.nbytes
        return Receipt(self, number, delivery), number

    def _awaits_clock(self, encoded: EncodedUplink) -> bool:
        return self._clock is not None and not self._clock.is_credible and encoded.awaits_clock

    def goes_behind(self, encoded: EncodedUplink) -> bool:
        """Return whether a new send must not overtake the backlog, so that it has to be released at once."""
        parts = self._parts
        if self._awaits_clock(encoded):
            # It stays in memory, because it cannot be written before it has its time.
            return False
        if parts.replay.error:
            # The backlog cannot be read: new data must not wait for it.
            return False
        if self._replays_in_order:
            return parts.commits.behind_sends > 0 or self._has_older(parts)
        return encoded.attribute_count > 0 and (parts.commits.behind_sends > 0 or self._has_older(parts))

    def _has_older(self, parts: _Open) -> bool:
        """Return whether sends on disk have to be read before those that go behind them."""
        log = parts.log
        on_disk = log.backlog_sends if self._replays_in_order else log.backlog_attribute_sends
        return on_disk > 0 or parts.replay.is_reading or self._releasing > 0

    def has_space(self, nbytes: int) -> bool:
        """Return whether a send fits in the store."""
        # Without a store that is open, the intake raises an error of its own.
        return self._now is None or self._now.space.has_space(nbytes)

    @property
    def drops_newest(self) -> bool:
        """Whether a send that does not fit is dropped."""
        return self.options.on_full is WhenFull.DROP_NEWEST

    def full_error(self) -> StoreFullError:
        """Return the error of a send that does not fit and does not wait."""
        return full_error(self.options)

    async def make_space(self, nbytes: int, release_oldest: Callable[[], int]) -> bool:
        """Wait, raise or drop until a send fits, as the user chose. Return False if the send itself is to be dropped.

        Raises:
            StoreFullError: The send does not fit.
        """
        return self._now is None or await self._now.space.make(nbytes, release_oldest)

    def _written(self) -> None:
        """Note that a commit has ended."""
        if self._withdrawn and self._now is not None:
            self._withdrawn = self._now.commits.not_noted(self._withdrawn)
        self._take_behind()
        self._note_space()

    def _take_behind(self) -> None:
        """Queue the sends that wait for a failing disk behind the backlog, when they no longer have to wait for the backlog."""
        parts = self._now
        if parts is None or not parts.commits.error or (self._has_older(parts) and not parts.replay.error):
            return
        if behind := parts.commits.take_behind():
            # They would wait for a disk that may never work again.
            self._left -= len(behind)
            terms = self._queues.backlog_terms
            self._queues.queue_backlog(
                [
                    (
                        encoded,
                        Receipt(self, number, self._futures.take(number)),
                        number,
                        terms(accepted_ms, expires_ms, is_urgent=_is_urgent(encoded, priority)),
                    )
                    for encoded, number, accepted_ms, priority, expires_ms in behind
                ]
            )

    def _note_space(self) -> None:
        """Note that there may be more space, or other sends on disk only."""
        if (parts := self._now) is not None:
            parts.space.wake()
            parts.replay.read_more()
            parts.due.arm()
            self._queues.store_changed()

    async def commit(self) -> bool:
        """Write all accepted sends to disk. Return False if that failed."""
        if self._now is None:
            return False
        try:
            # Not `flush`, which may wait for the clock of the device.
            await self._now.commits.flush()
        except OSError:
            # Reported by the commits, which repeat it.
            return False
        return self._now is not None

    def stamp(self) -> None:
        """Write the sends that were held for the clock of the device, which is set now."""
        if self._now is not None and self._clock is not None:
            self._now.commits.stamp(self._clock.stamped)

    async def flush(self) -> None:
        """Write all sends that have been accepted until now to disk; those that are held for the clock when it is set.

        Raises:
            OSError: The disk failed.
            NotConnectedError: The client was stopped before the clock was set.
        """
        parts = self._now
        if parts is None:
            return
        await parts.commits.flush()
        if parts.commits.holds_unstamped:
            await parts.commits.wait_stamped()
            if self._now is not parts or self._keeps:
                raise NotConnectedError("the client was stopped before the clock of the device was set: held sends are not stored")
            await parts.commits.flush()

    def when_safe(self, delivery: DeliveryFuture) -> asyncio.Future[None]:
        """Return a future that is resolved when a send is on disk, or has its result."""
        if isinstance(delivery, StoredDelivery) and delivery.number and self._now is not None:
            return self._now.commits.when_safe(delivery.number)
        safe: asyncio.Future[None] = self._loop.create_future()
        safe.set_result(None)
        return safe

    def read_more(self) -> None:
        """Note that further sends may be read back, because fewer are set aside, or more of those in memory are."""
        if self._now is not None:
            self._now.replay.read_more()

    def is_on_disk(self, number: int) -> bool:
        """Return whether an unsettled send is on disk."""
        return self._now is not None and self._now.commits.is_on_disk(number)

    def holds(self, receipt: object) -> bool:
        """Return whether the unsettled send of a receipt is on disk."""
        return isinstance(receipt, Receipt) and self.is_on_disk(receipt.number)

    # Results, see `Keeper`.

    def settle(self, receipt: Receipt, result: PublishResult) -> PublishResult:
        """Note that a send has its result. Return the result that its caller gets."""
        parts = self._now
        if parts is None:
            return result
        if not self._keeps:
            parts.commits.settle(receipt.number)
            # Sends that are settled before their commit need no space, and no commit wakes those that wait for it.
            parts.space.wake()
            return result
        if parts.commits.is_on_disk(receipt.number):
            return result
        # It was to be kept, and could not be written.
        lost = PublishResult(
            result.topic, result.qos, result.message_id, result.payload_size, LocalReasonCode.NOT_DELIVERED, result.datapoints_count
        )
        return lost.with_certainty(Certainty.UNKNOWN if result.topic else self._certainty_of_unwritten(parts, receipt.number))

    # Leaving memory, and returning to it.

    def release(self, uplinks: list[QueuedUplink]) -> None:
        """Note that these sends have left memory. Those that are not on disk yet leave it when they are."""
        parts = self._parts
        self._left += len(uplinks)
        numbers: list[int] = []
        for uplink in uplinks:
            receipt = uplink[FUTURE]
            assert isinstance(receipt, Receipt)
            delivery = receipt.delivery
            # From now on, only the number in the log leads to it.
            receipt.number = parts.commits.number_in_log(receipt.number)
            numbers.append(receipt.number)
            if delivery is not None:
                delivery.number = receipt.number
            if delivery is not None and not delivery.done():
                self._futures.add(delivery)
            if isinstance(receipt, ReplayedReceipt):
                receipt.forget()
        on_disk = parts.commits.release(numbers)
        if on_disk:
            self._releasing += len(on_disk)
            parts.thread.run(partial(parts.log.release, on_disk)).add_done_callback(partial(self._released, len(on_disk)))

    def _released(self, sends: int, releasing: asyncio.Future[None]) -> None:
        self._releasing -= sends
        # An error is a defect, which the event loop reports.
        releasing.result()
        self._note_space()

    def hold(self, delivery: StoredDelivery) -> None:
        """Keep the future of a send that has left memory: something waits for it."""
        self._futures.hold(delivery)

    def let_go(self, delivery: StoredDelivery) -> None:
        """Forget the future of a send: nothing waits for it any more."""
        self._futures.let_go(delivery)

    def withdraw(self, future: object) -> bool:
        """Remove a send that has left memory, and resolve it as dropped. Return False if there is no such send."""
        parts, delivery = self._now, self._futures.find(future)
        if parts is None or self._keeps or delivery is None:
            return False
        number = delivery.number
        self._futures.take(number)
        self._left -= 1
        self._withdrawn.add(number)
        parts.commits.settle(number)
        self._queues.counter.drop(delivery.datapoints)
        _resolve(delivery, LocalReasonCode.DROPPED, Certainty.NEVER_SENT)
        self._note_space()
        return True

    def _without_withdrawn(self, parts: _Open, sends: list[StoredSend]) -> list[StoredSend]:
        wanted = []
        for send in sends:
            if send[1] in self._withdrawn:
                parts.replay.settled(send[0].nbytes)
            else:
                wanted.append(send)
        return wanted

    def _replayed(self, sends: list[StoredSend]) -> None:
        parts = self._now
        if parts is None or self._keeps:
            return
        if self._withdrawn:
            sends = self._without_withdrawn(parts, sends)
        self._left -= len(sends)
        self._note_lost(parts)
        if not sends:
            self._take_behind()
            self._queues.store_changed()
            return
        settled, terms = parts.replay.settled, self._queues.backlog_terms
        self._queues.queue_backlog(
            [
                (
                    encoded,
                    ReplayedReceipt(self, number, self._futures.take(number), encoded.nbytes, settled),
                    number,
                    terms(accepted_ms, expires_ms, is_urgent=_is_urgent(encoded, priority)),
                )
                for encoded, number, accepted_ms, priority, expires_ms in sends
            ]
        )
        self._take_behind()

    def _note_lost(self, parts: _Open) -> None:
        """Count datapoints that were lost by damage since the store was opened, or since the last call."""
        lost, parts.lost_datapoints = parts.log.lost_datapoints - parts.lost_datapoints, parts.log.lost_datapoints
        if lost > 0:
            text = "The store %s is damaged: %d datapoints in it cannot be read, and count as dropped"
            logger.error(text, self.options.path, lost)
            self._queues.counter.drop(min(lost, self._queues.counter.queued))

    def _dropped(self, dropped: list[DroppedSend]) -> None:
        if self._now is None:
            # The results of these sends are decided.
            return
        if self._withdrawn:
            dropped = [send for send in dropped if send[0] not in self._withdrawn]
        self._left -= len(dropped)
        for number, datapoints, has_expired in dropped:
            self._queues.counter.drop(datapoints)
            if (delivery := self._futures.take(number)) is not None:
                code = LocalReasonCode.EXPIRED if has_expired else LocalReasonCode.DROPPED
                _resolve(delivery, code, Certainty.NEVER_SENT)
        if dropped:
            self._note_space()

    # Counts.

    @property
    def backlog_sends(self) -> int:
        """The number of sends that have left memory."""
        parts = self._now
        if parts is None:
            return 0
        # The thread may have released the last two already, so that they are in the first one, too.
        at_most = parts.log.backlog_sends + self._releasing + parts.commits.behind_sends
        return min(self._left, at_most)

    def backlog_left(self) -> BacklogLeft:
        """Return the part of the backlog that is on disk only. Sends that are being released or read are in ``sends`` only."""
        if self._now is None:
            return BacklogLeft()
        log = self._now.log
        return BacklogLeft(self.backlog_sends, log.backlog_datapoints, log.backlog_bytes, log.backlog_oldest_ms or 0)

    @property
    def has_unwritten(self) -> bool:
        """Whether a commit would write sends."""
        return self._now is not None and self._now.commits.has_unwritten

    @property
    def has_backlog(self) -> bool:
        """Whether sends have left memory, or are being read."""
        parts = self._now
        return parts is not None and (self.backlog_sends > 0 or parts.replay.is_reading)

    def health(self) -> dict[str, Any]:
        """Return the state of the store as JSON values."""
        parts = self._now
        return {
            "path": self.options.path,
            "open": parts is not None,
            "durability": self.options.durability.value,
            "error": "" if parts is None else parts.commits.error or parts.replay.error,
            "bytes": 0 if parts is None else parts.log.disk_bytes,
            "unwritten_sends": 0 if parts is None else parts.commits.unwritten_sends,
            "backlog_sends": self.backlog_sends,
            "commits": 0 if parts is None else parts.commits.commits,
            "damaged_places": 0 if parts is None else parts.log.damaged_places,
        }


def _is_urgent(encoded: EncodedUplink, priority: int) -> bool:
    # Attributes keep their order.
    return priority == HIGH_PRIORITY and not encoded.attribute_count


def _resolve(delivery: StoredDelivery, code: LocalReasonCode, certainty: Certainty) -> None:
    if not delivery.done():
        result = PublishResult("", 1, -1, delivery.nbytes, code, delivery.datapoints)
        delivery.set_result(result.with_certainty(certainty))


def _close_unwanted(thread: StoreThread, closed: asyncio.Future[None], opening: asyncio.Future[SendLog]) -> None:
    """Close a log that was opened for a caller who was cancelled."""
    if opening.exception() is None:
        thread.run(opening.result().close).add_done_callback(partial(_end_thread, thread, closed))
    else:
        thread.end(waits=True)
        closed.set_result(None)


def _end_thread(thread: StoreThread, closed: asyncio.Future[None], closing: asyncio.Future[None]) -> None:
    if (error := closing.exception()) is not None:
        logger.error("A store that was opened for nothing cannot be closed in order: %s", error)
    thread.end(waits=True)
    closed.set_result(None)
