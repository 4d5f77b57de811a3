"""How much of a backlog is left, how fast it is sent, and when it will be gone: measured, for ``health()`` and the log."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.delivery.terms import NANOSECONDS

logger: ExtendedLogger = get_logger(__name__)

WINDOW_SECONDS: Final = 60.0
"""The time over which rates are measured."""
SAMPLE_SECONDS: Final = 1.0
"""The shortest time between two samples, and the shortest time that gives a rate."""
LOG_SECONDS: Final = 60.0
"""The shortest time between two log lines about a backlog that is being sent."""


class BacklogLeft(NamedTuple):
    """The part of a backlog that waits in one place."""

    sends: int = 0
    datapoints: int = 0
    nbytes: int = 0
    """Encoded bytes."""
    oldest_ms: int = 0
    """When the oldest send was accepted, in milliseconds since the epoch; 0 if that is not known."""


def total_of(parts: list[BacklogLeft]) -> BacklogLeft:
    """Return the sum of parts of a backlog."""
    oldest = min((part.oldest_ms for part in parts if part.oldest_ms), default=0)
    sends, datapoints, nbytes = (sum(part[index] for part in parts) for index in range(3))
    return BacklogLeft(sends, datapoints, nbytes, oldest)


class _Sample(NamedTuple):
    seconds: float
    sent: int
    """Datapoints of the backlog that were packed until then."""
    left: int
    """Datapoints that were left then."""


class BacklogPace:
    """Measures how a backlog shrinks. It has no timer: the workers call it when they pack data of the backlog."""

    def __init__(
        self,
        left: Callable[[], BacklogLeft],
        limit: Callable[[], str | None],
        clock: Callable[[], int],
        wall_clock: Callable[[], int] = now_ms,
    ) -> None:
        """Start without a backlog.

        Args:
            left: Returns what is left of the backlog, wherever it is.
            limit: Returns the name of the limit that slows the client down at the moment, if any.
            clock: Returns monotonic nanoseconds.
            wall_clock: Returns milliseconds since the epoch.
        """
        self._left = left
        self._limit = limit
        self._clock = clock
        self._wall_clock = wall_clock
        self._sent = 0
        self._samples: deque[_Sample] = deque()
        self._began_at = self._logged_at = 0.0

    def note_sent(self, datapoints: int) -> None:
        """Note that data of the backlog was packed, and left its queue."""
        now, left = self._seconds(), self._left()
        if not self._samples:
            self._began_at = self._logged_at = now
            self._samples.append(_Sample(now, self._sent, left.datapoints + datapoints))
        self._sent += datapoints
        if not left.sends:
            logger.info("The backlog is sent: %s datapoints in %s", f"{self._sent:,}", _duration(now - self._began_at))
            self._sent = 0
            self._samples.clear()
            return
        if now - self._samples[-1].seconds >= SAMPLE_SECONDS:
            self._samples.append(_Sample(now, self._sent, left.datapoints))
            self._forget_old(now)
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            logger.info("Backlog: %s", _described(self.state()))

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values.

        - ``sends``, ``datapoints``, ``bytes``: what is left; ``oldest_seconds``: the age of its oldest send.
        - ``per_second``: datapoints of the backlog that were sent per second, over the last minute.
        - ``eta_seconds``: when the backlog will be gone, at the rate at which it has shrunk over the last minute. Data that was
          added to it meanwhile counts. ``None`` while the backlog does not shrink.
        - ``limit``: the name of the limit that applies.

        A value that is not known is ``None``.
        """
        now, left = self._seconds(), self._left()
        self._forget_old(now)
        rate = eta = None
        if self._samples and now - self._samples[0].seconds >= SAMPLE_SECONDS:
            first = self._samples[0]
            rate = (self._sent - first.sent) / (now - first.seconds)
            shrinks = (first.left - left.datapoints) / (now - first.seconds)
            eta = left.datapoints / shrinks if shrinks > 0 else None
        return {
            "sends": left.sends,
            "datapoints": left.datapoints,
            "bytes": left.nbytes,
            "oldest_seconds": self._age_of(left),
            "per_second": rate,
            "eta_seconds": eta,
            "limit": self._limit() if left.sends else None,
        }

    def oldest_seconds(self) -> float | None:
        """Return the age of the oldest send of the backlog; ``None`` if that is not known."""
        return self._age_of(self._left())

    def _age_of(self, left: BacklogLeft) -> float | None:
        return max(0.0, (self._wall_clock() - left.oldest_ms) / 1000) if left.oldest_ms else None

    def _forget_old(self, now: float) -> None:
        samples = self._samples
        # The one at the beginning of the window stays; without progress, the last one stays.
        while len(samples) > 1 and samples[1].seconds <= now - WINDOW_SECONDS:
            samples.popleft()

    def _seconds(self) -> float:
        return self._clock() / NANOSECONDS


def _described(state: dict[str, Any]) -> str:
    parts = [f"{state['datapoints']:,} datapoints ({state['bytes']:,} bytes) left"]
    if state["oldest_seconds"] is not None:
        parts.append(f"the oldest from {_duration(state['oldest_seconds'])} ago")
    if state["per_second"] is not None:
        parts.append(f"{state['per_second']:,.0f} sent per second")
    eta = state["eta_seconds"]
    parts.append("it does not shrink" if eta is None else f"sent in about {_duration(eta)}")
    if state["limit"] is not None:
        parts.append(f"limited by {state['limit']}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units: "2 d 3 h", "4 min 5 s", "6 s"."""
    left, parts = round(seconds), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        parts.append((count, unit))
    shown = list(itertools.dropwhile(lambda part: part[0] == 0, parts))[:2] or [(0, "s")]
    return " ".join(f"{count} {unit}" for count, unit in shown if count or len(shown) == 1)
