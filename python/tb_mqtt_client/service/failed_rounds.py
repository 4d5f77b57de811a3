"""What a queue loop does after an unexpected exception: report it, try less at once, and go on.

The rule: no exception ends a loop. An item that fails again and again on its own is given up, and all others go on.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger

logger = get_logger(__name__)

FAILURES_ALONE = 3
"""How often one item may fail on its own until it is given up."""
PAUSE_SECONDS = 1.0
"""Time between two attempts with the same item: the cause may be over by then."""


class FailedRounds:
    """Counts the failed rounds of one loop, and decides what the next one may take. An item is a message or a queued uplink."""

    def __init__(self, name: str, stop_event: asyncio.Event) -> None:
        """``name`` is the queue's, for the log. No pause lasts longer than until ``stop_event`` is set."""
        self._name = name
        self._stop_event = stop_event
        self._log = OccasionalLog(logger)
        self.pause_seconds = PAUSE_SECONDS
        self._last_alone: object = None
        self._failures_alone = 0
        self.pauses = False
        """Whether the next round has to wait."""
        self.at_most = sys.maxsize
        """How many items the next round may take."""

    def succeeded(self) -> None:
        """Let the next round take more."""
        if self.at_most < sys.maxsize:
            self.at_most *= 2

    def failed(self, error: BaseException, items: Sequence[object] = ()) -> bool:
        """Report the exception of a round with these items. Return whether the only one of them is to be given up."""
        text = "Unexpected error in the %s queue, which goes on (items concerned: %d): %r"
        kind = type(error).__name__
        self._log.warn_of(kind, text, self._name, len(items), error, level=logging.ERROR, error=error)
        # No item is the cause of a lack of memory.
        is_lack_of_memory = isinstance(error, MemoryError)
        self.pauses = len(items) <= 1 or is_lack_of_memory
        if items:
            # Halves isolate the item that is the cause.
            self.at_most = max(1, len(items) // 2)
        if len(items) != 1 or is_lack_of_memory:
            return False
        [item] = items
        self._failures_alone = self._failures_alone + 1 if item is self._last_alone else 1
        self._last_alone = item
        if self._failures_alone < FAILURES_ALONE:
            return False
        self._last_alone = None
        self.pauses = False
        return True

    async def pause(self) -> None:
        """Wait before the next round if the last failure asks for it."""
        if not self.pauses:
            return
        try:
            async with asyncio.timeout(self.pause_seconds):
                await self._stop_event.wait()
        except TimeoutError:
            return
        finally:
            self.pauses = False
