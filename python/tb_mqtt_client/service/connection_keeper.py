"""Keeps a session up: establishes it once for the caller, and again whenever it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer, NotConnectedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.constants.reason_codes import TRANSIENT_CONNECT_REFUSALS, ReasonCode
from tb_mqtt_client.service.session_end import SessionEnd

logger = get_logger(__name__)


class Backoff:
    """Delays between attempts: exponential, with full jitter."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        """Seconds: the bound of the first delay, and the bound of all."""
        self._first = first
        self.longest = max(first, longest)
        self._bound = first

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        bound = min(self.longest, self._bound)
        self._bound = bound * 2
        return random.uniform(0, bound)  # spreads load, hides nothing

    def reset(self) -> None:
        """A session worked."""
        self._bound = self._first

    def grow_to_longest(self) -> None:
        """Nothing is to be expected from the next attempt."""
        self._bound = self.longest


def is_transient(refusal: ConnectionRefusedByServer) -> bool:
    """Whether the same CONNECT may be accepted a little later."""
    return refusal.reason_code in TRANSIENT_CONNECT_REFUSALS.get(refusal.protocol_version, ())


class ConnectionKeeper:
    """``establish`` sets a session up, and ``wait_lost`` waits until it has ended."""

    def __init__(
        self,
        establish: Callable[[], Awaitable[None]],
        wait_lost: Callable[[], Awaitable[SessionEnd]],
        backoff: Backoff | None = None,
    ) -> None:
        self._establish = establish
        self._wait_lost = wait_lost
        self._backoff = backoff or Backoff()
        self._task: asyncio.Task[None] | None = None
        self._established: asyncio.Future[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._starting = 0

    async def start(self) -> None:
        """Set the session up and keep it; callers while that is going on wait for the same attempt.

        What the first attempt raises is raised here, and nothing is kept then. After a refusal that may pass ("server busy")
        it is tried again. When the last caller who waits is cancelled, the attempt is too.
        """
        if self._task is None or self._established is None:
            self._established = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._keep(self._established), name="tb-mqtt-client connection")
        established = self._established
        self._starting += 1
        try:
            await asyncio.wait([established])
        except asyncio.CancelledError:
            if self._starting == 1 and not established.done():
                await self.stop()
            raise
        finally:
            self._starting -= 1
        established.result()

    async def stop(self) -> None:
        """Keep the session no longer. Those who wait in ``start`` get a ``NotConnectedError``."""
        task, self._task = self._task, None
        established, self._established = self._established, None
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if established is not None and not established.done():
            established.set_exception(NotConnectedError("the client was stopped while it was connecting"))
            # Nobody may be waiting.
            established.exception()

    async def _keep(self, established: asyncio.Future[None]) -> None:
        try:
            if self._ending:
                # What ends a session would end a new one with it.
                await asyncio.wait(self._ending)
            await self._establish_first()
        except Exception as error:  # noqa: BLE001  # handed to those who wait in start(), whatever it is
            self._task = self._established = None
            established.set_exception(error)
            return
        established.set_result(None)
        while True:
            end = await self._wait_lost()
            # Two clients with the same credentials take the session from each other: that is no success.
            worked = end.worked and end.reason_code != ReasonCode.SESSION_TAKEN_OVER
            if worked or end.seconds > self._backoff.longest:
                self._backoff.reset()
            logger.warning("The connection ended: %s", end.cause)
            await self._establish_again()

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

    async def _establish_again(self) -> None:
        await self._delay(None)
        while True:
            try:
                await self._establish()
            except (OSError, TimeoutError, TBMQTTError) as error:
                if isinstance(error, ConnectionRefusedByServer) and not is_transient(error):
                    # The session worked before: whoever runs the platform may mend it, so this goes on, but slowly.
                    self._backoff.grow_to_longest()
                await self._delay(error)
            else:
                return

    async def _delay(self, error: Exception | None) -> None:
        if error is not None:
            logger.warning("Connecting failed: %s", str(error) or repr(error))
        delay = self._backoff.next_delay()
        logger.info("Connecting again in %.1f s", delay)
        await asyncio.sleep(delay)
