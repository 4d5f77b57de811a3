"""How long datapoints wait: in the queue, and for their PUBACK.

Nothing is measured for each send. Sends have numbers, and `AcceptTimes` knows when some of them were accepted; the delays are taken
once for each message.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final

from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.delivery.work_item import NUMBER, TERMS, QueuedUplink, WorkItem

MARK_SECONDS: Final = 0.01
"""The shortest time between two marks."""
MARKS: Final = 512
"""Marks that are kept. While the oldest send waits longer than these can cover, they are further apart."""

QUEUE_BOUNDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""Upper bounds of the buckets for the time in the queue, in seconds. An outage may last for days."""
PUBACK_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets for the time to the PUBACK, in seconds."""


class AcceptTimes:
    """When sends were accepted, by their numbers, which rise. Sends after a mark count as accepted at that mark.

    Invariant: no send seems younger than it is, and none seems older by more than twice ``interval`` seconds.
    """

    def __init__(self, oldest: Callable[[], int | None], clock: Callable[[], float] = time.monotonic) -> None:
        """Start without a mark.

        Args:
            oldest: Returns the number of the oldest send of which no data is packed; ``None`` if there is none.
            clock: Returns monotonic seconds.
        """
        self._oldest = oldest
        self._clock = clock
        self._numbers: list[int] = []
        self._times: list[float] = []
        self.interval: float = MARK_SECONDS
        """Seconds after which the next send has to be marked."""

    def mark(self, number: int) -> None:
        """Note that the send with this number is accepted now."""
        numbers, times = self._numbers, self._times
        if numbers and number <= numbers[-1]:
            # A store that was opened again may count from an earlier number.
            numbers.clear()
            times.clear()
        numbers.append(number)
        times.append(self._clock())
        if len(numbers) > MARKS:
            self._forget()

    def of(self, uplink: QueuedUplink) -> float | None:
        """Return when a send was accepted, in monotonic seconds; ``None`` if that is not known."""
        terms = uplink[TERMS]
        if terms is not None and terms.accepted_ms:
            return self._clock() - max(0.0, (now_ms() - terms.accepted_ms) / 1000)
        return self.of_number(uplink[NUMBER])

    def of_number(self, number: int) -> float | None:
        """Return when the send with a number was accepted, in monotonic seconds; ``None`` if that is not known."""
        index = bisect_right(self._numbers, number) - 1
        return None if index < 0 else self._times[index]

    def of_first(self, uplinks: Sequence[QueuedUplink]) -> float | None:
        """Return when the first of some sends was accepted, in monotonic seconds; ``None`` if that is not known."""
        return min([accepted for uplink in uplinks if (accepted := self.of(uplink)) is not None], default=None)

    def age(self, accepted: float) -> float:
        """Return the seconds since a time that this object returned."""
        return max(0.0, self._clock() - accepted)

    def _forget(self) -> None:
        """Remove the marks before the oldest send, and, if most are left, those that are close to others."""
        numbers, times = self._numbers, self._times
        oldest = self._oldest()
        before = len(numbers) - 1 if oldest is None else max(0, bisect_right(numbers, oldest) - 1)
        del numbers[:before]
        del times[:before]
        if len(numbers) <= MARKS // 2:
            self.interval = MARK_SECONDS
        while len(numbers) > MARKS // 2:
            self.interval *= 2
            kept = [0]
            for index, moment in enumerate(times):
                if moment - times[kept[-1]] > self.interval:
                    kept.append(index)
            numbers[:] = [numbers[index] for index in kept]
            times[:] = [times[index] for index in kept]


class DelayHistogram:
    """Counts delays in buckets."""

    __slots__ = ("_bounds", "_counts", "_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Create an empty histogram with the upper bounds of its buckets, in seconds and rising."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a delay."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: ``{"count": 3, "seconds": 0.2, "buckets": {"0.05": 1, "0.1": 3, ...}}``.

        ``seconds`` is the sum of all delays; each bucket has the number of delays up to its bound.
        """
        buckets, count = {}, 0
        for bound, own in zip(self._bounds, self._counts, strict=False):
            count += own
            buckets[f"{bound:g}"] = count
        return {"count": count + self._counts[-1], "seconds": self._seconds, "buckets": buckets}


class Delays:
    """The delays of the acknowledged messages with datapoints of one client."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create empty histograms; ``clock`` returns monotonic seconds."""
        self._clock = clock
        self.queue: DelayHistogram = DelayHistogram(QUEUE_BOUNDS)
        """From accepting the oldest send of a message's batch to the last publish of the message."""
        self.puback: DelayHistogram = DelayHistogram(PUBACK_BOUNDS)
        """From the last publish of a message to its PUBACK. Messages with QoS 0 have none."""

    def acknowledged(self, item: WorkItem) -> None:
        """Note that the platform acknowledged a message with datapoints."""
        published = item.published_at
        if published is None:
            return
        if item.message.qos:
            self.puback.observe(self._clock() - published)
        if item.accepted_at is not None:
            self.queue.observe(max(0.0, published - item.accepted_at))

    def as_dict(self) -> dict[str, Any]:
        """Return both histograms as JSON values."""
        return {"queue": self.queue.as_dict(), "puback": self.puback.as_dict()}
