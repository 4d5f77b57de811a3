"""Keeps a session up: establishes it, once for a caller or for as long as it takes, and again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from tb_mqtt_client.common.async_utils import is_cancelled
from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer, NotConnectedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.reason_codes import TRANSIENT_CONNECT_REFUSALS, ReasonCode
from tb_mqtt_client.service.delivery.transport import SessionEnd

logger: ExtendedLogger = get_logger(__name__)

EXPECTED_FAILURES = (OSError, TBMQTTError)
"""Failures of network and server, whose text says everything. All others are logged with their traceback."""

SHARE_OF_OUTAGE = 0.25
"""A delay is at most this share of the longest time that the delays before it can have taken: the end of a short outage is noticed
soon."""


class Backoff:
    """Delays between attempts: they grow with the length of the outage, with full jitter."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        """Create the delays of one client.

        Args:
            first: Seconds, the bound of the first delays.
            longest: Seconds, the bound of all delays.
        """
        self._first = first
        self.longest: float = max(first, longest)
        self._waited = 0.0

    def next_delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        bound = min(self.longest, max(self._first, SHARE_OF_OUTAGE * self._waited))
        delay = random.uniform(0, bound)  # spreads load, hides nothing
        self._waited += bound
        return delay

    def reset(self) -> None:
        """Start over: a session worked."""
        self._waited = 0.0

    def grow_to_longest(self) -> None:
        """Use the longest delay: the next attempt is unlikely to succeed."""
        self._waited = self.longest / SHARE_OF_OUTAGE


def is_transient(refusal: ConnectionRefusedByServer) -> bool:
    """Whether the same CONNECT may be accepted a little later."""
    return refusal.reason_code in TRANSIENT_CONNECT_REFUSALS.get(refusal.protocol_version, ())


class SessionObserver(Protocol):
    """Is notified of what happens to the session that is kept."""

    def failed(self, error: BaseException, retry_in: float | None) -> None:
        """Note that an attempt failed. The next one follows after so many seconds; ``None``: it does not."""

    def lost(self, end: SessionEnd) -> None:
        """Note that the session has ended."""


class _Work:
    """What one task of the keeper does, and for whom."""

    def __init__(self, *, persists: bool) -> None:
        self.attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The result of the running attempt, or of the next one; of the first one that succeeded, once there is one."""
        self.waiting = 0
        """The number of callers that wait for it."""
        self.persists = persists
        """Whether failures of the first attempt are followed by others."""

    @property
    def has_established(self) -> bool:
        """Whether an attempt has succeeded."""
        return self.attempt.done() and self.attempt.exception() is None

    def resolve(self, error: BaseException) -> None:
        """Raise the error of an attempt at its callers, of which there may be none."""
        self.attempt.set_exception(error)
        self.attempt.exception()


