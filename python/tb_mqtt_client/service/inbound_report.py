"""Counts what comes in, and tells the log what is wrong with it, however often it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tb_mqtt_client.common.logging_utils import OccasionalLog, get_logger

logger = get_logger(__name__)

QUIET_SECONDS = 60.0
"""After a line, the next ones of its kind are DEBUG lines for so long: a server can send faster than anybody reads."""
SHOWN_BYTES = 100


class InboundReport:
    """The counts of one client; the attributes are those of ``Statistics`` without "inbound"."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._log = OccasionalLog(logger, QUIET_SECONDS, clock)
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
        self._log.warn_of("malformed", "A message on %s cannot be read (%s): %r", topic, error, payload[:SHOWN_BYTES])

    def message_unexpected(self, topic: str, why: str) -> None:
        """Nobody waits for a message."""
        self.unexpected += 1
        self._log.warn_of("unexpected", "A message on %s is for nobody: %s", topic, why)

    def message_refused(self, topic: str, limit: int) -> None:
        """Too many messages wait for the callbacks."""
        self.refused += 1
        self._log.warn_of("refused", "A message on %s is refused: %d wait for their callbacks", topic, limit)

    def request_unanswered(self, request: object, error: Exception) -> None:
        """A request whose answer nobody awaits ends without one."""
        self._log.warn_of(f"unanswered, {type(error).__name__}", "%s ends without an answer: %s", request, error)

    def device_disconnected(self, device_name: str, reason: str) -> None:
        """The platform has trouble with a sub-device; it may have the same with thousands."""
        self._log.warn_of(f"disconnected, {reason}", "The platform says that %s is disconnected: %s", device_name, reason)

    def callback_failed(self, what: str, error: BaseException) -> None:
        """A callback of the user raised or gave what cannot be used: its traceback is told here."""
        self.callback_errors += 1
        self._log.warn_of(type(error).__name__, "The callback for %s failed", what, level=logging.ERROR, error=error)
