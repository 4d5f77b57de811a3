"""Limits that the server enforces without announcing them, learned from its refusals.

The platform announces the limits of a device, but not those of its tenant (docs/platform_contract.md, section 5). After a refusal
the platform ends the connection, so the limit is estimated from as few refusals as possible. A token bucket that refuses a message
has let through its capacity and its refill, which follow from the messages that were published before. The estimate is then kept
for a while (the hold). After the hold, the rate is raised above the estimate to find out whether the limit was raised (probing).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Final, NamedTuple

from tb_mqtt_client._native import TokenBuckets

NANOSECONDS: Final = 1_000_000_000

SHARE: Final = 0.96
"""The rate in use, as a share of the estimate."""
SMALLEST_RATE: Final = 0.1
"""Tokens per second. For less, publishing pauses instead (see ``BackpressureController``)."""
HOLD: Final = 120.0
"""Seconds of a hold. They double with each refusal while probing."""
HOLD_UNSETTLED: Final = 10.0
"""Seconds of a hold after estimates that differ: the limit is shared with other clients, or was changed."""
HOLD_WEAK: Final = 3.0
"""Seconds of a hold after a refusal before which hardly anything was accepted, so that it says little about the limit."""
HOLD_AFTER_OUTAGE: Final = 6.0
"""Seconds of a hold after a connection ended for another reason: the limit may have been changed meanwhile."""
RECOVERY: Final = 60.0
"""Seconds after an outage in which every hold is as short as ``HOLD_AFTER_OUTAGE``."""
LONGEST_HOLD: Final = 600.0
"""Seconds of the longest hold."""
FEW_MESSAGES: Final = 3
"""Fewer messages in a second are not a reason to assume that they exceeded a limit."""
UNCONFIRMED_SECONDS: Final = 2.0
"""At QoS 0, messages count as accepted if they were published this many seconds before a refusal."""
MEMORY: Final = 120.0
"""Seconds for which the totals of published messages are remembered."""
RESOLUTION: Final = 0.02
"""Seconds between two remembered totals."""
PEAK: Final = 1.5
"""The peak rate, as a multiple of the rate: saved tokens are spent at this rate and not in one burst."""
PEAK_SECONDS: Final = 0.15
"""The tokens of the peak rate, as seconds of the rate."""
SOME: Final = 1.5
"""At fewer messages a second, a constant rate is not a sign of a limit of messages."""
LONGEST_WAITS: Final = 2.0
"""A rate grows only while messages wait for it: the last wait is at most this many tokens, or a second, ago."""
SMALL_RATE: Final = 50
"""One message may take this many tokens even at a small rate, but at most 60 % of a second's: records stay whole."""

Amounts = tuple[int, ...]
"""The tokens that one message takes from each limit of its kind of traffic."""


class Moment(NamedTuple):
    """The totals of a kind of traffic at one time."""

    seconds: float
    """Monotonic seconds."""
    totals: Amounts
    """The amounts of all messages that were published before."""


class Stamp(NamedTuple):
    """The totals of a kind of traffic when a message was published. Kept with the message until its acknowledgement."""

    period: int
    """The number of refusals before the message."""
    totals: Amounts
    """The amounts of all messages that were published before."""


@dataclass(frozen=True, slots=True)
class LearnedState:
    """The state of one learned limit, for the log and for ``health()``."""

    limit: str
    """The name of the limit: "gateway telemetry datapoints"."""
    per_second: float
    """The rate in use."""
    estimate: float
    """The estimate of the server's limit, per second."""
    source: str
    """The refusal that it was learned from, for people."""
    refusals: int
    """The number of refusals because of this limit."""


