"""The in-flight window: how many messages and bytes may be in flight at a time.

Invariant: the bytes in flight can be acknowledged within a few seconds, or belong to a single message. An unknown link starts with
a small window. The window grows to four times the bytes that were acknowledged in time, so that the first acknowledgements of a
fast link lift the bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from tb_mqtt_client.service.delivery.work_item import WorkItem

START_BYTES: Final = 16 * 1024
LEAST_BYTES: Final = 2 * 1024
FAST_BYTES: Final = 256 * 1024
"""A link with a window of this size counts as fast: batches and messages are not kept small for it."""
GROWTH: Final = 4
TOLERANCE: Final = 1.25
"""The window shrinks if an acknowledgement takes longer than the wanted time multiplied by this."""
LATENCY_SHARE: Final = 0.8
"""If half as many bytes take more than this share of the earlier time, and not much more, the time does not depend on the bytes."""


class LinkPace:
    """Measures how fast the link carries publishes, one timed publish at a time, over all connections of a client."""

    def __init__(
        self,
        wanted_seconds: float,
        *,
        on_slow: Callable[[float], None] = lambda _rate: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with an unknown link.

        Args:
            wanted_seconds: The longest time that an acknowledgement should take.
            on_slow: Called with the rate in bytes per second when the window shrinks.
            clock: Returns monotonic seconds.
        """
        self._wanted = wanted_seconds
        self._on_slow = on_slow
        self._clock = clock
        self.window: int = START_BYTES
        """Bytes in flight. When they reach this number, no further message is published."""
        self.bytes_per_second: float | None = None
        """The rate at which the last timed publish was carried; an idle link can carry more."""
        self._timed: int | None = None
        self._timed_bytes = self._most_bytes = 0
        self._timed_since = 0.0
        self._latency = 0.0
        self._reduced_at: tuple[int, float] | None = None

    def published(self, packet_id: int, in_flight: int) -> None:
        """Note that a message was written, and that ``in_flight`` bytes are in flight with it."""
        if self._timed is None:
            self._timed, self._timed_since = packet_id, self._clock()
            self._timed_bytes = self._most_bytes = in_flight
        elif in_flight > self._most_bytes:
            self._most_bytes = in_flight

    def acknowledged(self, packet_id: int) -> None:
        """Note that a message was acknowledged."""
        if packet_id == self._timed:
            self._timed = None
            self._take_sample(self._timed_bytes, self._clock() - self._timed_since)

    def forget(self, packet_id: int) -> None:
        """Do not measure with a message whose acknowledgement does not arrive."""
        if packet_id == self._timed:
            self._timed = None

    def connection_ended(self) -> None:
        """Forget the timed publish, and keep the measurements of the link."""
        self._timed = None

    def acknowledgement_missing(self) -> None:
        """Shrink the window, because a connection was closed for a missing PUBACK: the link may be slower than measured."""
        self.window = max(LEAST_BYTES, min(self.window, START_BYTES) // GROWTH)

    def batch_bytes(self, in_flight: int) -> int | None:
        """Return the number of bytes to pack into messages while ``in_flight`` bytes are in flight; ``None`` for no bound.

        It is at least half of the window, so that one message is in flight while another is acknowledged.
        """
        return None if self.window >= FAST_BYTES else max(self.window // 2, self.window - in_flight)

    def expected_seconds(self, nbytes: int) -> float:
        """Return the seconds that ``nbytes`` take at the last measured rate; 0 if nothing was measured yet."""
        return nbytes / self.bytes_per_second if self.bytes_per_second else 0.0

    def _take_sample(self, nbytes: int, seconds: float) -> None:
        self.bytes_per_second = nbytes / max(seconds, 1e-9)
        # The part that does not depend on the number of bytes: the round trip, and the server's own work.
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
                # Fewer bytes did not help: the server is slow, or the round trip is long.
                self._latency, self._reduced_at = seconds, None
                return
            self._reduced_at = nbytes, seconds
        window = max(LEAST_BYTES, int(nbytes * self._wanted / excess))
        if window < self.window:
            self.window = window
            self._on_slow(nbytes / excess)


MOST_PUBLISHES = 65_000
"""There are 65,535 packet ids, of which service messages and subscriptions need some."""
SERVICE_RESERVE = 16
"""Publishes beyond the window that are reserved for service messages, so that these do not wait behind telemetry."""


class InFlightWindow:
    """The messages in flight, and the events that are set while more may be published."""

    def __init__(self, max_inflight: int, pace: LinkPace) -> None:
        """Create an empty window.

        Args:
            max_inflight: The largest number of messages in flight.
            pace: Measures the link, and bounds the bytes in flight.
        """
        self._max_inflight = min(max_inflight, MOST_PUBLISHES)
        self._pace = pace
        self.nbytes: int = 0
        """The number of payload bytes in flight."""
        self._limit = self._service_limit = self._max_inflight
        self._items: dict[int, WorkItem] = {}
        self._unwritten: list[WorkItem] = []
        self._socket_takes_more = True
        self.opened: asyncio.Event = asyncio.Event()
        """Set while a session is set up."""
        self.writable: asyncio.Event = asyncio.Event()
        """Set while a message with datapoints may be published."""
        self.service_writable: asyncio.Event = asyncio.Event()
        """Set while a message without datapoints may be published."""
        self.has_room: asyncio.Event = asyncio.Event()
        """Set while the holder of the reservation may publish a message."""
        self.idle: asyncio.Event = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self.worked: asyncio.Event = asyncio.Event()
        """Set once the server has acknowledged a message since the session was set up."""
        self.reserved: bool = False
        """Whether only the holder of the reservation may publish."""
        self._is_idle = True
        self._state = False, False, False
        """Which of the events `has_room`, `writable` and `service_writable` are set."""

    def __len__(self) -> int:
        return len(self._items) + len(self._unwritten)

    def set_receive_maximum(self, receive_maximum: int) -> None:
        """Set how many unacknowledged publishes the server accepts (MQTT 5, section 3.2.2.3.3)."""
        self._service_limit = min(self._max_inflight + SERVICE_RESERVE, receive_maximum)
        self._limit = max(1, min(self._max_inflight, self._service_limit - SERVICE_RESERVE))

    def open(self) -> None:
        """Note that the session is set up."""
        self.opened.set()
        self._update()

    def close(self) -> list[WorkItem]:
        """Note that the session has ended, and return the messages that were in flight, in the order of their publishing."""
        self.opened.clear()
        self.worked.clear()
        self._socket_takes_more = True
        unacknowledged = [*self._items.values(), *self._unwritten]
        self._items.clear()
        self._unwritten.clear()
        self.nbytes = 0
        self._pace.connection_ended()
        self._update()
        return unacknowledged

    def reserve(self) -> None:
        """Let nothing but the holder of the reservation publish until ``release``."""
        self.reserved = True
        self._update()

    def release(self) -> None:
        """End the reservation."""
        self.reserved = False
        self._update()

    def set_socket_takes_more(self, takes_more: bool) -> None:
        """Set whether the socket accepts more bytes."""
        self._socket_takes_more = takes_more
        self._update()

    def add(self, packet_id: int, item: WorkItem) -> None:
        """Add a message that was published."""
        self._items[packet_id] = item
        self.nbytes += item.message.payload_size
        self._pace.published(packet_id, self.nbytes)
        self._update()

    def add_unwritten(self, item: WorkItem) -> None:
        """Add a message that could not be written because its connection is closing but has not ended yet."""
        self._unwritten.append(item)
        self._update()

    def get(self, packet_id: int | None) -> WorkItem | None:
        """Return the message that was published with this packet id, if it is in flight."""
        return self._items.get(packet_id) if packet_id is not None else None

    def take(self, packet_id: int) -> WorkItem | None:
        """Remove and return a message that was acknowledged; ``None`` if it is not in flight."""
        item = self._items.pop(packet_id, None)
        if item is not None:
            self.nbytes -= item.message.payload_size
            self._pace.acknowledged(packet_id)
        self._update()
        return item

    def forgo(self, packet_id: int) -> None:
        """Remove a message whose acknowledgement is no longer awaited."""
        self._pace.forget(packet_id)
        self.take(packet_id)

    def _update(self) -> None:
        in_flight = len(self._items) + len(self._unwritten)
        takes_more = self.opened.is_set() and self._socket_takes_more
        has_room = takes_more and in_flight < self._limit and self.nbytes < self._pace.window
        service_writable = takes_more and not self.reserved and in_flight < self._service_limit
        # Of programs that await each send, every publish and acknowledgement changes this.
        if (is_idle := not in_flight) is not self._is_idle:
            self._is_idle = is_idle
            _set(self.idle, is_idle)
        state = has_room, has_room and not self.reserved, service_writable
        # Most publishes and acknowledgements change none of these.
        if state != self._state:
            events = self.has_room, self.writable, self.service_writable
            for event, before, value in zip(events, self._state, state, strict=True):
                if value is not before:
                    _set(event, value)
            self._state = state


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
