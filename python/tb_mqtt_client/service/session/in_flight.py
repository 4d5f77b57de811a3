"""How many bytes may be in flight, from how long acknowledgements take: a slow link is not filled with what it cannot carry.

The rule: what is in flight can be acknowledged within a few seconds, or is a single message. A link that has not proved more begins
with little, and is given four times of what it carried in time. So the first acknowledgements of a fast link lift the bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage

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


MOST_PUBLISHES = 65_000
"""There are 65,535 packet ids, and service messages and subscriptions need some, too."""
SERVICE_RESERVE = 16
"""Publishes beyond the window that only service messages may use: they do not wait behind telemetry."""


class InFlightWindow:
    """What is in flight, and whether more may be."""

    def __init__(self, max_inflight: int, pace: LinkPace) -> None:
        """At most ``max_inflight`` messages; in bytes, what ``pace`` finds that the link carries."""
        self._max_inflight = min(max_inflight, MOST_PUBLISHES)
        self._pace = pace
        self.nbytes = 0
        """Bytes of the payloads in flight."""
        self._limit = self._service_limit = self._max_inflight
        self._messages: dict[int, MqttPublishMessage] = {}
        self._unwritten: list[MqttPublishMessage] = []
        self._socket_takes_more = True
        self.opened = asyncio.Event()
        """Set while a session is set up."""
        self.writable = asyncio.Event()
        """Set while a message may be published."""
        self.service_writable = asyncio.Event()
        """Set while one without datapoints may be."""
        self.has_room = asyncio.Event()
        """Set while a message may be published by whoever has reserved the window."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self.worked = asyncio.Event()
        """Set when the server has acknowledged something since the session was set up."""
        self._reserved = False

    def __len__(self) -> int:
        return len(self._messages) + len(self._unwritten)

    def set_receive_maximum(self, receive_maximum: int) -> None:
        """How many publishes the server takes without having acknowledged them (MQTT 5, section 3.2.2.3.3)."""
        self._service_limit = min(self._max_inflight + SERVICE_RESERVE, receive_maximum)
        self._limit = max(1, min(self._max_inflight, self._service_limit - SERVICE_RESERVE))

    def open(self) -> None:
        """The session is set up."""
        self.opened.set()
        self._update()

    def close(self) -> list[MqttPublishMessage]:
        """The session has ended: what was in flight, in the order of its publishing."""
        self.opened.clear()
        self.worked.clear()
        self._socket_takes_more = True
        unacknowledged = [*self._messages.values(), *self._unwritten]
        self._messages.clear()
        self._unwritten.clear()
        self.nbytes = 0
        self._pace.connection_ended()
        self._update()
        return unacknowledged

    def note_worked(self) -> None:
        """The server has acknowledged something."""
        if not self.worked.is_set():
            self.worked.set()

    def reserve(self) -> None:
        """Let no further message wait for room with success until ``release``."""
        self._reserved = True
        self._update()

    def release(self) -> None:
        """End what ``reserve`` began."""
        self._reserved = False
        self._update()

    def set_socket_takes_more(self, takes_more: bool) -> None:
        """Whether the socket takes more bytes."""
        self._socket_takes_more = takes_more
        self._update()

    def add(self, packet_id: int, message: MqttPublishMessage) -> None:
        """A message was published."""
        self._messages[packet_id] = message
        self.nbytes += message.payload_size
        self._pace.published(packet_id, self.nbytes)
        self._update()

    def add_unwritten(self, message: MqttPublishMessage) -> None:
        """A message was published on a connection that takes nothing more, but has not ended."""
        self._unwritten.append(message)
        self._update()

    def get(self, packet_id: int | None) -> MqttPublishMessage | None:
        """The message that was published with this packet id."""
        return self._messages.get(packet_id) if packet_id is not None else None

    def take(self, packet_id: int) -> MqttPublishMessage | None:
        """A publish was acknowledged. ``None`` when it is not in flight."""
        message = self._messages.pop(packet_id, None)
        if message is not None:
            self.nbytes -= message.payload_size
            self._pace.acknowledged(packet_id)
        self._update()
        return message

    def forgo(self, packet_id: int) -> None:
        """A publish is not waited for any longer."""
        self._pace.forget(packet_id)
        self.take(packet_id)

    def _update(self) -> None:
        in_flight = len(self)
        takes_more = self.opened.is_set() and self._socket_takes_more
        has_room = takes_more and in_flight < self._limit and self.nbytes < self._pace.window
        _set(self.idle, in_flight == 0)
        _set(self.has_room, has_room)
        _set(self.writable, has_room and not self._reserved)
        _set(self.service_writable, takes_more and not self._reserved and in_flight < self._service_limit)


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
