"""Limits that the server enforces without announcing them, learned from its refusals.

The platform announces the limits of a device, not those of its tenant (docs/platform_contract.md, section 5). A refusal costs a
gateway or a device its connection, so the limit is estimated from as few refusals as possible: a token bucket that refuses has let
through its capacity and its refill, and both are known from what was published before. After that the estimate is kept, and
exceeded on purpose only after a while, to find out whether the limit was raised.
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
"""How much of an estimate is used."""
SMALLEST_RATE: Final = 0.1
"""Per second. Longer breaks are pauses, not a rate (see ``BackpressureController``)."""
HOLD: Final = 120.0
"""Seconds at an estimate before more is tried. Each attempt that fails doubles them."""
HOLD_UNSETTLED: Final = 10.0
"""Seconds while estimates differ: the limit is shared with others, or was changed."""
HOLD_WEAK: Final = 3.0
"""Seconds after a refusal of the first thing that was tried: it says little about the limit."""
HOLD_AFTER_OUTAGE: Final = 6.0
"""Seconds after a connection was lost for another reason: the limit may have been changed meanwhile."""
RECOVERY: Final = 60.0
"""Seconds after an outage in which an estimate holds for that long only."""
LONGEST_HOLD: Final = 600.0
FEW_MESSAGES: Final = 3
"""So many messages in a second, of any kind, exceed no limit that matters."""
UNSURE_SECONDS: Final = 2.0
"""Without acknowledgements, messages that were published so long before a refusal count as accepted."""
MEMORY: Final = 120.0
"""Seconds of publishes that are remembered."""
RESOLUTION: Final = 0.02
"""Seconds between two remembered moments."""
PEAK: Final = 1.5
"""How much faster than the rate a message may follow the one before, so that tokens saved up do not leave in one burst."""
PEAK_SECONDS: Final = 0.15
SOME: Final = 1.5
"""Fewer messages a second say nothing about a limit of messages."""
LONGEST_WAITS: Final = 2.0
"""A limit that has made no message wait for the time of so many tokens, or for a second, is not in use: it does not grow."""
SMALL_RATE: Final = 50
"""So many, but not most of the tokens of a second, fit in one message even when the rate is small: records stay whole."""

Amounts = tuple[int, ...]
"""What one message takes from each limit of its kind of traffic."""


class Moment(NamedTuple):
    """Totals of a kind of traffic when something was published."""

    seconds: float
    totals: Amounts


class Stamp(NamedTuple):
    """What had been published when a message was. Kept with the message until its acknowledgement."""

    period: int
    """Number of refusals before it."""
    totals: Amounts


@dataclass(frozen=True, slots=True)
class LearnedState:
    """What is known of one limit, for the log and for ``health()``."""

    limit: str
    """The name of the limit: "gateway telemetry datapoints"."""
    per_second: float
    """How much is used at present."""
    estimate: float
    """The server's own limit, as far as it is known."""
    source: str
    """How it was learned."""
    refusals: int
    """The number of refusals because of this limit."""