class ConnectionKeeper:
    """Keeps a session: one task establishes it, and establishes it again whenever it has ended."""

    def __init__(
        self,
        tasks: Tasks,
        establish: Callable[[], Awaitable[None]],
        wait_lost: Callable[[], Awaitable[SessionEnd]],
        backoff: Backoff,
        observer: SessionObserver,
    ) -> None:
        """Keep nothing yet.

        Args:
            tasks: Owns the task, and reports if it ends because of a defect.
            establish: Sets a session up; raises if that fails.
            wait_lost: Waits until the session has ended.
            backoff: Delays between attempts.
            observer: Is notified of failed attempts and ended sessions.
        """
        self._tasks = tasks
        self._establish = establish
        self._wait_lost = wait_lost
        self._backoff = backoff
        self._observer = observer
        self._task: asyncio.Task[None] | None = None
        self._work: _Work | None = None
        self._unexpected_log = OccasionalLog(logger)

    @property
    def is_running(self) -> bool:
        """Whether a session is kept, or its first attempt is running."""
        return self._task is not None

    @property
    def is_wanted(self) -> bool:
        """Whether a session is kept or attempted for as long as it takes, or a caller waits for the first attempt."""
        work = self._work
        return self._task is not None and work is not None and (work.waiting > 0 or work.persists or work.has_established)

    @property
    def has_established(self) -> bool:
        """Whether an attempt has succeeded since the keeper was started."""
        return self._work is not None and self._work.has_established

    def start(self) -> None:
        """Establish the session for as long as it takes, and keep it. A running first attempt is repeated if it fails."""
        self._begin(persists=True)

    async def connect(self) -> None:
        """Establish the session and keep it; concurrent callers wait for the same attempt.

        An error of the attempt is raised here, and no session is kept then, unless ``start`` was called. After a temporary refusal
        ("server busy") another attempt follows. When the last waiting caller is cancelled, the attempt is no longer wanted, and
        ``stop`` ends it.

        Raises:
            NotConnectedError: ``stop`` was called meanwhile.
        """
        work = self._begin(persists=False)
        attempt = work.attempt
        work.waiting += 1
        try:
            await asyncio.wait([attempt])
        finally:
            work.waiting -= 1
        attempt.result()

    def _begin(self, *, persists: bool) -> _Work:
        if self._task is None or self._work is None:
            self._work = _Work(persists=persists)
            self._task = self._tasks.keep(self._keep(self._work), "connection", may_return=True)
            self._task.add_done_callback(partial(self._ended, self._work))
        self._work.persists |= persists
        return self._work

    async def stop(self) -> None:
        """Keep the session no longer. Callers that wait in ``connect`` get a ``NotConnectedError``."""
        task, self._task = self._task, None
        if task is not None:
            await self._tasks.end([task])

    def _ended(self, work: _Work, task: asyncio.Task[None]) -> None:
        """Resolve waiting callers, so that none relies on a session that nothing keeps."""
        if self._task is task:
            self._task = None
        if not work.attempt.done():
            work.resolve(NotConnectedError("the client was disconnected or stopped while it was connecting"))

    async def _keep(self, work: _Work) -> None:
        while (error := await self._failure_of(self._establish())) is not None:
            if not (isinstance(error, ConnectionRefusedByServer) and is_transient(error)):
                raised = error
                if isinstance(error, asyncio.CancelledError):
                    raised = ConnectionLostError(f"the attempt to connect failed: {error!r}")
                if not work.persists:
                    self._task = None
                    self._observer.failed(raised, None)
                    work.resolve(raised)
                    return
                work.resolve(raised)
                work.attempt = asyncio.get_running_loop().create_future()
            await self._delay(error)
        work.attempt.set_result(None)
        while True:
            await self._delay(await self._failure_of(self._wait_for_end()))
            while (error := await self._failure_of(self._establish())) is not None:
                await self._delay(error)

    async def _wait_for_end(self) -> None:
        end = await self._wait_lost()
        # Two clients with the same credentials take the session from each other: that does not count as success.
        worked = end.worked and end.reason_code != ReasonCode.SESSION_TAKEN_OVER
        if worked or end.seconds > self._backoff.longest:
            self._backoff.reset()
        logger.warning("The connection ended: %s", end)
        self._observer.lost(end)

    async def _failure_of(self, step: Awaitable[None]) -> BaseException | None:
        """Return the failure of a step, of whatever type: it must not end this loop."""
        try:
            await step
        except asyncio.CancelledError as cancellation:
            if is_cancelled():
                raise
            return cancellation
        except Exception as failure:  # noqa: BLE001  # reported by the caller, with its cause
            return failure
        return None

    async def _delay(self, error: BaseException | None) -> None:
        """Wait before the next attempt, and report the failure of the last one."""
        if isinstance(error, ConnectionRefusedByServer) and not is_transient(error):
            # An administrator may fix the cause, so the attempts continue, but slowly.
            self._backoff.grow_to_longest()
        delay = self._backoff.next_delay()
        if error is None:
            logger.info("Connecting again in %.1f s", delay)
        else:
            is_expected = isinstance(error, EXPECTED_FAILURES)
            cause = str(error) if is_expected and str(error) else repr(error)
            logger.warning("Connecting failed: %s. Next attempt in %.1f s", cause, delay)
            if not is_expected:
                kind = type(error).__name__
                self._unexpected_log.warn_of(kind, "Unexpected error while connecting: %s", cause, level=logging.ERROR, error=error)
            self._observer.failed(error, delay)
        await asyncio.sleep(delay)
