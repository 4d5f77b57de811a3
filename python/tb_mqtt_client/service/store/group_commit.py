"""Writes accepted sends to the log, many in one commit, and notes which sends need no storing any more.

The rule: an unsettled send is held for the clock of the device or accepted (in memory only), in the running commit, or on disk. One
that is settled before its commit begins is never written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.store.bounds import Bounds
from tb_mqtt_client.service.store.log import SendLog, StoredSend
from tb_mqtt_client.service.store.thread import StoreThread
from tb_mqtt_client.service.store.unstamped import UnstampedSends

logger: ExtendedLogger = get_logger(__name__)

MAX_COMMIT_BYTES = 4 * 2**20
"""Encoded bytes of one commit, unless a single send has more. It bounds how long a send waits for the commit before its own."""
SETTLE_SECONDS = 1.0
"""Seconds after which settled sends are noted on disk if no other commit does it. A crash sends them again."""
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.5, 60.0
"""Seconds until a failed commit is repeated; they double with each failure."""


class GroupCommit:
    """The accepted sends that are not on disk yet, and the commits that write them."""

    def __init__(
        self,
        thread: StoreThread,
        log: SendLog,
        bounds: Bounds,
        interval: float,
        *,
        at_once: bool,
        on_written: Callable[[], None],
        is_memory_wanted: Callable[[], bool],
    ) -> None:
        """Create the commits of an open log.

        Args:
            thread: Where the log is used.
            log: The files.
            bounds: Refuses a commit for which there is no space.
            interval: Seconds after an accepted send until its commit.
            at_once: Whether a commit begins in the turn of the event loop in which a send was accepted.
            on_written: Called after each commit, successful or not.
            is_memory_wanted: Returns whether a sender waits for memory, which sends leave only when they are on disk.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._log = log
        self._bounds = bounds
        self._interval = interval
        self._at_once = at_once
        self._on_written = on_written
        self._is_memory_wanted = is_memory_wanted
        self._next = log.next_number
        self._unstamped = UnstampedSends(self._loop.time)
        self._accepted: dict[int, StoredSend] = {}
        self._committing: dict[int, StoredSend] = {}
        self._settled: list[int] = []
        self._behind: set[int] = set()
        """Numbers of sends that leave memory with their commit."""
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._timer: asyncio.Handle | None = None
        self._running: asyncio.Future[None] | None = None
        self._may_schedule = True
        """Whether the next accepted send has to schedule a commit: none is running or scheduled, except one for settled sends."""
        self._writes = True
        self._is_closed = False
        self.has_lost_files: bool = False
        """Whether the files were removed while they were open, so that no send is on disk."""
        self.unwritten_bytes: int = 0
        """Encoded bytes of the accepted sends that are not on disk."""
        self.commits: int = 0
        """The number of successful commits."""
        self.error: str = ""
        """Why the last commit failed; empty after a successful one."""
        self._retry_seconds = RETRY_SECONDS_MIN

    @property
    def unwritten_sends(self) -> int:
        """The number of accepted sends that are not on disk."""
        return len(self._accepted) + len(self._committing) + len(self._unstamped)

    def set_writes(self, writes: bool) -> None:
        """Write accepted sends on their own, or only when ``flush`` is called and when memory is wanted."""
        self._writes = writes
        if writes and self._accepted and self._may_schedule:
            self._schedule(0)

    def accept(self, encoded: EncodedUplink, priority: int = 0, expires_ms: int = 0) -> int:
        """Number a send and have it written. Return the number."""
        number = self._next
        self._next = number + 1
        self._accepted[number] = encoded, number, now_ms(), priority, expires_ms
        self.unwritten_bytes += encoded.nbytes
        if self._may_schedule and (self._writes or self._is_memory_wanted()):
            self._schedule(0 if self._at_once else self._interval)
        return number

    def hold(self, encoded: EncodedUplink, priority: int = 0, expires_ms: int = 0) -> int:
        """Number a send that awaits the clock of the device, and have it written after ``stamp``. Return the number."""
        number = self._next
        self._next = number + 1
        self._unstamped.hold((encoded, number, now_ms(), priority, expires_ms))
        self.unwritten_bytes += encoded.nbytes
        return number

    def stamp(self, stamped: Callable[[EncodedUplink], EncodedUplink]) -> None:
        """Have the sends written that were held for the clock of the device, which is set now.

        Args:
            stamped: Returns the data of a send with its times.
        """
        for held, send in self._unstamped.take_stamped(stamped, self._next):
            number, in_log = held[1], send[1]
            self._accepted[in_log] = send
            self.unwritten_bytes += send[0].nbytes - held[0].nbytes
            self._next = in_log + 1
            if number in self._waiters:
                self._waiters[in_log] = self._waiters.pop(number)
        if self._accepted and self._may_schedule and self._writes:
            self._schedule(0)

    def settle(self, number: int) -> None:
        """Note that a send needs no storing any more."""
        if len(self._unstamped) and (held := self._unstamped.remove(number)) is not None:
            self.unwritten_bytes -= held[0].nbytes
            self._wake(number)
            return
        number = self._unstamped.forget(number)
        if self._behind:
            self._behind.discard(number)
        send = self._accepted.pop(number, None)
        if send is not None:
            self.unwritten_bytes -= send[0].nbytes
        else:
            send = self._committing.pop(number, None)
            if send is not None:
                self.unwritten_bytes -= send[0].nbytes
            self._settled.append(number)
            if self._timer is None and self._may_schedule:
                self._schedule_settled()
        if self._waiters:
            self._wake(number)

    def is_on_disk(self, number: int) -> bool:
        """Return whether an unsettled send is on disk."""
        if number in self._unstamped or self.has_lost_files:
            return False
        number = self._unstamped.number_in_log(number)
        return number not in self._accepted and number not in self._committing

    def number_in_log(self, number: int) -> int:
        """Return the number of a send in the log, by which it is known from now on. It must not be held for the clock."""
        return self._unstamped.forget(number)

    def release(self, numbers: list[int]) -> list[int]:
        """Return the sends among these numbers in the log that are on disk. The others are released when they are."""
        on_disk = [number for number in numbers if self.is_on_disk(number)]
        if len(on_disk) < len(numbers):
            self._behind.update(number for number in numbers if not self.is_on_disk(number))
            if self._may_schedule:
                self._schedule(0)
        return on_disk

    def when_safe(self, number: int) -> asyncio.Future[None]:
        """Return a future that is resolved when a send is on disk, or settled."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.is_on_disk(number):
            future.set_result(None)
        else:
            self._waiters.setdefault(self._unstamped.number_in_log(number), []).append(future)
        return future

    def _wake(self, number: int) -> None:
        for waiter in self._waiters.pop(number, ()):
            if not waiter.done():
                waiter.set_result(None)

    # Commits.

    def _schedule_settled(self) -> None:
        self._timer = self._loop.call_later(SETTLE_SECONDS, self._due)

    def _schedule(self, seconds: float) -> None:
        self._may_schedule = False
        self._cancel_timer()
        if seconds:
            self._timer = self._loop.call_later(seconds, self._due)
        else:
            # Sends that are accepted in the same turn share the commit.
            self._timer = self._loop.call_soon(self._due)

    def _due(self) -> None:
        self._timer = None
        self._begin(all_accepted=False)

    def _begin(self, *, all_accepted: bool) -> None:
        """Begin a commit, of which there is none; with nothing to write, wait for the next send."""
        # All of them even if only some leave memory: numbers rise from commit to commit.
        writes = all_accepted or self._writes or self._behind or self._is_memory_wanted()
        batch = self._take_batch() if writes else {}
        settled, self._settled = self._settled, []
        if not batch and not settled:
            self._may_schedule = True
            return
        self._may_schedule = False
        self._committing = batch
        behind = [number for number in batch if number in self._behind] if self._behind else []
        work = partial(_write, self._log, self._bounds, list(batch.values()), settled, behind)
        self._running = self._thread.run(work)
        self._running.add_done_callback(partial(self._written, settled, behind))

    def _take_batch(self) -> dict[int, StoredSend]:
        if self.unwritten_bytes <= MAX_COMMIT_BYTES:
            batch, self._accepted = self._accepted, {}
            return batch
        batch, nbytes = {}, 0
        for number, send in self._accepted.items():
            if nbytes > MAX_COMMIT_BYTES:
                break
            batch[number] = send
            nbytes += send[0].nbytes
        for number in batch:
            del self._accepted[number]
        return batch

    def _written(self, settled: list[int], behind: list[int], running: asyncio.Future[None]) -> None:
        self._running = None
        batch, self._committing = self._committing, {}
        error = running.exception()
        if error is None:
            self._succeeded(batch, behind)
        else:
            # In their old order, before sends that were accepted meanwhile.
            self._accepted = batch | self._accepted
            self._settled = settled + self._settled
            self._failed(error)
        self._on_written()

    def _succeeded(self, batch: dict[int, StoredSend], behind: list[int]) -> None:
        self.commits += 1
        self._retry_seconds = RETRY_SECONDS_MIN
        if self.error:
            self.error = ""
            logger.info("The store works again: its files are written")
        self._behind.difference_update(behind)
        self.unwritten_bytes -= sum([send[0].nbytes for send in batch.values()])
        if self._waiters:
            for number in [number for number in self._waiters if self.is_on_disk(number)]:
                self._wake(number)
        if self._is_closed:
            return
        if (self._accepted and (self._writes or self._is_memory_wanted())) or self._behind:
            # While the commit was running, these sends have waited for a part of the interval at least.
            self._schedule(0 if self._at_once or self.unwritten_bytes > MAX_COMMIT_BYTES else self._interval)
        else:
            self._may_schedule = True
            if self._settled:
                self._schedule_settled()

    def _failed(self, error: BaseException) -> None:
        if not self.error:
            logger.error(
                "The store cannot be written (%s). Sends are in memory only until it works; the next attempt is in %g s",
                error,
                self._retry_seconds,
                exc_info=None if isinstance(error, OSError) else error,
            )
        self.error = str(error) or repr(error)
        if not self._is_closed:
            self._schedule(self._retry_seconds)
        self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)

    def not_noted(self, numbers: set[int]) -> set[int]:
        """Return which of these settled numbers the log does not know yet. Call this when no commit is running."""
        return numbers.intersection(self._settled)

    @property
    def holds_unstamped(self) -> bool:
        """Whether sends are held for the clock of the device."""
        return len(self._unstamped) > 0

    async def wait_stamped(self) -> None:
        """Wait until no send is held for the clock of the device."""
        await self._unstamped.wait_none_held()

    async def flush(self) -> None:
        """Write all sends that have been accepted until now, and all settled numbers; not those that are held for the clock.

        Raises:
            OSError: The disk failed. The sends are still in memory, and are written when it works again.
        """
        last = self._next - 1
        is_first = True
        while self._oldest_unwritten() <= last or (is_first and (self._settled or self._running is not None)):
            running = self._running
            if running is None:
                self._cancel_timer()
                self._begin(all_accepted=True)
                running = self._running
                is_first = False
                if running is None:
                    return
                await asyncio.wait([running])
                if (error := running.exception()) is not None:
                    raise error
            else:
                await asyncio.wait([running])

    async def check_place(self) -> None:
        """Check that the files are still there.

        Raises:
            OSError: They were removed, so no send counts as on disk any more.
        """
        checking = self._thread.run(self._bounds.check_place)
        await asyncio.wait([checking])
        self.has_lost_files = checking.exception() is not None
        checking.result()

    @property
    def has_unwritten(self) -> bool:
        """Whether sends wait for their commit; not those that are held for the clock."""
        return bool(self._accepted or self._committing)

    def _oldest_unwritten(self) -> float:
        for sends in (self._committing, self._accepted):
            for number in sends:
                return number
        return float("inf")

    @property
    def behind_sends(self) -> int:
        """The number of sends that leave memory with their commit."""
        return len(self._behind)

    def take_behind(self) -> list[StoredSend]:
        """Return the sends that were to leave memory with their commit, which do not leave it then."""
        behind, self._behind = self._behind, set()
        unwritten = self._committing | self._accepted
        return [unwritten[number] for number in sorted(behind) if number in unwritten]

    def is_being_written(self, number: int) -> bool:
        """Return whether the running commit has a send, so that it may be on disk or not."""
        return self._unstamped.number_in_log(number) in self._committing

    def close(self) -> None:
        """Begin no further commit."""
        self._is_closed = True
        self._may_schedule = False
        self._cancel_timer()

    def wake_all(self) -> None:
        """Resolve the futures of `when_safe` and end `wait_stamped`, because all sends have their results."""
        self._unstamped.end_waits()
        for number in list(self._waiters):
            self._wake(number)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _write(log: SendLog, bounds: Bounds, sends: list[StoredSend], settled: list[int], behind: list[int]) -> None:
    """Run in the thread of the store: write one commit."""
    if sends:
        bounds.check(sum([send[0].nbytes for send in sends]))
    log.commit(sends, settled)
    if behind:
        log.release(behind)
