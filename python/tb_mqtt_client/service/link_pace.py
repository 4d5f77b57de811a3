"""How many bytes may be in flight, from how long acknowledgements take: a slow link is not filled with what it cannot carry.

The rule: what is in flight can be acknowledged within a few seconds, or is a single message. A link that has not proved more begins
with little, and is given four times of what it carried in time. So the first acknowledgements of a fast link lift the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

START_BYTES: Final = 16 * 1024
LEAST_BYTES: Final = 2 * 1024
FAST_BYTES: Final = 256 * 1024
"""A link that may carry so much at once is not slow: nothing is kept small for it."""
GROWTH: Final = 4
TOLERANCE: Final = 1.25
"""An acknowledgement may take so many times of what is wanted before less is sent."""
LATENCY_SHARE: Final = 0.8
"""If half as many bytes take more than this share of the time, and not much more, their number is not what takes it."""


class LinkPace:
    """Times one publish after the other, of all connections of a client."""

    def __init__(
        self,
        wanted_seconds: float,
        *,
        on_slow: Callable[[float], None] = lambda _rate: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with an unknown link.

        Args:
            wanted_seconds: How long an acknowledgement should take at most.
            on_slow: Called with bytes a second when less may be in flight than before.
            clock: Returns monotonic seconds.
        """
        self._wanted = wanted_seconds
        self._on_slow = on_slow
        self._clock = clock
        self.window = START_BYTES
        """Bytes that may be in flight before another message is published."""
        self.bytes_per_second: float | None = None
        """What the link carried while the last publish was timed: a link that had little to do carries more."""
        self._timed: int | None = None
        self._timed_bytes = self._most_bytes = 0
        self._timed_since = 0.0
        self._latency = 0.0
        self._reduced_at: tuple[int, float] | None = None

    def published(self, packet_id: int, in_flight: int) -> None:
        """A message was written, with which so many bytes are in flight."""
        if self._timed is None:
            self._timed, self._timed_since = packet_id, self._clock()
            self._timed_bytes = self._most_bytes = in_flight
        elif in_flight > self._most_bytes:
            self._most_bytes = in_flight

    def acknowledged(self, packet_id: int) -> None:
        """A message was acknowledged."""
        if packet_id == self._timed:
            self._timed = None
            self._take_sample(self._timed_bytes, self._clock() - self._timed_since)

    def forget(self, packet_id: int) -> None:
        """Take no sample from a message whose acknowledgement does not come."""
        if packet_id == self._timed:
            self._timed = None

    def connection_ended(self) -> None:
        """Forget the publish that is timed. What is known about the link stays."""
        self._timed = None

    def acknowledgement_missing(self) -> None:
        """A connection is given up for a PUBACK that did not come: the link may carry less than was thought."""
        self.window = max(LEAST_BYTES, min(self.window, START_BYTES) // GROWTH)

    def batch_bytes(self, in_flight: int) -> int | None:
        """Return the bytes that should be packed into messages now, when so many are in flight; ``None`` for no bound.

        Half of the window at least, so that one message is on its way while another is acknowledged.
        """
        return None if self.window >= FAST_BYTES else max(self.window // 2, self.window - in_flight)

    def expected_seconds(self, nbytes: int) -> float:
        """How long so many bytes may take on this link, by what was measured; 0 when nothing was."""
        return nbytes / self.bytes_per_second if self.bytes_per_second else 0.0

    def _take_sample(self, nbytes: int, seconds: float) -> None:
        self.bytes_per_second = nbytes / max(seconds, 1e-9)
        # What does not depend on the number of bytes: the way to the server and back, and the server's work.
        self._latency = min(self._latency, seconds)
        excess = seconds - self._latency
        if excess <= self._wanted * TOLERANCE:
            self._reduced_at = None
            if excess <= self._wanted / 2:
                self._grow(nbytes, excess)
        else:
            self._reduce(nbytes, seconds, excess)

    def _grow(self, nbytes: int, excess: float) -> None:
        affordable = int(nbytes * self._wanted / max(excess, 1e-9))
        self.window = max(self.window, min(GROWTH * self._most_bytes, affordable))

    def _reduce(self, nbytes: int, seconds: float, excess: float) -> None:
        if self._reduced_at is None:
            self._reduced_at = nbytes, seconds
        elif nbytes <= self._reduced_at[0] // 2:
            if LATENCY_SHARE < seconds / self._reduced_at[1] < TOLERANCE:
                # Fewer bytes did not help: the server takes its time, or the way is long.
                self._latency, self._reduced_at = seconds, None
                return
            self._reduced_at = nbytes, seconds
        window = max(LEAST_BYTES, int(nbytes * self._wanted / excess))
        if window < self.window:
            self.window = window
            self._on_slow(nbytes / excess)
