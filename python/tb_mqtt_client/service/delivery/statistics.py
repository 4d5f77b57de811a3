"""The counters of one client.

At any moment: accepted + recovered = acknowledged + rejected + dropped + undelivered + queued + in flight + kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

DELIVERY_STATES = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight", "kept")
"""Each accepted or recovered datapoint is in exactly one of these."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The counters of a client at one moment. They count datapoints unless a name says otherwise."""

    accepted: int = 0
    """Accepted by a ``send_...`` method."""
    recovered: int = 0
    """Found in the store when it was opened, where an earlier client had left them."""
    acknowledged: int = 0
    """Confirmed by a PUBACK (or written, at QoS 0)."""
    rejected: int = 0
    """Refused by the platform, or too large for any payload."""
    dropped: int = 0
    """Dropped by a queue policy that the user chose, or expired."""
    undelivered: int = 0
    """Not sent before the client was stopped."""
    queued: int = 0
    """Accepted, and not published yet."""
    in_flight: int = 0
    """Published, and not acknowledged yet."""
    kept: int = 0
    """Left in the store when the client was stopped."""
    rejected_by_reason: dict[int, int] = field(default_factory=dict)
    """``rejected`` by MQTT reason code."""
    superseded: int = 0
    """Acknowledged, but replaced in its payload by a later value of the same key and timestamp."""
    values_rounded: int = 0
    """Floats that were written into payloads rounded to 16 decimal places, so that the platform stores numbers."""
    values_stored_as_text: int = 0
    """Numbers in payloads that the platform stores as text: with more decimal places, or beyond 64 bits."""
    messages_published: int = 0
    """PUBLISH packets with datapoints."""
    messages_acknowledged: int = 0
    """PUBLISH packets with datapoints that were acknowledged."""
    bytes_published: int = 0
    """Payload bytes of the PUBLISH packets with datapoints."""
    payload_limit_bytes: int = 0
    """The sum of the size limits of these payloads; ``bytes_published / payload_limit_bytes`` is their average fill."""
    messages_rejected: int = 0
    """PUBLISH packets with datapoints that the platform refused permanently."""
    messages_returned: int = 0
    """PUBLISH packets with datapoints that are published again: their connection ended, or they were refused for a quota."""
    queued_sends: int = 0
    """Sends whose datapoints are not packed yet."""
    in_flight_messages: int = 0
    """PUBLISH packets of any kind without an acknowledgement."""
    connections: int = 0
    """Sessions, the current one included; all but the first are reconnects."""
    last_disconnect: str = ""
    """Why the last session ended."""
    seconds_limited: float = 0.0
    """How long messages waited for the server's limits."""
    backpressure_pauses: int = 0
    """The number of pauses of publishing because the server refused a message for its quota."""
    inbound_messages: int = 0
    """PUBLISH packets from the server."""
    inbound_malformed: int = 0
    """PUBLISH packets from the server that cannot be parsed."""
    inbound_unexpected: int = 0
    """PUBLISH packets from the server with an unknown topic, or with a response to a request that has ended."""
    inbound_refused: int = 0
    """PUBLISH packets from the server that were refused, because too many others were waiting for their callbacks."""
    callback_errors: int = 0
    """Callbacks of the user that raised, took too long, or returned an unusable value."""

    @property
    def reconnects(self) -> int:
        """The number of sessions after the first."""
        return max(0, self.connections - 1)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and ``reconnects`` as JSON values: ``{"accepted": 3, ..., "rejected_by_reason": {"151": 1}}``."""
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        counts["rejected_by_reason"] = {str(code): count for code, count in self.rejected_by_reason.items()}
        return counts | {"reconnects": self.reconnects}

    def __str__(self) -> str:
        """Return the delivery sum for a log line, without zeros: ``accepted=5 acknowledged=3 queued=2``."""
        states = [f"{name}={count}" for name in ("recovered", *DELIVERY_STATES) if (count := getattr(self, name))]
        return " ".join([f"accepted={self.accepted}", *states])


class DeliveryCounter:
    """Counts datapoints by state: each method moves some to another state. The attributes have the names of ``Statistics``."""

    _COUNTED = (
        "accepted", "recovered", "acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight", "kept", "superseded",
        "values_rounded", "values_stored_as_text",
        "messages_published", "messages_acknowledged", "messages_rejected", "messages_returned",
        "bytes_published", "payload_limit_bytes",
    )  # fmt: skip
    # Slots instead of a dict of counts, because every send is counted.
    __slots__ = (*_COUNTED, "rejected_by_reason")
    accepted: int
    recovered: int
    acknowledged: int
    rejected: int
    dropped: int
    undelivered: int
    queued: int
    in_flight: int
    kept: int
    superseded: int
    values_rounded: int
    values_stored_as_text: int
    messages_published: int
    messages_acknowledged: int
    messages_rejected: int
    messages_returned: int
    bytes_published: int
    payload_limit_bytes: int

    def __init__(self) -> None:
        self.accepted = self.acknowledged = self.rejected = self.dropped = self.undelivered = 0
        self.recovered = self.queued = self.in_flight = self.kept = self.superseded = 0
        self.values_rounded = self.values_stored_as_text = 0
        self.messages_published = self.messages_acknowledged = self.messages_rejected = self.messages_returned = 0
        self.bytes_published = self.payload_limit_bytes = 0
        self.rejected_by_reason: dict[int, int] = {}

    def snapshot(self, **others: Any) -> Statistics:
        """Return the current counts; ``others`` are fields that are counted elsewhere."""
        counts = {name: getattr(self, name) for name in self._COUNTED}
        return Statistics(**counts, rejected_by_reason=dict(self.rejected_by_reason), **others)

    def accept(self, datapoints: int) -> None:
        """Count an accepted send."""
        self.accepted += datapoints
        self.queued += datapoints

    def convert(self, rounded: int, stored_as_text: int) -> None:
        """Count values that were rounded, and values that the platform will store as text."""
        self.values_rounded += rounded
        self.values_stored_as_text += stored_as_text

    def publish(self, datapoints: int, superseded: int, payload_size: int, payload_limit: int) -> None:
        """Count a published payload for ``datapoints``, ``superseded`` of which a later value in it replaces."""
        self.queued -= datapoints
        self.in_flight += datapoints
        self.superseded += superseded
        self.messages_published += 1
        self.bytes_published += payload_size
        self.payload_limit_bytes += payload_limit

    def acknowledge(self, datapoints: int) -> None:
        """Count a PUBACK."""
        self.in_flight -= datapoints
        self.acknowledged += datapoints
        self.messages_acknowledged += 1

    def take_back(self, datapoints: int, superseded: int) -> None:
        """Count a published payload that is queued again."""
        self.in_flight -= datapoints
        self.queued += datapoints
        self.superseded -= superseded
        self.messages_returned += 1

    def refuse(self, datapoints: int, superseded: int, reason_code: int) -> None:
        """Count a PUBACK that refuses the message."""
        self.in_flight -= datapoints
        self.superseded -= superseded
        self.messages_rejected += 1
        self._reject(datapoints, reason_code)

    def refuse_queued(self, datapoints: int, reason_code: int) -> None:
        """Count queued datapoints that cannot be sent."""
        self.queued -= datapoints
        self._reject(datapoints, reason_code)

    def drop(self, datapoints: int) -> None:
        """Count queued datapoints that the queue policy drops, or that have expired."""
        self.queued -= datapoints
        self.dropped += datapoints

    def leave_undelivered(self, datapoints: int) -> None:
        """Count queued datapoints that are not sent before the client is stopped."""
        self.queued -= datapoints
        self.undelivered += datapoints

    def recover(self, datapoints: int) -> None:
        """Count datapoints that were found in the store, where they stay queued."""
        self.recovered += datapoints
        self.queued += datapoints

    def keep(self, datapoints: int) -> None:
        """Count queued datapoints that stay in the store when the client is stopped."""
        self.queued -= datapoints
        self.kept += datapoints

    def _reject(self, datapoints: int, reason_code: int) -> None:
        self.rejected += datapoints
        self.rejected_by_reason[reason_code] = self.rejected_by_reason.get(reason_code, 0) + datapoints
