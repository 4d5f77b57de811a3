"""The lanes of the queues for sends, and the division of a batch among them.

The rule: of two lanes that both have more sends than fit, each gets its share of the batches, exact to one send. A lane whose
neighbour has nothing to send gets everything.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from operator import is_, itemgetter
from typing import Final, Protocol, TypeAlias

from tb_mqtt_client._native import DeviceIdentity, GatheredSends
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.terms import BACKLOG_TERMS, Lane, SendTerms
from tb_mqtt_client.service.delivery.work_item import ENCODED, NUMBER, TERMS, QueuedUplink

LEAST_SHARE: Final = 0.05
"""What remains for lanes of lower priority while the higher ones could use everything."""
ROUNDING: Final = 1e-9
"""More than sums of shares may be wrong, and less than any send takes."""
IN_ORDER: Final = (Lane.BACKLOG, Lane.HIGH, Lane.NORMAL, Lane.LOW)
"""The lanes so that sends of the same priority are in the order in which they were accepted."""
DROPPED_FIRST: Final = tuple(reversed(Lane))
"""The lanes in the order in which a full queue drops their sends."""
LIVE: Final = tuple(lane for lane in DROPPED_FIRST if lane is not Lane.BACKLOG)
"""The lanes of sends that were not read back from a store, in the same order."""

Oldest: TypeAlias = tuple[tuple[int, int], Callable[[], QueuedUplink]]
"""The place of a send in the order of dropping, the first one first, and a function that takes the send from its queue."""


_terms_of: Callable[[QueuedUplink], SendTerms | None] = itemgetter(TERMS)


def lane_of(uplink: QueuedUplink) -> Lane:
    """Return the lane of a send."""
    terms = uplink[TERMS]
    return Lane.NORMAL if terms is None else terms.lane


def _place(lane: Lane, uplink: QueuedUplink) -> tuple[int, int]:
    return -lane, uplink[NUMBER]


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """How much one batch may hold."""

    nbytes: float
    """Encoded bytes."""
    datapoints: float = math.inf
    devices: float = math.inf
    """Sub-devices, each of which takes a token of a limit of messages."""
    sends: int = sys.maxsize


class Batch:
    """Sends that were taken from the lanes of a queue, to be packed together. A send is measured as its share of a full batch."""

    def __init__(self, bounds: BatchBounds, now: int) -> None:
        """Create an empty batch.

        Args:
            bounds: How much it may hold.
            now: The time of the client's monotonic clock, in nanoseconds.
        """
        self.uplinks: list[QueuedUplink] = []
        self.nbytes: int = 0
        """Encoded bytes of the sends."""
        self.expired: list[QueuedUplink] = []
        """Sends that were found to be expired, and are not resolved yet."""
        self.backlog_datapoints = 0
        """Datapoints from the lane of the backlog."""
        self._now = now
        self._room = bounds.sends
        self._of_a_byte, self._of_a_datapoint = 1 / bounds.nbytes, 1 / bounds.datapoints
        self._of_a_device = 1 / bounds.devices
        self._devices: set[DeviceIdentity] = set()

    @property
    def is_full(self) -> bool:
        """Whether the number of sends is reached."""
        return self._room <= 0

    def add(self, uplink: QueuedUplink) -> float:
        """Add a send, and return the share of a batch that it takes; 0 if its outcome is decided already."""
        encoded, _, _, terms = uplink
        if terms is not None and terms.expires_at:
            if terms.is_over:
                return 0.0
            if terms.has_expired(self._now):
                self.expired.append(uplink)
                return 0.0
        self.uplinks.append(uplink)
        self._room -= 1
        nbytes = encoded.nbytes
        self.nbytes += nbytes
        of_device = 0.0
        if self._of_a_device and (device := encoded.device) is not None and device not in self._devices:
            self._devices.add(device)
            of_device = self._of_a_device
        return max(nbytes * self._of_a_byte, encoded.datapoints * self._of_a_datapoint, of_device)


class Side(Protocol):
    """One or more lanes that compete with others for a place in a batch."""

    def is_empty(self) -> bool:
        """Return whether no send waits."""

    def take(self, share: float, batch: Batch) -> float:
        """Move sends to a batch, the oldest first, until they take at least a share of it; return the share that they take."""


class Sends:
    """The sends of one lane."""

    def __init__(self, sends: deque[QueuedUplink]) -> None:
        """Use a deque for the sends."""
        self.sends = sends

    def is_empty(self) -> bool:
        """Return whether no send waits."""
        return not self.sends

    def append(self, uplink: QueuedUplink) -> None:
        """Add a send at the end."""
        self.sends.append(uplink)

    def prepend(self, uplink: QueuedUplink) -> None:
        """Add a send at the front."""
        self.sends.appendleft(uplink)

    def take_first(self) -> QueuedUplink:
        """Remove and return the first send."""
        return self.sends.popleft()

    def first_to_drop(self) -> QueuedUplink:
        """Return the send that a full queue drops first."""
        return self.sends[0]

    def take_first_to_drop(self) -> QueuedUplink:
        """Remove and return the send that a full queue drops first."""
        return self.take_first()

    def remove_all(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return all sends that match, in their order."""
        found = [uplink for uplink in self.sends if matches(uplink)]
        if found:
            left = [uplink for uplink in self.sends if not matches(uplink)]
            self.sends.clear()
            self.sends.extend(left)
        return found

    def take(self, share: float, batch: Batch) -> float:
        """Move sends to a batch, see `Side`."""
        sends = self.sends
        taken, enough = 0.0, share - ROUNDING
        while sends and taken < enough and not batch.is_full:
            taken += batch.add(self.take_first())
        return taken