class LearnedLimit:
    """One limit. It limits nothing until the first refusal."""

    def __init__(self, name: str) -> None:
        """Create a limit without an estimate, with a name for the log."""
        self.name = name
        self.refusals: int = 0
        self.source: str = ""
        self.estimate: float = 0.0
        """The estimate of the server's limit, per second."""
        self.rate: float | None = None
        """The rate in use, in tokens per second; ``None`` while no limit is known."""
        self._ceiling = 0.0
        """The rate at which growth ends and the hold begins."""
        self._settled = 0.0
        """The ceiling of the last estimate."""
        self._sustained = 0.0
        """The rate that was accepted before probing began; 0 if unknown."""
        self._growth = 0.0
        """How often the rate doubles in a second until it reaches the ceiling."""
        self._hold = HOLD
        """Seconds of the next hold."""
        self._hold_until: float | None = None
        """When the hold ends; ``None`` while the rate grows towards the ceiling."""
        self._probing = False
        self._changed_at = self._limited_at = self._refused_at = -math.inf
        self._bucket = self._peak = TokenBuckets([], 0)

    @property
    def largest(self) -> int:
        """The largest amount that one message may take; 0 while no limit is known."""
        if self.rate is None:
            return 0
        if self._hold_until is None:
            return max(1, int(self.rate / 8))
        return max(1, int(self.rate * 0.3), int(min(self.rate * 0.6, SMALL_RATE)))

    def state(self) -> LearnedState:
        """Return the state of the limit, whose ``rate`` must be known."""
        assert self.rate is not None
        return LearnedState(self.name, round(self.rate, 1), round(self.estimate, 1), self.source, self.refusals)

    def requests(self, amount: int, now_ns: int) -> list[tuple[TokenBuckets, int]]:
        """Return the tokens that a message takes, as arguments of ``take_all``."""
        if self.rate is None:
            return []
        self._adapt(now_ns)
        return [(bucket, min(amount, bucket.smallest_capacity)) for bucket in (self._bucket, self._peak)]

    def note_limited(self, amount: int, now_ns: int) -> None:
        """Note that a message has to wait, if it has to wait for this limit."""
        if self.rate is not None and self._bucket.tokens(now_ns)[0] < min(amount, self._bucket.smallest_capacity):
            self._limited_at = now_ns / NANOSECONDS

    def is_used_up(self, now_ns: int) -> bool:
        """Return whether less than half of a second's tokens are left, or a message waited for them a moment ago."""
        return self._bucket.tokens(now_ns)[0] < self._bucket.smallest_capacity / 2 or now_ns / NANOSECONDS - self._limited_at < 1.0

    def learn(self, low: float, high: float, source: str, now_ns: int, *, is_unsettled: bool, is_guess: bool = False) -> None:
        """Estimate the limit again after a refusal.

        Args:
            low: The lower bound of the server's limit, per second.
            high: The upper bound, per second.
            source: How the refusal was noticed, for people.
            now_ns: Monotonic nanoseconds.
            is_unsettled: Whether other clients may use more of the limit now than they will soon; the hold is short then.
            is_guess: Whether the refusal is only assumed; the hold is short then.
        """
        now = now_ns / NANOSECONDS
        self.refusals += 1
        self.source = source
        sharp, weak = high <= 1.2 * low, low <= 0.05 * high
        if weak:
            # Hardly anything was accepted: the message alone was too large, or other clients have used up the limit.
            rate, ceiling = max(high / 4, min(high, 1.0)), SHARE * high
        else:
            rate, ceiling = SHARE * low, SHARE * ((low + high) / 2 if sharp else high)
        if weak:
            self._hold, self._sustained = HOLD_WEAK, 0.0
        elif self.rate is None:
            self._hold, self._sustained = HOLD_UNSETTLED if is_guess else HOLD, 0.0
        else:
            rate, ceiling = self._reconcile(rate, ceiling, sharp, now)
        if is_unsettled:
            self._hold = min(self._hold, HOLD_AFTER_OUTAGE)
        self.estimate = ceiling / SHARE
        self.rate = max(rate, SMALLEST_RATE)
        self._ceiling = self._settled = max(ceiling, self.rate)
        # With sharp bounds, the rate reaches the ceiling in 12 seconds; otherwise it doubles each second.
        self._growth = math.log2(self._ceiling / self.rate) / 12 if sharp else 1.0
        self._hold_until, self._probing = None, False
        self._changed_at = self._refused_at = now
        self._set_buckets(now_ns, empty=True)

    def _reconcile(self, rate: float, ceiling: float, sharp: bool, now: float) -> tuple[float, float]:
        """Return rate and ceiling of a new estimate, corrected by the rate that was accepted before probing."""
        agrees = abs(ceiling - self._settled) <= 0.12 * self._settled
        self._hold = min(LONGEST_HOLD, 2 * self._hold) if agrees or self._probing else HOLD_UNSETTLED
        if self._probing and rate <= 1.25 * self._sustained:
            # The higher rate was refused, so the rate that was accepted before is right.
            rate = ceiling = max(rate, self._sustained) if sharp else self._sustained
        elif self._sustained and now - self._refused_at < self._hold and rate <= 1.3 * self._sustained:
            # If the server's window is longer than a second, a burst after a pause looks like a higher limit.
            rate = ceiling = self._sustained * 0.98
            self._sustained = 0.0
        else:
            self._sustained = 0.0
        return rate, ceiling

    def drop_estimate(self) -> None:
        """Drop the estimate: another limit was exceeded."""
        self.rate = None

    def connection_lost(self, now_ns: int) -> None:
        """Shorten the hold, because the connection ended for another reason than this limit."""
        if self._hold_until is not None:
            self._hold_until = min(self._hold_until, now_ns / NANOSECONDS + HOLD_AFTER_OUTAGE)

    def shorten_hold(self, now_ns: int) -> None:
        """Shorten this hold and the next, because another limit was probably exceeded."""
        self._hold = HOLD_AFTER_OUTAGE
        self.connection_lost(now_ns)

    def _adapt(self, now_ns: int) -> None:
        """Raise the rate according to the time that has passed, if messages waited for the limit in it."""
        now = now_ns / NANOSECONDS
        elapsed = now - self._changed_at
        if elapsed < 0.05 or self.rate is None:
            return
        self._changed_at = now
        if now - self._limited_at > max(1.0, LONGEST_WAITS / self.rate):
            return
        elapsed = min(elapsed, 1.0)
        if self.rate < self._ceiling * 0.999:
            self.rate = min(self._ceiling, self.rate * 2 ** (self._growth * elapsed))
        elif self._hold_until is None:
            self._hold_until = now + self._hold
            return
        elif now >= self._hold_until:
            if not self._probing:
                self._probing, self._sustained = True, self.rate
            # Slowly at first, in case the limit is unchanged; faster once the rate has doubled.
            self.rate = self._ceiling = self.rate * 2 ** (elapsed / (4 if self.rate < 2 * self._settled else 1))
            self.estimate = self.rate
        else:
            return
        self._set_buckets(now_ns)

    def _set_buckets(self, now_ns: int, *, empty: bool = False) -> None:
        assert self.rate is not None
        self._bucket = _replaced(self._bucket, self.rate, 1.0, now_ns, empty=empty)
        self._peak = _replaced(self._peak, self.rate * PEAK, PEAK_SECONDS / PEAK, now_ns, empty=empty)


