"""Reads the backlog, the sends that are on disk only, back into the queues, as much at a time as they send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.service.store.due import drop_due
from tb_mqtt_client.service.store.log import ATTRIBUTES, HIGH, LOW, NORMAL, DroppedSend, SendLog, StoredSend
from tb_mqtt_client.service.store.thread import StoreThread

logger: ExtendedLogger = get_logger(__name__)

READ_BYTES, READ_SENDS = 512 * 1024, 2000
"""The size of one read. More sends would keep the event loop busy for too long."""
MAX_IN_MEMORY = 4 * 2**20
"""Bytes of unsettled sends from the backlog in memory at which reading pauses until half of them are settled."""
RETRY_SECONDS = 5.0
"""Seconds until a failed read is repeated."""
IN_ORDER: Sequence[Sequence[str]] = ((ATTRIBUTES,), (HIGH, NORMAL, LOW))
"""What is read if the backlog keeps its order. Newer attributes wait behind those of the backlog, so these go first."""
BY_PRIORITY: Sequence[Sequence[str]] = ((HIGH,), (ATTRIBUTES,), (NORMAL,), (LOW,))
"""What is read otherwise: the first ones that the log has."""
LOW_FIRST: Sequence[Sequence[str]] = ((LOW,), *BY_PRIORITY)
"""What is read now and then, so that sends of low priority do not wait forever."""
READS_BETWEEN = 20
"""One read of this number takes sends of low priority first."""


class Found(NamedTuple):
    """The result of one read."""

    sends: list[StoredSend]
    dropped: list[DroppedSend]
    """Sends that were removed because they have expired or are too old."""


class Replay:
    """Reads while there is a session."""

    def __init__(
        self,
        thread: StoreThread,
        log: SendLog,
        max_age: float | None,
        on_read: Callable[[list[StoredSend]], None],
        on_dropped: Callable[[list[DroppedSend]], None],
        set_aside: Callable[[], int | None],
        *,
        in_order: bool = False,
    ) -> None:
        """Create the replay of an open log.

        Args:
            thread: Where the log is used.
            log: The files.
            max_age: Seconds after which sends are removed instead of read; ``None`` for no limit.
            on_read: Called with the sends of a read, which are in memory only from now on.
            on_dropped: Called with removed sends.
            set_aside: Returns the bytes of sends that stay in memory for any time because the platform refuses their devices;
                ``None`` if they take all the capacity that they may take.
            in_order: Whether the priorities of the sends do not count.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._log = log
        self._max_age = max_age
        self._on_read = on_read
        self._on_dropped = on_dropped
        self._set_aside = set_aside
        self._in_order = in_order
        self._reads = 0
        self._reading: asyncio.Future[Found] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_online = False
        self._is_closed = False
        self.bytes_in_memory: int = 0
        """Bytes of sends that were read and are not settled."""
        self.error: str = ""
        """Why the last read failed; empty after a successful one."""

    @property
    def is_reading(self) -> bool:
        """Whether sends are being read, which are neither in the backlog nor in the queues."""
        return self._reading is not None

    def set_online(self, is_online: bool) -> None:
        """Read while there is a session."""
        self._is_online = is_online
        self.read_more()

    def settled(self, nbytes: int) -> None:
        """Note that a send that was read has its result."""
        self.bytes_in_memory -= nbytes
        if self._reading is None and self._log.backlog_sends and self.bytes_in_memory <= MAX_IN_MEMORY // 2:
            self.read_more()

    def read_more(self) -> None:
        """Read the next sends if there are any, and if they are wanted."""
        if self._reading is None and self._timer is None and self._log.backlog_sends and self._wants_more():
            self._reading = self._thread.run(partial(_read, self._log, self._max_age, self._next_order()))
            self._reading.add_done_callback(self._read)

    def _next_order(self) -> Sequence[Sequence[str]]:
        if self._in_order:
            return IN_ORDER
        self._reads += 1
        return BY_PRIORITY if self._reads % READS_BETWEEN else LOW_FIRST

    def _wants_more(self) -> bool:
        if not self._is_online or self._is_closed:
            return False
        # Data of refused devices must not be in the way of the data of all others.
        set_aside = self._set_aside()
        return set_aside is not None and self.bytes_in_memory - set_aside < MAX_IN_MEMORY

    def _read(self, reading: asyncio.Future[Found]) -> None:
        self._reading = None
        error = reading.exception()
        if error is None:
            found = reading.result()
            self.error = ""
            self.bytes_in_memory += sum([send[0].nbytes for send in found.sends])
            if found.dropped:
                self._on_dropped(found.dropped)
            try:
                self._on_read(found.sends)
            finally:
                # Also after an unexpected error, which the event loop reports: these sends stay on disk for the next client. An
                # empty read with a backlog would only be repeated: it was lost to damage, or is being released.
                if found.sends or found.dropped:
                    self.read_more()
            return
        if not self.error:
            cause = None if isinstance(error, OSError) else error
            logger.error("The store cannot be read (%s). The next attempt is in %g s", error, RETRY_SECONDS, exc_info=cause)
        self.error = str(error) or repr(error)
        if not self._is_closed:
            self._timer = self._loop.call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._timer = None
        self.read_more()

    def close(self) -> None:
        """Read no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _read(log: SendLog, max_age: float | None, order: Sequence[Sequence[str]]) -> Found:
    """Run in the thread of the store."""
    if dropped := drop_due(log, max_age):
        return Found([], dropped)
    for lanes in order:
        if sends := log.read(READ_BYTES, READ_SENDS, lanes):
            return Found(sends, [])
    return Found([], [])
