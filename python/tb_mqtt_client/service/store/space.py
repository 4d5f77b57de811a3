"""The space in an open store: whether a send fits, and what its caller does if it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.entities.store import Store, WhenFull
from tb_mqtt_client.service.store.bounds import Bounds, full_error
from tb_mqtt_client.service.store.due import drop_due
from tb_mqtt_client.service.store.group_commit import GroupCommit
from tb_mqtt_client.service.store.log import DroppedSend, SendLog
from tb_mqtt_client.service.store.thread import StoreThread

logger: ExtendedLogger = get_logger(__name__)

UNWRITTEN_BYTES = 64 * 2**20
"""Encoded bytes that may wait for their commit in addition to those in the queues: sends that go behind the backlog."""
WHILE_FULL_BYTES = 64 * 1024
"""Encoded bytes that may be accepted while other files take the disk's free space, as long as there is a session and no backlog."""
LARGEST_PART = 2
"""A send with more than this part of the bytes of a store may not fit even if all others are sent: a file is removed as a whole."""
PROBE_SECONDS = 5.0
"""Seconds after which the free space is measured again while senders wait for it."""


class StoreSpace:
    """Lets senders wait until their sends fit in an open store, or makes space for them."""

    def __init__(
        self,
        options: Store,
        thread: StoreThread,
        log: SendLog,
        bounds: Bounds,
        commits: GroupCommit,
        *,
        is_online: Callable[[], bool],
        on_dropped: Callable[[list[DroppedSend]], None],
        on_measured: Callable[[], None],
    ) -> None:
        """Create the space of an open log.

        Args:
            options: What the user chose.
            thread: Where the log is used.
            log: The files.
            bounds: How much they may take.
            commits: The sends that are not on disk yet.
            is_online: Returns whether there is a session.
            on_dropped: Called with sends that were removed.
            on_measured: Called when the free space was measured.
        """
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._thread = thread
        self._log = log
        self._bounds = bounds
        self._commits = commits
        self._is_online = is_online
        self._on_dropped = on_dropped
        self._on_measured = on_measured
        self._waiters: asyncio.Future[None] | None = None
        self._probe: asyncio.TimerHandle | None = None
        self._is_closed = False

    def has_space(self, nbytes: int) -> bool:
        """Return whether a send of this number of encoded bytes fits."""
        commits, bounds = self._commits, self._bounds
        unwritten = commits.unwritten_bytes
        if commits.behind_sends and unwritten > UNWRITTEN_BYTES:
            return False
        if bounds.fits(unwritten + nbytes):
            return True
        if not bounds.is_within_max_bytes(unwritten + nbytes):
            return False
        # Other files take the space.
        return unwritten <= WHILE_FULL_BYTES and self._is_online() and not self._log.backlog_sends

    async def make(self, nbytes: int, release_oldest: Callable[[], int]) -> bool:
        """Wait, raise or drop until a send fits or the log is closed. Return False if the send itself is to be dropped.

        Raises:
            StoreFullError: The send does not fit.
        """
        options, commits = self._options, self._commits
        while not self._is_closed and not self.has_space(nbytes):
            if commits.behind_sends and commits.unwritten_bytes > UNWRITTEN_BYTES and await self._commit():
                continue
            if self._log.backlog_sends and await self._dropped_by(partial(drop_due, self._log, options.max_age)):
                continue
            if options.on_full is WhenFull.RAISE:
                raise full_error(options)
            if options.on_full is WhenFull.DROP_NEWEST:
                return False
            if nbytes > options.max_bytes // LARGEST_PART:
                # It would wait forever, or drop everything else for nothing.
                raise full_error(options)
            if options.on_full is WhenFull.DROP_OLDEST and await self._drop_oldest(nbytes, release_oldest):
                continue
            if self._waiters is None:
                self._waiters = self._loop.create_future()
            if self._probe is None:
                self._probe = self._loop.call_later(PROBE_SECONDS, self._probe_due)
            await asyncio.shield(self._waiters)
        return True

    async def _commit(self) -> bool:
        try:
            await self._commits.flush()
        except OSError:
            # Reported by the commits, which repeat it.
            return False
        return not self._is_closed

    async def _drop_oldest(self, nbytes: int, release_oldest: Callable[[], int]) -> bool:
        """Drop the oldest sends of the log, and return whether there were any."""
        if not self._log.backlog_sends and (not await self._commit() or not release_oldest()):
            return False
        # More than one send needs, so that the next ones do not wait for the disk again.
        wanted = max(nbytes, self._options.max_bytes // 64)
        return await self._dropped_by(partial(self._log.drop_oldest, wanted))

    async def _dropped_by(self, drop: Callable[[], list[DroppedSend]]) -> bool:
        """Drop sends in the thread of the store, and return whether there were any."""
        dropping = self._thread.run(drop)
        # Also if the caller is cancelled meanwhile.
        dropping.add_done_callback(self._drop_ended)
        await asyncio.wait([dropping])
        return dropping.exception() is None and bool(dropping.result())

    def _drop_ended(self, dropping: asyncio.Future[list[DroppedSend]]) -> None:
        if (error := dropping.exception()) is None:
            if dropped := dropping.result():
                self._on_dropped(dropped)
        elif not isinstance(error, OSError):
            raise error

    def _probe_due(self) -> None:
        self._probe = None
        self._thread.run(self._bounds.measure).add_done_callback(self._probed)

    def _probed(self, measuring: asyncio.Future[None]) -> None:
        if (error := measuring.exception()) is not None:
            logger.debug("The free space of the store cannot be measured: %s", error)
        self.wake()
        self._on_measured()

    def wake(self) -> None:
        """Let sends that wait look for space again."""
        waiters, self._waiters = self._waiters, None
        if waiters is not None and not waiters.done():
            waiters.set_result(None)

    def close(self) -> None:
        """Let sends that wait go on, because the log is closed."""
        self._is_closed = True
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self.wake()
