"""Counts what comes in, and tells the log what is wrong with it, however often it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tb_mqtt_client.common.logging_utils import get_logger

logger = get_logger(__name__)

QUIET_SECONDS = 60.0
"""After a warning, the next ones of its kind are DEBUG lines for so long: a server can send faster than anybody reads."""
SHOWN_BYTES = 100


class InboundReport:
    """The counts of one client; the attributes are those of ``Statistics`` without "inbound"."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._quiet_until: dict[str, float] = {}
        self._untold: Counter[str] = Counter()
        self.messages = self.malformed = self.unexpected = self.refused = self.callback_errors = 0

    def counts(self) -> dict[str, int]:
        """Fields of ``Statistics``."""
        return {
            "inbound_messages": self.messages,
            "inbound_malformed": self.malformed,
            "inbound_unexpected": self.unexpected,
            "inbound_refused": self.refused,
            "callback_errors": self.callback_errors,
        }

    def message_malformed(self, topic: str, payload: bytes, error: Exception) -> None:
        """A payload or a topic is not what the platform sends."""
        self.malformed += 1
        self._warn("malformed", "A message on %s cannot be read (%s): %r", topic, error, payload[:SHOWN_BYTES])

    def message_unexpected(self, topic: str, why: str) -> None:
        """Nobody waits for a message."""
        self.unexpected += 1
        self._warn("unexpected", "A message on %s is for nobody: %s", topic, why)

    def message_refused(self, topic: str, limit: int) -> None:
        """Too many messages wait for the callbacks."""
        self.refused += 1
        self._warn("refused", "A message on %s is refused: %d wait for their callbacks", topic, limit)

    def callback_failed(self, what: str, error: BaseException) -> None:
        """A callback of the user raised or gave what cannot be used: its traceback is told once, here."""
        self.callback_errors += 1
        logger.error("The callback for %s failed", what, exc_info=error)

    def _warn(self, kind: str, text: str, *arguments: Any) -> None:
        now = self._clock()
        if now < self._quiet_until.get(kind, now):
            self._untold[kind] += 1
            logger.debug(text, *arguments)
            return
        self._quiet_until[kind] = now + QUIET_SECONDS
        untold = self._untold.pop(kind, 0)
        logger.warning(text + (", and %d more before" if untold else ""), *arguments, *([untold] if untold else []))