class LearnedLimit:
    """One limit: nothing is limited until the first refusal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refusals = 0
        self.source = ""
        self.estimate = 0.0
        """Per second."""
        self.rate: float | None = None
        """Per second; ``None`` while no limit is known."""
        self._ceiling = self._settled = self._sustained = 0.0
        self._growth = 0.0
        self._hold = HOLD
        self._hold_until: float | None = None
        self._probing = False
        self._changed_at = self._limited_at = self._refused_at = -math.inf
        self._bucket = self._peak = TokenBuckets([], 0)

    @property
    def largest(self) -> int:
        """The most that one message may take; 0 while no limit is known."""
        if self.rate is None:
            return 0
        if self._hold_until is None:
            return max(1, int(self.rate / 8))
        return max(1, int(self.rate * 0.3), int(min(self.rate * 0.6, SMALL_RATE)))

    def state(self) -> LearnedState:
        """Return the state of a limit that has a ``rate``."""
        assert self.rate is not None
        return LearnedState(self.name, round(self.rate, 1), round(self.estimate, 1), self.source, self.refusals)

    def requests(self, amount: int, now_ns: int) -> list[tuple[TokenBuckets, int]]:
        """Return the tokens that a message takes, in the form of ``take_all``."""
        if self.rate is None:
            return []
        self._adapt(now_ns)
        return [(bucket, min(amount, bucket.smallest_capacity)) for bucket in (self._bucket, self._peak)]

    def note_limited(self, amount: int, now_ns: int) -> None:
        """Remember that a message waits, if it waits for this limit."""
        if self.rate is not None and self._bucket.tokens(now_ns)[0] < min(amount, self._bucket.smallest_capacity):
            self._limited_at = now_ns / NANOSECONDS

    def is_used_up(self, now_ns: int) -> bool:
        """Return whether less than half of a second's tokens are left, or a message waited for them a moment ago."""
        return self._bucket.tokens(now_ns)[0] < self._bucket.smallest_capacity / 2 or now_ns / NANOSECONDS - self._limited_at < 1.0

    def learn(self, low: float, high: float, source: str, now_ns: int, *, is_unsettled: bool, is_guess: bool = False) -> None:
        """Take a refusal into account.

        Args:
            low: The smallest that the server's limit may be, per second.
            high: The largest.
            source: What refused, for people.
            now_ns: Monotonic nanoseconds.
            is_unsettled: Whether others may use more of the limit now than they will soon.
            is_guess: Whether there may have been no refusal: more is tried soon.
        """
        now = now_ns / NANOSECONDS
        self.refusals += 1
        self.source = source
        sharp, weak = high <= 1.2 * low, low <= 0.05 * high
        if weak:
            # Hardly anything was let through: the message alone was too large, or others have used up the limit.
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
        # From sharp bounds the middle is reached in 12 seconds; otherwise the rate doubles each second.
        self._growth = math.log2(self._ceiling / self.rate) / 12 if sharp else 1.0
        self._hold_until, self._probing = None, False
        self._changed_at = self._refused_at = now
        self._set_buckets(now_ns, empty=True)

    def _reconcile(self, rate: float, ceiling: float, sharp: bool, now: float) -> tuple[float, float]:
        """Weigh a new estimate against the rate that was sustained for a while before."""
        agrees = abs(ceiling - self._settled) <= 0.12 * self._settled
        self._hold = min(LONGEST_HOLD, 2 * self._hold) if agrees or self._probing else HOLD_UNSETTLED
        if self._probing and rate <= 1.25 * self._sustained:
            # More was tried, and refused: what had been let through before still is.
            rate = ceiling = max(rate, self._sustained) if sharp else self._sustained
        elif self._sustained and now - self._refused_at < self._hold and rate <= 1.3 * self._sustained:
            # A window longer than a second makes bursts after a pause look like a higher limit.
            rate = ceiling = self._sustained * 0.98
            self._sustained = 0.0
        else:
            self._sustained = 0.0
        return rate, ceiling

    def acquit(self) -> None:
        """Limit nothing any longer: something else was refused."""
        self.rate = None

    def connection_lost(self, now_ns: int) -> None:
        """Try more soon: the connection ended for another reason than this limit."""
        if self._hold_until is not None:
            self._hold_until = min(self._hold_until, now_ns / NANOSECONDS + HOLD_AFTER_OUTAGE)

    def doubt(self, now_ns: int) -> None:
        """Try more soon: something else was probably refused."""
        self._hold = HOLD_AFTER_OUTAGE
        self.connection_lost(now_ns)

    def _adapt(self, now_ns: int) -> None:
        """Grow with the time in which the limit was in use."""
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
            # Carefully at first, to find a limit that is where it was; faster when it is not.
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
    """Return a bucket for another rate that holds the tokens of the old one, parts of a token too: small rates grow by parts."""
    capacity = max(1, int(rate * seconds))
    left = 0.0 if empty or not old.windows else min(old.tokens(now_ns)[0], capacity)
    # A bucket that was empty so long ago has as many now.
    emptied = now_ns - int(left / rate * NANOSECONDS)
    new = TokenBuckets([(capacity, capacity / rate)], emptied)
    new.spend(capacity, emptied)
    return new


