"""Accepts sends from any thread: they cross to the event loop in batches, with one wake-up of the loop for each batch.

The rule: the sends of one thread are accepted in their order, and each is accepted or its caller gets an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import SendReceipt
from tb_mqtt_client.common.exceptions import NotConnectedError, QueueFullError
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.common.turn import Turn
from tb_mqtt_client.constants.option_values import QueuePolicy
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.intake import Intake, Submission
from tb_mqtt_client.service.delivery.terms import SendTerms
from tb_mqtt_client.service.delivery.until_stored import UntilStored

MAX_CROSSING = 10_000
"""Sends that may cross to the event loop at a time; further callers wait, which lets the loop run."""
MAX_CROSSING_BYTES = 64 * 1024 * 1024
"""Encoded bytes that may cross at a time, if all sends are as large as the one that is checked."""


class Submissions:
    """The sends that other threads have made, and that the event loop has not accepted yet.

    ``put`` uses a deque without a lock of its own: appending to it and taking from it are atomic. An entry that is not a tuple is
    the turn of a caller that waits until the entries before it are accepted.
    """

    def __init__(self, intake: Intake, capacity: QueueCapacity, policy: QueuePolicy, tasks: Tasks) -> None:
        """Create the submissions of one client.

        Args:
            intake: Accepts the sends, in the event loop.
            capacity: The capacity of the queues, which other threads only read.
            policy: What happens when the queues are full.
            tasks: Owns the task that waits for capacity.
        """
        self._intake = intake
        self._capacity = capacity
        self._policy = policy
        self._tasks = tasks
        self._entries: deque[Submission | Turn] = deque()
        # Whether the loop will look at the entries. Cleared before it takes them, so that a later entry wakes it again.
        self._woken = False
        self._wake_loop: Callable[[Callable[[], None]], object] = _no_loop
        self._closed = True
        self._waiting: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_empty(self) -> bool:
        """Whether no send waits to be accepted."""
        return not self._entries and self._waiting is None

    # In the event loop.

    def open(self) -> None:
        """Accept sends, in the running event loop."""
        self._wake_loop = asyncio.get_running_loop().call_soon_threadsafe
        self._closed = False

    def close(self) -> None:
        """Accept nothing more, and resolve the sends that are not accepted yet as undelivered."""
        self._closed = True
        while self._entries:
            entry = self._entries.popleft()
            if isinstance(entry, Turn):
                entry.give()
            else:
                self._intake.leave_undelivered(*entry)

    def accept_now(self) -> None:
        """Accept the waiting sends in their order, until there is no capacity."""
        self._woken = False
        if self._waiting is not None:
            # The task of ``_wait_for_capacity`` continues.
            return
        if self._entries and not self._closed:
            self._intake.mark_if_due()
        entries = self._take_entries()
        while self._waiting is None:
            entry = next(entries, None) if self._closed else self._intake.accept_plain(entries)
            if entry is None:
                return
            self._accept_one(entry)

    def _take_entries(self) -> Iterator[Submission | Turn]:
        """Remove and yield the entries that are there now."""
        entries = self._entries
        for _ in range(len(entries)):
            try:
                yield entries.popleft()
            except IndexError:
                # A caller took its entry back meanwhile.
                return

    def _accept_one(self, entry: Submission | Turn) -> None:
        """Accept a send, or let its task wait for capacity; wake a caller that waits until the entries before it are accepted."""
        if isinstance(entry, Turn):
            entry.give()
        elif self._closed:
            self._intake.leave_undelivered(*entry)
        elif not self._intake.accept_for(*entry):
            self._waiting = self._tasks.keep(self._wait_for_capacity(entry), "submissions", may_return=True)
            self._waiting.add_done_callback(self._waited)

    async def _wait_for_capacity(self, submission: Submission) -> None:
        """Accept a send as soon as there is capacity for it. Younger sends wait behind it."""
        try:
            await self._intake.wait_for(*submission)
        except BaseException as error:
            self._intake.leave_undelivered(*submission)
            if not isinstance(error, NotConnectedError):
                raise

    def _waited(self, _task: asyncio.Task[None]) -> None:
        self._waiting = None
        if not self._closed:
            self.accept_now()

    def _start_waiting_for_share(self, uplink: EncodedUplink, turn: Turn) -> None:
        if self._closed:
            turn.give()
            return
        work = self._intake.wait_for_share(uplink)
        # Also set if the task is cancelled, at the end of the client.
        self._tasks.start(work, "submission", runs_callbacks=False).add_done_callback(lambda _: turn.give())

    # In any thread.

    def put(
        self, uplink: EncodedUplink, receiver: SendReceipt, timeout: float | None = None, terms: SendTerms | None = None
    ) -> None:
        """Hand a send over to the event loop. While the queues are full, wait or raise, by the queue policy.

        With a store of the durability "always", wait until the send is on disk, or has its result.

        Args:
            uplink: The encoded data.
            receiver: Gets the result, in the event loop.
            timeout: Seconds to wait while the queues are full, and for the disk; ``None`` for no limit.
            terms: Priority and expiry; ``None`` for a send without any.

        Raises:
            NotConnectedError: The client is stopped, was never started, or has failed.
            QueueFullError: The queues are full, and the policy is to raise. Or this would have to wait, and the calling
                thread runs an event loop, which must not be blocked.
            TimeoutError: The queues are still full after ``timeout`` seconds. The data is not sent. Or the data is not on disk by
                then; it is in memory, and is sent and written nevertheless.
        """
        intake, entries, capacity, nbytes = self._intake, self._entries, self._capacity, uplink.nbytes
        crossing = len(entries)
        # Most sends need not wait, and pass without a further call. The comparisons are those of `_seems_full`.
        if (
            terms is None
            and not intake.waits_for_disk
            and not intake.watches_share
            and self._waiting is None
            and crossing < MAX_CROSSING
            and crossing * nbytes <= MAX_CROSSING_BYTES
            and capacity.sends + crossing < capacity.max_sends
            and capacity.nbytes + nbytes <= capacity.max_bytes
        ):
            entry = (uplink, receiver, terms)
            entries.append(entry)
            if not self._woken:
                self._wake(self.accept_now)
            if self._closed:
                self._refuse(entry)
            return
        if not intake.waits_for_disk:
            self._put(uplink, receiver, timeout, terms)
            return
        _require_no_running_loop("With the durability 'always', a send waits for the disk")
        stored = UntilStored(receiver)
        end = None if timeout is None else monotonic() + timeout
        self._put(uplink, stored, timeout, terms)
        if not stored.wait(None if end is None else max(0.0, end - monotonic())):
            raise TimeoutError(
                f"the data is not on disk after {timeout:g} s; it is in memory, and is sent and written nevertheless"
            )

    def _put(self, uplink: EncodedUplink, receiver: SendReceipt, timeout: float | None, terms: SendTerms | None) -> None:
        if self._intake.watches_share and self._intake.is_share_used_up(uplink):
            self._wait_for_share(uplink, timeout)
        is_full = self._seems_full(uplink.nbytes)
        if is_full:
            self._check_may_wait()
        entry = (uplink, receiver, terms)
        self._entries.append(entry)
        turn = None
        if is_full:
            turn = Turn()
            self._entries.append(turn)
        if not self._woken:
            self._wake(self.accept_now)
        if self._closed:
            self._refuse(entry)
        if turn is not None and not turn.wait(timeout) and self._take_back(entry):
            raise _still_full(timeout)

    def _wake(self, work: Callable[[], None]) -> None:
        try:
            self._woken = True
            self._wake_loop(work)
        except BaseException:
            # Ctrl-C may interrupt this at any place. An entry must not wait for a loop that nothing has woken.
            self._woken = False
            self._wake_loop(self.accept_now)
            raise

    def _seems_full(self, nbytes: int) -> bool:
        """Return whether a caller has to wait: the loop is behind, or there is no capacity, as far as another thread can see.

        The event loop decides. If it finds no capacity for a send that this lets pass, the send waits without its caller.
        """
        crossing, capacity = len(self._entries), self._capacity
        if crossing >= MAX_CROSSING or crossing * nbytes > MAX_CROSSING_BYTES or self._waiting is not None:
            return True
        sends = capacity.sends + crossing
        if sends < capacity.max_sends and capacity.nbytes + nbytes <= capacity.max_bytes:
            return False
        return sends > capacity.set_aside() and self._policy in {QueuePolicy.WAIT, QueuePolicy.RAISE}

    def _check_may_wait(self) -> None:
        """Raise ``QueueFullError`` if the caller must not wait until its send is accepted."""
        is_behind = self._waiting is None and self._capacity.sends < self._capacity.max_sends
        if self._policy is QueuePolicy.RAISE and not (is_behind and len(self._entries) >= MAX_CROSSING):
            raise self._intake.full()
        _require_no_running_loop("The queue is full")

    def _wait_for_share(self, uplink: EncodedUplink, timeout: float | None) -> None:
        """Wait while data of refused sub-devices takes all of the queue that it may take."""
        if self._policy is QueuePolicy.RAISE:
            raise self._intake.share_used_up(uplink)
        if self._policy is not QueuePolicy.WAIT:
            # The event loop drops data.
            return
        _require_no_running_loop("The queue is full")
        turn = Turn()
        self._wake_loop(partial(self._start_waiting_for_share, uplink, turn))
        if not turn.wait(timeout):
            raise _still_full(timeout)

    def _refuse(self, entry: Submission) -> None:
        """Raise the error of a closed client, unless its end has already resolved the send."""
        if self._take_back(entry):
            raise NotConnectedError("the client is stopped: connect() or start() must be called before anything is sent")

    def _take_back(self, entry: Submission) -> bool:
        try:
            self._entries.remove(entry)
        except ValueError:
            return False
        return True


def _require_no_running_loop(cause: str) -> None:
    if asyncio._get_running_loop() is not None:
        raise QueueFullError(f"{cause}, and this thread runs an event loop, which must not be blocked: send from another thread")


def _still_full(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"the queues are still full after {timeout:g} s: the data is not sent")


def _no_loop(_callback: Callable[[], None]) -> None: ...