class BacklogSends(Sends):
    """The sends that were read back from a store, and how much they are. Urgent ones are before the others."""

    def __init__(self, *, in_order: bool = False) -> None:
        """Create an empty lane.

        Args:
            in_order: Whether urgent sends stay in their place.
        """
        super().__init__(deque())
        self._in_order = in_order
        self._urgent = 0
        self.datapoints: int = 0
        """Datapoints that wait in the lane."""
        self.nbytes: int = 0
        """Encoded bytes that wait in the lane."""
        self.attribute_sends: int = 0
        """Sends with attributes that wait in the lane."""

    @property
    def oldest_ms(self) -> int:
        """When the oldest send was accepted, in milliseconds since the epoch; 0 if that is not known."""
        if not self.sends:
            return 0
        firsts = self.sends[0], self.first_to_drop()
        times = [terms.accepted_ms for first in firsts if (terms := first[TERMS]) is not None]
        return min([time for time in times if time], default=0)

    def append(self, uplink: QueuedUplink) -> None:
        """Add a send at the end."""
        self._count(uplink, 1)
        if self._is_urgent(uplink):
            self.sends.insert(self._urgent, uplink)
            self._urgent += 1
        else:
            super().append(uplink)

    def prepend(self, uplink: QueuedUplink) -> None:
        """Add a send at the front."""
        self._count(uplink, 1)
        if self._is_urgent(uplink):
            super().prepend(uplink)
            self._urgent += 1
        else:
            self.sends.insert(self._urgent, uplink)

    def take_first(self) -> QueuedUplink:
        """Remove and return the first send."""
        uplink = super().take_first()
        self._urgent -= self._urgent > 0
        self._count(uplink, -1)
        return uplink

    def first_to_drop(self) -> QueuedUplink:
        """Return the send that a full queue drops first."""
        return self.sends[self._urgent if self._urgent < len(self.sends) else 0]

    def take_first_to_drop(self) -> QueuedUplink:
        """Remove and return the send that a full queue drops first."""
        if self._urgent == len(self.sends):
            return self.take_first()
        uplink = self.sends[self._urgent]
        del self.sends[self._urgent]
        self._count(uplink, -1)
        return uplink

    def _is_urgent(self, uplink: QueuedUplink) -> bool:
        terms = uplink[TERMS]
        return terms is not None and terms.is_urgent and not self._in_order

    def remove_all(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return all sends that match, in their order."""
        found = super().remove_all(matches)
        for uplink in found:
            self._count(uplink, -1)
        self._urgent -= sum([self._is_urgent(uplink) for uplink in found])
        return found

    def take(self, share: float, batch: Batch) -> float:
        """Move sends to a batch, see `Side`."""
        before = self.datapoints
        taken = super().take(share, batch)
        batch.backlog_datapoints += before - self.datapoints
        return taken

    def _count(self, uplink: QueuedUplink, sign: int) -> None:
        encoded = uplink[ENCODED]
        self.datapoints += sign * encoded.datapoints
        self.nbytes += sign * encoded.nbytes
        if encoded.attribute_count:
            self.attribute_sends += sign


class Contest:
    """Two sides: the first one goes first, and the second one is guaranteed a share while both have sends."""

    def __init__(self, first: Side, second: Side, guaranteed: float) -> None:
        """Create the contest.

        Args:
            first: Takes what it needs, except for what the second side is guaranteed.
            second: Takes everything that the first side leaves.
            guaranteed: The share of the second side while the first one could use everything, from 0 to 1.
        """
        self._first = first
        self._second = second
        self._guaranteed = guaranteed
        # What the second side has got less than guaranteed until now, in batches; negative if it has got more.
        self._owed = 0.0

    def is_empty(self) -> bool:
        """Return whether no send waits."""
        return self._first.is_empty() and self._second.is_empty()

    def take(self, share: float, batch: Batch) -> float:
        """Move sends to a batch, see `Side`."""
        first, second = self._first, self._second
        if second.is_empty():
            self._owed = 0.0
            return first.take(share, batch)
        of_second = max(0.0, self._guaranteed * share + self._owed)
        of_first = first.take(share - of_second, batch) if of_second < share else 0.0
        taken = second.take(share - of_first, batch) if of_first < share else 0.0
        if second.is_empty():
            self._owed = 0.0
            if of_first + taken < share:
                of_first += first.take(share - of_first - taken, batch)
            return of_first + taken
        self._owed += self._guaranteed * (of_first + taken) - taken
        if first.is_empty():
            # The first side needs no more, so the second one has not got too much.
            self._owed = max(0.0, self._owed)
        return of_first + taken


class LaneQueue(AsyncDeque[QueuedUplink]):
    """The queue of an uplink worker. Sends without terms use the base class as if there were no lanes."""

    def __init__(self, plain: PlainSends | None = None, *, backlog_share: float = 0.5, backlog_first: bool = False) -> None:
        """Create an empty queue.

        Args:
            plain: The youngest sends of the lane of normal priority, as long as nothing but packing needs them; ``None`` if all
                sends are queued here.
            backlog_share: The share of the backlog while live data could use everything.
            backlog_first: Whether nothing is taken from the other lanes before the backlog is empty.
        """
        super().__init__()
        self.backlog: BacklogSends = BacklogSends(in_order=backlog_first)
        """Sends that were read back from a store."""
        self._high, self._normal, self._low = Sends(deque()), Sends(self._items), Sends(deque())
        self.plain: PlainSends | None = plain
        """The youngest sends of the lane of normal priority."""
        # Looked at without a call, as each send and each round of the worker does.
        self._gathered: Sized = () if plain is None else plain.gathering
        if plain is not None:
            plain.filled = self.filled
        self._lanes: dict[Lane, Sends] = {
            Lane.HIGH: self._high,
            Lane.NORMAL: self._normal,
            Lane.BACKLOG: self.backlog,
            Lane.LOW: self._low,
        }
        live = Contest(self._normal, self._low, LEAST_SHARE)
        if backlog_first:
            self._order: Side = Contest(self.backlog, Contest(self._high, live, LEAST_SHARE), 0.0)
        else:
            self._order = Contest(self._high, Contest(live, self.backlog, backlog_share), LEAST_SHARE)
        self._has_terms = False
        self.has_lanes: bool = False
        """Whether sends have to be taken with ``take_batch``: there are several lanes, or sends that expire."""

    def __len__(self) -> int:
        if not self.has_lanes:
            return len(self._items) + len(self._gathered)
        return sum([len(lane.sends) for lane in self._lanes.values()], len(self._gathered))

    def is_empty(self) -> bool:
        """Return whether nothing is queued."""
        return not (self._items or self._gathered) and (not self.has_lanes or self._order.is_empty())

    @property
    def first_plain_number(self) -> int | None:
        """The number of the oldest plain send; None if there is none."""
        return self.plain.first_number if self.plain is not None and self._gathered else None

    def take_plain(self, sends: int, nbytes: int, datapoints: int) -> tuple[GatheredSends, int] | None:
        """Remove the oldest sends, as many as reach one of the bounds, if all sends are plain ones.

        Returns:
            The sends, and the number of the first one; ``None`` if there are other sends, or if there is none.
        """
        plain = self.plain
        if plain is None or not self._gathered or self._items or self.has_lanes:
            return None
        taken = plain.take(sends, nbytes, datapoints)
        if not self._gathered:
            self.filled.clear()
        return taken

    def take_in_plain(self) -> None:
        """Move the plain sends to their lane, because something other than packing needs them, or a send goes behind them."""
        if self._gathered:
            assert self.plain is not None
            self._items.extend(self.plain.take_uplinks())

    def append(self, uplink: QueuedUplink) -> None:
        """Queue a send without terms at the end, while ``has_lanes`` is false."""
        self.take_in_plain()
        super().append(uplink)

    def put(self, uplink: QueuedUplink) -> None:
        """Queue a send at the end of its lane. ``append`` is for sends without terms while ``has_lanes`` is false."""
        self.take_in_plain()
        if self.backlog.attribute_sends and uplink[ENCODED].attribute_count:
            # Attributes keep their order: the platform stores the value that arrives last.
            encoded, future, number, terms = uplink
            uplink = encoded, future, number, BACKLOG_TERMS if terms is None else terms.behind_backlog()
        self._lanes[self._enter(uplink)].append(uplink)
        self.filled.set()

    def add(self, uplink: QueuedUplink) -> None:
        """Queue a send at the end of its lane, whatever its terms are."""
        if self.has_lanes or uplink[TERMS] is not None:
            self.put(uplink)
        else:
            self.append(uplink)

    def append_all(self, items: Iterable[QueuedUplink]) -> None:
        """Queue sends at the end of their lanes."""
        uplinks = list(items)
        if self.has_lanes or any(map(_terms_of, uplinks)):
            for uplink in uplinks:
                self.put(uplink)
        else:
            self.take_in_plain()
            super().append_all(uplinks)

    def prepend_all(self, items: list[QueuedUplink]) -> None:
        """Queue sends at the front of their lanes; the first of each lane comes out first."""
        for uplink in reversed(items):
            self._lanes[self._enter(uplink)].prepend(uplink)
        self._wake()

    def _enter(self, uplink: QueuedUplink) -> Lane:
        """Return the lane of a send that is queued next."""
        terms = uplink[TERMS]
        if terms is None:
            return Lane.NORMAL
        if not self.has_lanes:
            self.has_lanes = True
            if self.plain is not None:
                self.plain.block()
        self._has_terms = self._has_terms or terms.lane is not Lane.BACKLOG or terms.expires_at > 0
        return terms.lane

    def items_now(self) -> list[QueuedUplink]:
        """Return all sends, which stay in the queue: lane by lane, and those of equal priority in their order."""
        self.take_in_plain()
        return [uplink for lane in IN_ORDER for uplink in self._lanes[lane].sends]

    def pop_now(self, count: int) -> list[QueuedUplink]:
        """Remove and return at most ``count`` sends in the order of ``items_now``."""
        self.take_in_plain()
        if not self.has_lanes:
            return super().pop_now(count)
        taken: list[QueuedUplink] = []
        for lane in IN_ORDER:
            sends = self._lanes[lane]
            while sends.sends and len(taken) < count:
                taken.append(sends.take_first())
        self._left()
        return taken

    def firsts_now(self) -> list[QueuedUplink]:
        """Return the oldest sends of each lane, which stay in the queue."""
        self.take_in_plain()
        firsts = [lane.sends[0] for lane in self._lanes.values() if lane.sends]
        return [*firsts, self.backlog.first_to_drop()] if self.backlog.sends else firsts

    def first_now(self) -> QueuedUplink | None:
        """Return the first send of ``items_now``, which stays in the queue; ``None`` if there is none."""
        self.take_in_plain()
        return next((self._lanes[lane].sends[0] for lane in IN_ORDER if self._lanes[lane].sends), None)

    def take_batch(self, bounds: BatchBounds, now: int) -> Batch:
        """Remove and return the sends of the next batch.

        Args:
            bounds: How much the batch may hold.
            now: The time of the client's monotonic clock, in nanoseconds.
        """
        batch = Batch(bounds, now)
        self.take_in_plain()
        self._order.take(1.0, batch)
        self._left()
        return batch

    def oldest(self, lanes: Sequence[Lane] = DROPPED_FIRST) -> Oldest | None:
        """Return the send of these lanes that a full queue drops first, see ``Oldest``; ``None`` if there is none."""
        for lane in lanes:
            sends = self._lanes[lane]
            if sends.sends:
                return _place(lane, sends.first_to_drop()), partial(self._take_first_to_drop, sends)
            if lane is Lane.NORMAL and (number := self.first_plain_number) is not None:
                return (-lane, number), self._take_oldest_plain
        return None

    def remove_first(self, matches: Callable[[QueuedUplink], bool]) -> QueuedUplink | None:
        """Remove and return the first send of ``items_now`` that matches; ``None`` if none does."""
        self.take_in_plain()
        for lane in IN_ORDER:
            sends = self._lanes[lane]
            found = next((uplink for uplink in sends.sends if matches(uplink)), None)
            if found is not None:
                sends.remove_all(partial(is_, found))
                self._left()
                return found
        return None

    def forget_decided(self) -> None:
        """Remove sends whose outcome is decided."""
        if self.has_lanes:
            self.remove_all(lambda uplink: not is_undecided(uplink))

    def remove_all(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return all sends that match, in the order of ``items_now``."""
        self.take_in_plain()
        found = [uplink for lane in IN_ORDER for uplink in self._lanes[lane].remove_all(matches)]
        self._left()
        return found

    def _take_first_to_drop(self, sends: Sends) -> QueuedUplink:
        uplink = sends.take_first_to_drop()
        self._left()
        return uplink

    def _take_oldest_plain(self) -> QueuedUplink:
        self.take_in_plain()
        return self._take_first_to_drop(self._normal)

    def _left(self) -> None:
        """Note that sends have left."""
        if not self._has_terms and not self.backlog.sends:
            # Only the backlog needed lanes, and is gone.
            self.has_lanes = False
            if self.plain is not None:
                self.plain.blocked = False
        self._wake()


def is_undecided(uplink: QueuedUplink) -> bool:
    """Return whether a send may still be packed or resolved."""
    terms = uplink[TERMS]
    return terms is None or not terms.is_over


class HeldSends:
    """Sends that are held back, in lanes. Created for each device that is being announced, so lanes are created when needed."""

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[QueuedUplink]] = {}

    def __len__(self) -> int:
        return sum([len(lane) for lane in self._lanes.values()])

    def __iter__(self) -> Iterator[QueuedUplink]:
        """Iterate over the sends lane by lane; those of equal priority in their order."""
        return iter([uplink for lane in IN_ORDER for uplink in self._lanes.get(lane, ())])

    def append(self, uplink: QueuedUplink) -> None:
        """Hold a send, behind those of its lane."""
        self._lanes.setdefault(lane_of(uplink), deque()).append(uplink)

    def prepend(self, uplink: QueuedUplink) -> None:
        """Hold a send, before those of its lane."""
        self._lanes.setdefault(lane_of(uplink), deque()).appendleft(uplink)

    def oldest(self, lanes: Sequence[Lane] = DROPPED_FIRST) -> Oldest | None:
        """Return the send of these lanes that a full queue drops first, see ``Oldest``; ``None`` if there is none."""
        for lane in lanes:
            if sends := self._lanes.get(lane):
                return _place(lane, sends[0]), sends.popleft
        return None

    def remove(self, uplink: QueuedUplink) -> None:
        """Remove a send, which must be there."""
        self._lanes[lane_of(uplink)].remove(uplink)

    def remove_all(self, matches: Callable[[QueuedUplink], bool]) -> list[QueuedUplink]:
        """Remove and return all sends that match."""
        found = [uplink for uplink in self if matches(uplink)]
        if found:
            self._lanes = {lane: deque([one for one in sends if not matches(one)]) for lane, sends in self._lanes.items()}
        return found
