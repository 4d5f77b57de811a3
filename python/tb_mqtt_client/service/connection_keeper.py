"""Keeps a session up: establishes it once for the caller, and again whenever it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tb_mqtt_client.common.exceptions import TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)


class Backoff:
    """Delays between attempts: exponential, with full jitter."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        """Seconds: the bound of the first delay, and the bound of all."""
        self._first = first
        self._longest = longest
        self._attempts = 0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        bound = min(self._longest, self._first * 2.0**self._attempts)
        self._attempts += 1
        return random.uniform(0, bound)  # spreads load, hides nothing

    def reset(self) -> None:
        """A session worked."""
        self._attempts = 0


class ConnectionKeeper:
    """``establish`` sets a session up, and ``wait_lost`` waits until it has ended and gives the cause."""

    def __init__(
        self,
        establish: Callable[[], Awaitable[None]],
        wait_lost: Callable[[], Awaitable[str]],
        backoff: Backoff | None = None,
    ) -> None:
        self._establish = establish
        self._wait_lost = wait_lost
        self._backoff = backoff or Backoff()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Set the session up and keep it. What the first attempt raises is raised here, and nothing is kept then."""
        if self._task is not None:
            return
        await self._establish()
        self._task = asyncio.create_task(self._keep(), name="tb-mqtt-client connection")

    async def stop(self) -> None:
        """Keep the session no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            cause = await self._wait_lost()
            self._backoff.reset()
            logger.warning("The connection ended: %s", cause)
            await self._establish_again()

    async def _establish_again(self) -> None:
        while True:
            delay = self._backoff.next_delay()
            logger.info("Connecting again in %.1f s", delay)
            await asyncio.sleep(delay)
            try:
                await self._establish()
            except (OSError, TimeoutError, TBMQTTError) as error:
                logger.warning("Connecting failed: %s", error)
            else:
                return