def _replaced(old: TokenBuckets, rate: float, seconds: float, now_ns: int, *, empty: bool) -> TokenBuckets:
    """Return a bucket for another rate with the tokens of the old bucket, fractions included, which matter at small rates."""
    capacity = max(1, int(rate * seconds))
    left = 0.0 if empty or not old.windows else min(old.tokens(now_ns)[0], capacity)
    # The new bucket starts empty at a time from which it has refilled to as many tokens by now.
    emptied = now_ns - int(left / rate * NANOSECONDS)
    new = TokenBuckets([(capacity, capacity / rate)], emptied)
    new.spend(capacity, emptied)
    return new


class LearnedLimits:
    """The limits that the server may have for one kind of traffic. A refusal does not say which of them was exceeded."""

    def __init__(self, *names: str) -> None:
        """Create limits with these names, the one first that is more likely to be exceeded."""
        self.limits: tuple[LearnedLimit, ...] = tuple(LearnedLimit(name) for name in names)
        self._totals: Amounts = (0,) * len(names)
        self._moments: deque[Moment] = deque()
        self._period = 0
        self._refused_at: float | None = None
        self._resumed_at: float | None = None
        """Monotonic seconds of the first publish after the last outage."""
        self._is_away = False
        self._next_moment = -math.inf
        self._second = 0
        self._at_second: Amounts = self._totals
        """The totals at the beginning of this second."""
        self._most_in_second: Amounts = self._totals
        """The largest amounts of one second."""
        self._accepted_before: list[float] = [0.0] * len(names)
        """The lower bounds of the limits at the last refusal, per second."""
        self.active: bool = False
        """Whether a limit has been learned."""

    def requests(self, amounts: Amounts, now_ns: int) -> list[tuple[TokenBuckets, int]]:
        """Return the tokens that a message with these amounts takes, as arguments of ``take_all``."""
        return [
            request
            for limit, amount in zip(self.limits, amounts, strict=True)
            if limit.rate is not None
            for request in limit.requests(amount, now_ns)
        ]

    def note_limited(self, amounts: Amounts, now_ns: int) -> None:
        """Note that a message with these amounts has to wait."""
        for limit, amount in zip(self.limits, amounts, strict=True):
            limit.note_limited(amount, now_ns)

    def record(self, amounts: Amounts, now_ns: int) -> Stamp:
        """Count a message that is about to be published. All messages are counted, because the first refusal needs the totals."""
        now = now_ns / NANOSECONDS
        totals = self._totals
        if now >= self._next_moment:
            self._remember(now)
        self._totals = tuple(map(add, totals, amounts))
        return Stamp(self._period, totals)

    def _remember(self, now: float) -> None:
        """Remember the current totals with the time."""
        if self._is_away:
            self._is_away, self._resumed_at = False, now
        self._next_moment = now + RESOLUTION
        moments = self._moments
        moments.append(Moment(now, self._totals))
        while now - moments[0].seconds > MEMORY:
            moments.popleft()
        if (second := int(now)) != self._second:
            in_second = [after - before for after, before in zip(self._totals, self._at_second, strict=True)]
            self._most_in_second = tuple(map(max, self._most_in_second, in_second))
            self._second, self._at_second = second, self._totals

    def learn(
        self, first: Stamp, last: Stamp, refused: Amounts, source: str, now_ns: int, *, is_guess: bool = False
    ) -> list[LearnedLimit]:
        """Learn from a refusal. A refusal of a message that was published before the last refusal changes nothing.

        Args:
            first: Messages before this one were accepted.
            last: This message and later ones were not accepted. Messages between the two may have been.
            refused: The amounts of the refused message.
            source: How the refusal was noticed, for people.
            now_ns: Monotonic nanoseconds.
            is_guess: Whether the refusal is only assumed.

        Returns:
            The limits that were probably exceeded.
        """
        if first.period != self._period:
            return []
        now = now_ns / NANOSECONDS
        low = [self._accepted_rate(index, first.totals[index], now) for index in range(len(self.limits))]
        high = [
            max(low[index], self._accepted_rate(index, last.totals[index] + refused[index], now))
            for index in range(len(self.limits))
        ]
        blamed = self._blame(last.totals, refused, low, high, now_ns)
        self._accepted_before = low
        # After an outage, other clients send their backlogs too.
        is_unsettled = self._resumed_at is not None and now - self._resumed_at < RECOVERY
        for index in blamed:
            self.limits[index].learn(low[index], high[index], source, now_ns, is_unsettled=is_unsettled, is_guess=is_guess)
            self._most_in_second = tuple(
                min(most, int(self.limits[index].rate or most)) if one == index else most
                for one, most in enumerate(self._most_in_second)
            )
        self.active = self.active or bool(blamed)
        self._period += 1
        self._return_to(last.totals)
        self._refused_at = now
        self._moments.append(Moment(now, last.totals))
        return [self.limits[index] for index in blamed]

    def unconfirmed(self, now_ns: int) -> tuple[Stamp, Stamp]:
        """Return the stamps between which unacknowledged messages may have been refused: those of the last seconds."""
        now = now_ns / NANOSECONDS
        recent = (moment.totals for moment in self._moments if now - moment.seconds <= UNCONFIRMED_SECONDS)
        return Stamp(self._period, next(recent, self._totals)), Stamp(self._period, self._totals)

    def shorten_hold(self, now_ns: int) -> None:
        """Shorten all holds, because a limit of another kind of traffic was probably exceeded."""
        for limit in self.limits:
            limit.shorten_hold(now_ns)

    def is_at_peak(self, now_ns: int) -> bool:
        """Return True if the last second had nearly the largest number of messages of all seconds, and more than a few."""
        now = now_ns / NANOSECONDS
        recent = self._recent(self._totals, now)[-1]
        return recent >= FEW_MESSAGES and recent >= 0.9 * self._most_in_second[-1]

    def retract(self, first: Stamp) -> None:
        """Do not count messages from ``first`` on as accepted: a limit may have been the reason for the end of their connection."""
        if first.period == self._period:
            self._return_to(first.totals)

    def _return_to(self, totals: Amounts) -> None:
        self._totals, self._at_second = totals, tuple(map(min, self._at_second, totals))
        while self._moments and self._moments[-1].totals[0] > totals[0]:
            self._moments.pop()

    def connection_lost(self, now_ns: int) -> None:
        """Shorten all holds, because the connection ended for another reason than a limit."""
        self._is_away, self._next_moment = True, -math.inf
        for limit in self.limits:
            limit.connection_lost(now_ns)

    def _accepted_rate(self, index: int, accepted: int, now: float) -> float:
        """Return the smallest limit, per second, under which the server could have accepted ``accepted`` in total until now.

        The server's bucket is assumed to have a window of one second. If it was full at a remembered moment, it has let through
        at most its capacity and its refill since then. At the previous refusal it was empty.
        """
        rate = 0.0
        for moment in self._moments:
            if self._refused_at is not None and moment.seconds <= self._refused_at:
                since = max(now - moment.seconds, 0.05) if moment.seconds == self._refused_at else math.inf
            else:
                since = 1.0 + now - moment.seconds
            rate = max(rate, (accepted - moment.totals[index]) / since)
        return rate

    def _blame(self, totals: Amounts, refused: Amounts, low: Sequence[float], high: Sequence[float], now_ns: int) -> list[int]:
        """Return the indices of the limits that were probably exceeded."""
        indices = range(len(self.limits))
        known = [index for index in indices if self.limits[index].rate is not None]
        used_up = [index for index in known if self.limits[index].is_used_up(now_ns)]
        if known and (constant := self._constant(used_up or known, low)):
            return constant
        if used_up:
            return used_up
        recent = self._recent(totals, now_ns / NANOSECONDS)
        unproven = [
            index for index in indices if index not in known and recent[index] + refused[index] > 0.9 * self._most_in_second[index]
        ]
        if not unproven:
            return known or list(indices)
        # One at a time, the one with the rounder number first: if it was not exceeded, the next refusal shows that.
        return [min(unproven, key=lambda index: roundness(low[index], high[index]))]

    def _constant(self, blamed: list[int], low: Sequence[float]) -> list[int]:
        """Return the limits whose accepted rate stayed the same since the last refusal, while that of the ``blamed`` ones fell.

        If messages are limited, and datapoints were blamed, messages became smaller and were still refused. Then the estimates of
        the blamed limits are dropped.
        """
        before = self._accepted_before
        unknown = [index for index, limit in enumerate(self.limits) if limit.rate is None]
        constant = [index for index in unknown if low[index] >= SOME and 0.5 * before[index] <= low[index] <= 1.5 * before[index]]
        if not constant or any(low[index] > 0.7 * before[index] for index in blamed):
            return []
        for index in blamed:
            self.limits[index].drop_estimate()
        return constant

    def _recent(self, totals: Amounts, now: float) -> Amounts:
        """Return the amounts that were published in the last second before `totals`."""
        for moment in self._moments:
            if now - moment.seconds <= 1.0:
                return tuple(max(0, total - before) for total, before in zip(totals, moment.totals, strict=True))
        return (0,) * len(totals)


def roundness(low: float, high: float) -> int:
    """Return how round a number between two bounds can be: 0 for 1, 2 or 5 with zeros, 1 for one digit, 2 for two, else 3."""
    low, high = low * 0.997, high * 1.003
    if high < 1:
        return 3
    magnitude = 10.0 ** math.floor(math.log10(high))
    numbers: list[Callable[[float], float]] = [
        lambda top: max((digit * top for digit in (0.5, 1, 2, 5) if digit * top <= high), default=0.0),
        lambda top: math.floor(high / top) * top,
        lambda top: math.floor(high / top * 10) * top / 10,
    ]
    return next((level for level, number in enumerate(numbers) if number(magnitude) >= low), 3)
