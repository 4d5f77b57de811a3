"""Keeps a session up: establishes it once for the caller, and again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial

from tb_mqtt_client.common.async_utils import is_cancelled
from tb_mqtt_client.common.exceptions import ConnectionLostError, ConnectionRefusedByServer, NotConnectedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.reason_codes import TRANSIENT_CONNECT_REFUSALS, ReasonCode
from tb_mqtt_client.service.delivery.transport import SessionEnd

logger = get_logger(__name__)

EXPECTED_FAILURES = (OSError, TBMQTTError)
"""Failures of network and server, whose text says everything. All others are logged with their traceback."""


SHARE_OF_OUTAGE = 0.25
"""A delay is at most this much of the time that was waited before it: a short outage is over soon after its end."""


class Backoff:
    """Delays between attempts: they grow with the length of the outage, with full jitter."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        """Create the delays of one client.

        Args:
            first: Seconds, the bound of the first delays.
            longest: Seconds, the bound of all delays.
        """
        self._first = first
        self.longest = max(first, longest)
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


class ConnectionKeeper:
    """Keeps a session: one task establishes it, and establishes it again whenever it has ended."""

    def __init__(
        self,
        tasks: Tasks,
        establish: Callable[[], Awaitable[None]],
        wait_lost: Callable[[], Awaitable[SessionEnd]],
        backoff: Backoff,
    ) -> None:
        """Keep nothing yet.

        Args:
            tasks: Owns the task, and reports if it ends because of a defect.
            establish: Sets a session up; raises if that fails.
            wait_lost: Waits until the session has ended.
            backoff: Delays between attempts.
        """
        self._tasks = tasks
        self._establish = establish
        self._wait_lost = wait_lost
        self._backoff = backoff
        self._task: asyncio.Task[None] | None = None
        self._established: asyncio.Future[None] | None = None
        self._waiting = 0
        self._unexpected_log = OccasionalLog(logger)

    @property
    def is_running(self) -> bool:
        """Whether a session is kept, or its first attempt is running."""
        return self._task is not None

    @property
    def is_wanted(self) -> bool:
        """Whether a session is kept, or a caller waits for its first attempt."""
        return self._task is not None and (self._waiting > 0 or self.has_established)

    @property
    def has_established(self) -> bool:
        """Whether the first attempt has succeeded."""
        return self._established is not None and self._established.done()

    async def start(self) -> None:
        """Establish the session and keep it; concurrent callers wait for the same attempt.

        An error of the first attempt is raised here, and nothing is kept then. After a refusal that may pass ("server busy") it is
        tried again. When the last waiting caller is cancelled, the attempt is no longer wanted, and ``stop`` ends it.

        Raises:
            NotConnectedError: ``stop`` was called meanwhile.
        """
        if self._task is None or self._established is None:
            self._established = asyncio.get_running_loop().create_future()
            self._task = self._tasks.keep(self._keep(self._established), "connection", may_return=True)
            self._task.add_done_callback(partial(self._ended, self._established))
        established = self._established
        self._waiting += 1
        try:
            await asyncio.wait([established])
        finally:
            self._waiting -= 1
        established.result()

    async def stop(self) -> None:
        """Keep the session no longer. Callers that wait in ``start`` get a ``NotConnectedError``."""
        task, self._task = self._task, None
        if task is not None:
            await self._tasks.end([task])

    def _ended(self, established: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        """Resolve waiting callers, so that none relies on a session that nothing keeps."""
        if self._task is task:
            self._task = None
        if not established.done():
            error = NotConnectedError("the client was disconnected or stopped while it was connecting")
            established.set_exception(error)
            # No caller may be left.
            established.exception()

    async def _keep(self, established: asyncio.Future[None]) -> None:
        error = await self._failure_of(self._establish_first())
        if error is not None:
            self._task = None
            if isinstance(error, asyncio.CancelledError):
                error = ConnectionLostError(f"the attempt to connect failed: {error!r}")
            established.set_exception(error)
            # No caller may be left.
            established.exception()
            return
        established.set_result(None)
        while True:
            await self._delay(await self._failure_of(self._wait_for_end()))
            while (error := await self._failure_of(self._establish())) is not None:
                await self._delay(error)

    async def _establish_first(self) -> None:
        while True:
            try:
                await self._establish()
            except ConnectionRefusedByServer as refusal:
                if not is_transient(refusal):
                    raise
                await self._delay(refusal)
            else:
                return

    async def _wait_for_end(self) -> None:
        end = await self._wait_lost()
        # Two clients with the same credentials take the session from each other: that does not count as success.
        worked = end.worked and end.reason_code != ReasonCode.SESSION_TAKEN_OVER
        if worked or end.seconds > self._backoff.longest:
            self._backoff.reset()
        logger.warning("The connection ended: %s", end)

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
            # The session worked before, and an administrator may fix the cause, so this goes on, but slowly.
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
                self._unexpected_log.warn_of(kind, "The cause is unexpected: %s", cause, level=logging.ERROR, error=error)
        await asyncio.sleep(delay)
