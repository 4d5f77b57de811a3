"""Warns when timestamps do not seem to be in milliseconds: the platform stores them anyway, where no dashboard looks."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_IN_MICROSECONDS = 10**14


class TimestampAdvice:
    """Logs one warning in the life of a client."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._given = False

    def note(self, suspicious_ts: int) -> None:
        """Warn about a timestamp that is not likely to be in milliseconds, unless there was a warning before."""
        if self._given:
            return
        self._given = True
        unit = "microseconds" if suspicious_ts >= FIRST_IN_MICROSECONDS else "seconds"
        self._logger.warning(
            "ts=%d looks like %s, and is stored as %s: ts is in milliseconds since the epoch. Send int(time.time() * 1000) or a "
            "datetime with a timezone. This is logged once",
            suspicious_ts,
            unit,
            (EPOCH + timedelta(milliseconds=suspicious_ts)).isoformat(timespec="seconds"),
        )