class LearnedLimits:
    """The limits that the server may have for one kind of traffic; which one a refusal is about, the server does not say."""

    def __init__(self, *names: str) -> None:
        """``names``: of the limits, the likelier culprit first."""
        self.limits = tuple(LearnedLimit(name) for name in names)
        self._totals: Amounts = (0,) * len(names)
        self._moments: deque[Moment] = deque()
        self._period = 0
        self._refused_at: float | None = None
        self._resumed_at: float | None = None
        """When something was published first after the last outage."""
        self._is_away = False
        self._next_moment = -math.inf
        self._second = 0
        self._at_second: Amounts = self._totals
        """The totals when this second began."""
        self._most_in_second: Amounts = self._totals
        self._accepted_before: list[float] = [0.0] * len(names)
        """The rates that were let through before the last refusal."""
        self.active = False
        """Whether a limit is known."""

    def requests(self, amounts: Amounts, now_ns: int) -> list[tuple[TokenBuckets, int]]:
        """Return the tokens that a message with these amounts takes, in the form of ``take_all``."""
        return [
            request
            for limit, amount in zip(self.limits, amounts, strict=True)
            if limit.rate is not None
            for request in limit.requests(amount, now_ns)
        ]

    def note_limited(self, amounts: Amounts, now_ns: int) -> None:
        """Remember that a message has to wait."""
        for limit, amount in zip(self.limits, amounts, strict=True):
            limit.note_limited(amount, now_ns)

    def record(self, amounts: Amounts, now_ns: int) -> Stamp:
        """Count a message that is about to be published. Every message comes here, also while no limit is known."""
        now = now_ns / NANOSECONDS
        totals = self._totals
        if now >= self._next_moment:
            self._remember(now)
        self._totals = tuple(map(add, totals, amounts))
        return Stamp(self._period, totals)

    def _remember(self, now: float) -> None:
        """Remember the current totals and their time."""
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
        """Learn from a refusal; return the limits that are blamed for it.

        All that was published before ``first`` was accepted, and nothing from ``last`` on; what came between may have been.
        ``refused``: the amounts of the message that was refused. A refusal of something published before the last refusal adds
        nothing. ``is_guess``: there may have been no refusal.
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
        # After an outage others send their backlogs, too.
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

    def unsure(self, now_ns: int) -> tuple[Stamp, Stamp]:
        """Return the stamps between which unacknowledged messages may have been refused: those of the last seconds."""
        now = now_ns / NANOSECONDS
        recent = (moment.totals for moment in self._moments if now - moment.seconds <= UNSURE_SECONDS)
        return Stamp(self._period, next(recent, self._totals)), Stamp(self._period, self._totals)

    def doubt(self, now_ns: int) -> None:
        """Try more soon: another kind of traffic was probably refused."""
        for limit in self.limits:
            limit.doubt(now_ns)

    def is_at_peak(self, now_ns: int) -> bool:
        """Return True if about as much as ever was published in the last second, and more than a few messages."""
        now = now_ns / NANOSECONDS
        recent = self._recent(self._totals, now)[-1]
        return recent >= FEW_MESSAGES and recent >= 0.9 * self._most_in_second[-1]

    def retract(self, first: Stamp) -> None:
        """Do not count messages from ``first`` on as accepted: their connection may have ended for a limit."""
        if first.period == self._period:
            self._return_to(first.totals)

    def _return_to(self, totals: Amounts) -> None:
        self._totals, self._at_second = totals, tuple(map(min, self._at_second, totals))
        while self._moments and self._moments[-1].totals[0] > totals[0]:
            self._moments.pop()

    def connection_lost(self, now_ns: int) -> None:
        """Try more soon: the connection ended for another reason than a limit."""
        self._is_away, self._next_moment = True, -math.inf
        for limit in self.limits:
            limit.connection_lost(now_ns)

    def _accepted_rate(self, index: int, accepted: int, now: float) -> float:
        """Return the smallest limit, per second, that lets ``accepted`` in all through by now.

        A bucket of one second that was full at some moment has let through its capacity and its refill since; at the refusal
        before this one it was empty.
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
        """Return which limits may have refused."""
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
        # One at a time, the one of the rounder number first: if it is innocent, the next refusal shows that.
        return [min(unproven, key=lambda index: roundness(low[index], high[index]))]

    def _constant(self, blamed: list[int], low: Sequence[float]) -> list[int]:
        """Return the limits of which as much was accepted as before the last refusal, while less was of the ``blamed`` ones.

        Under a limit of messages smaller messages carry less and less, and are refused all the same. The limits that were blamed
        are innocent then.
        """
        before = self._accepted_before
        unknown = [index for index, limit in enumerate(self.limits) if limit.rate is None]
        constant = [index for index in unknown if low[index] >= SOME and 0.5 * before[index] <= low[index] <= 1.5 * before[index]]
        if not constant or any(low[index] > 0.7 * before[index] for index in blamed):
            return []
        for index in blamed:
            self.limits[index].acquit()
        return constant

    def _recent(self, totals: Amounts, now: float) -> Amounts:
        """Return the amounts that were accepted in the last second."""
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
