"""Counters of one client. At any moment: accepted = acknowledged + rejected + dropped + undelivered + queued + in flight."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

DELIVERY_STATES = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight")
"""Each accepted datapoint is in exactly one of these."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot. Datapoints unless a name says otherwise."""

    accepted: int = 0
    """Taken by a ``send_…`` call."""
    acknowledged: int = 0
    """Confirmed by a PUBACK (or written, at QoS 0)."""
    rejected: int = 0
    """Refused by the platform, or too large for any payload."""
    dropped: int = 0
    """Given up by a queue policy that the user chose."""
    undelivered: int = 0
    """Not sent before the client was stopped."""
    queued: int = 0
    """Between the door and the wire."""
    in_flight: int = 0
    """Published, without an acknowledgement so far."""
    rejected_by_reason: dict[int, int] = field(default_factory=dict)
    """``rejected`` by MQTT reason code."""
    superseded: int = 0
    """Acknowledged, but replaced in its payload by a later value of the same key and timestamp."""
    values_rounded: int = 0
    """Floats that were written into payloads rounded to 16 decimal places, so that the platform stores numbers."""
    values_stored_as_text: int = 0
    """Numbers that were written into payloads of which the platform makes text: of more places, or beyond 64 bits."""
    messages_published: int = 0
    """PUBLISH packets with datapoints."""
    messages_acknowledged: int = 0
    """Of these, the acknowledged ones."""
    bytes_published: int = 0
    """Payload bytes of these packets."""
    payload_limit_bytes: int = 0
    """Sum of the limits of these payloads: ``bytes_published / payload_limit_bytes`` is how full they were."""
    messages_rejected: int = 0
    """PUBLISH packets with datapoints that the platform refused for good."""
    messages_returned: int = 0
    """PUBLISH packets with datapoints that have to be published again: their connection ended, or they were refused for a time."""
    queued_calls: int = 0
    """Calls whose datapoints are not packed so far."""
    in_flight_messages: int = 0
    """PUBLISH packets of any kind without an acknowledgement."""
    connections: int = 0
    """Sessions so far; all but the first are reconnects."""
    last_disconnect: str = ""
    """Why the last session ended."""
    seconds_limited: float = 0.0
    """How long messages waited for the server's limits."""
    backpressure_pauses: int = 0
    """How often publishing paused because the server refused something for its quota."""
    inbound_messages: int = 0
    """PUBLISH packets from the server."""
    inbound_malformed: int = 0
    """Of these, what cannot be read."""
    inbound_unexpected: int = 0
    """Of these, what nobody waits for: unknown topics, and answers to requests that are over."""
    inbound_refused: int = 0
    """Of these, what found too many others waiting for their callbacks."""
    callback_errors: int = 0
    """Callbacks of the user that raised, took too long, or gave what cannot be used."""

    @property
    def reconnects(self) -> int:
        """Sessions after the first."""
        return max(0, self.connections - 1)

    def as_dict(self) -> dict[str, Any]:
        """All fields and ``reconnects``, as JSON values: ``{"accepted": 3, ..., "rejected_by_reason": {"151": 1}}``."""
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        counts["rejected_by_reason"] = {str(code): count for code, count in self.rejected_by_reason.items()}
        return counts | {"reconnects": self.reconnects}

    def __str__(self) -> str:
        """The delivery sum, for a log line: ``accepted=5 acknowledged=3 queued=2``. What is 0 is left out."""
        states = [f"{name}={count}" for name in DELIVERY_STATES if (count := getattr(self, name))]
        return " ".join([f"accepted={self.accepted}", *states])


class DeliveryCounter:
    """Moves datapoints from one state to the next. Every method keeps the sum. The attributes are those of ``Statistics``."""

    _COUNTED = (
        "accepted", "acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight", "superseded",
        "values_rounded", "values_stored_as_text",
        "messages_published", "messages_acknowledged", "messages_rejected", "messages_returned",
        "bytes_published", "payload_limit_bytes",
    )  # fmt: skip
    # Slots, and no dict of counts: this is on the way of every call.
    __slots__ = (*_COUNTED, "rejected_by_reason")

    def __init__(self) -> None:
        self.accepted = self.acknowledged = self.rejected = self.dropped = self.undelivered = 0
        self.queued = self.in_flight = self.superseded = 0
        self.values_rounded = self.values_stored_as_text = 0
        self.messages_published = self.messages_acknowledged = self.messages_rejected = self.messages_returned = 0
        self.bytes_published = self.payload_limit_bytes = 0
        self.rejected_by_reason: dict[int, int] = {}

    def snapshot(self, **others: Any) -> Statistics:
        """The counts of now; ``others`` are fields that are counted elsewhere."""
        counts = {name: getattr(self, name) for name in self._COUNTED}
        return Statistics(**counts, rejected_by_reason=dict(self.rejected_by_reason), **others)

    def accept(self, datapoints: int) -> None:
        """A call was taken."""
        self.accepted += datapoints
        self.queued += datapoints

    def convert(self, rounded: int, stored_as_text: int) -> None:
        """Calls are written into payloads in which that many values are not, or will not be, what was given."""
        self.values_rounded += rounded
        self.values_stored_as_text += stored_as_text

    def publish(self, datapoints: int, superseded: int, payload_size: int, payload_limit: int) -> None:
        """A payload is written that answers for ``datapoints``, ``superseded`` of which it does not hold."""
        self.queued -= datapoints
        self.in_flight += datapoints
        self.superseded += superseded
        self.messages_published += 1
        self.bytes_published += payload_size
        self.payload_limit_bytes += payload_limit

    def acknowledge(self, datapoints: int) -> None:
        """A PUBACK came."""
        self.in_flight -= datapoints
        self.acknowledged += datapoints
        self.messages_acknowledged += 1

    def take_back(self, datapoints: int, superseded: int) -> None:
        """A published payload goes back to its queue."""
        self.in_flight -= datapoints
        self.queued += datapoints
        self.superseded -= superseded
        self.messages_returned += 1

    def refuse(self, datapoints: int, superseded: int, reason_code: int) -> None:
        """A PUBACK with a refusal came."""
        self.in_flight -= datapoints
        self.superseded -= superseded
        self.messages_rejected += 1
        self._reject(datapoints, reason_code)

    def refuse_queued(self, datapoints: int, reason_code: int) -> None:
        """Queued datapoints cannot be sent at all."""
        self.queued -= datapoints
        self._reject(datapoints, reason_code)

    def drop(self, datapoints: int) -> None:
        """Queued datapoints were given up by the queue's policy."""
        self.queued -= datapoints
        self.dropped += datapoints

    def leave_undelivered(self, datapoints: int) -> None:
        """The client was stopped with these queued."""
        self.queued -= datapoints
        self.undelivered += datapoints

    def _reject(self, datapoints: int, reason_code: int) -> None:
        self.rejected += datapoints
        self.rejected_by_reason[reason_code] = self.rejected_by_reason.get(reason_code, 0) + datapoints
