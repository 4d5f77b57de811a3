"""A time limit for the peer's answer that a blocked event loop does not use up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tb_mqtt_client.common.keep_alive import BLOCKED_LOOP_SECONDS

MAX_FORGIVEN: Final = 3
"""How often a limit is restarted. A loop that is blocked all the time must end, too."""


@asynccontextmanager
async def running_timeout(seconds: float) -> AsyncIterator[None]:
    """Limit the time in a block, as ``asyncio.timeout`` does, for as long as the event loop runs.

    When the limit is noticed late because the loop was blocked, the process was stopped or the machine slept, the answer may lie in
    the socket unread: the limit is restarted.

    Args:
        seconds: The limit.

    Raises:
        TimeoutError: The block took longer.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        forgiven = 0
        due = loop.time() + seconds
        timer: asyncio.TimerHandle | None = None

        def expire() -> None:
            nonlocal due, forgiven, timer
            now = loop.time()
            if now - due > BLOCKED_LOOP_SECONDS and forgiven < MAX_FORGIVEN:
                forgiven += 1
                due = now + seconds
                timer = loop.call_at(due, expire)
            else:
                limit.reschedule(now)

        timer = loop.call_at(due, expire)
        try:
            yield
        finally:
            timer.cancel()
