"""The metrics of a client, for Prometheus (`tb_mqtt_client.metrics`) and OpenTelemetry (`tb_mqtt_client.otel_metrics`).

Nothing is counted here: each metric is a field of ``health()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from tb_mqtt_client.constants.reason_codes import reason_name

LABELS = ("client_id", "host", "port")
"""The labels of each metric: the client and its server."""

Values = list[tuple[tuple[str, ...], float]]
"""The values of a metric, each with the values of the metric's own labels."""
Snapshot = tuple[tuple[str, ...], dict[str, Any]]
"""The labels of a client, and its ``health()``."""


class Observed(Protocol):
    """The part of ``DeviceClient`` and ``GatewayClient`` that the metrics need."""

    def health(self) -> dict[str, Any]:
        """Return the current state, including the fields of ``Statistics``."""


class Kind(StrEnum):
    """The kinds of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """One metric."""

    field: str
    """The field of ``health()`` that it shows; ``a.b`` is the field ``b`` of the dict in field ``a``."""
    name: str
    """The name without prefix. Prometheus adds ``_total`` to counters."""
    help: str
    kind: Kind = Kind.COUNTER
    labels: tuple[str, ...] = ()
    """Labels in addition to ``LABELS``."""
    read: Callable[[Any], Values] | None = None
    """Returns the values from those of the field, if it is not a number; the field's value may be ``None``."""

    def values(self, health: dict[str, Any]) -> Values:
        """Return the values in a snapshot; none if the client has no such field, or if it is not known."""
        value: Any = health
        for part in self.field.split("."):
            if value is None or part not in value:
                return []
            value = value[part]
        if self.read is not None:
            return self.read(value)
        return [] if value is None else [((), float(value))]


def _is_set(error: str) -> Values:
    return [((), float(bool(error)))]


def _or_zero(seconds: float | None) -> Values:
    return [((), seconds or 0.0)]


def _as_seconds(milliseconds: int | None) -> Values:
    return [] if milliseconds is None else [((), milliseconds / 1000)]


def _by_reason(counts: dict[str, int]) -> Values:
    return [((code, reason_name(int(code))), float(count)) for code, count in counts.items()]


def _learned(field: str) -> Callable[[list[dict[str, Any]]], Values]:
    return lambda limits: [((limit["limit"],), float(limit[field])) for limit in limits if limit[field] is not None]


_LEARNED = "limits.learned"
_GAUGE = Kind.GAUGE

METRICS = (
    ExportedMetric("accepted", "accepted_datapoints", "Datapoints accepted by a send"),
    ExportedMetric("recovered", "recovered_datapoints", "Datapoints found in the store, where an earlier client left them"),
    ExportedMetric("acknowledged", "acknowledged_datapoints", "Datapoints that the platform acknowledged"),
    ExportedMetric("rejected", "rejected_datapoints", "Datapoints that the platform refused, or that are too large for a payload"),
    ExportedMetric(
        "rejected_by_reason",
        "rejected_datapoints_by_reason",
        "Rejected datapoints by reason code",
        labels=("reason_code", "reason"),
        read=_by_reason,
    ),
    ExportedMetric("dropped", "dropped_datapoints", "Datapoints dropped by the queue policy"),
    ExportedMetric("undelivered", "undelivered_datapoints", "Datapoints not delivered before the client was stopped"),
    ExportedMetric("kept", "kept_datapoints", "Datapoints left in the store when the client was stopped"),
    ExportedMetric("queued", "queued_datapoints", "Datapoints accepted and waiting to be published", _GAUGE),
    ExportedMetric(
        "oldest_seconds",
        "oldest_datapoint_seconds",
        "Age of the oldest datapoint that waits to be published, 0 if none waits",
        _GAUGE,
        read=_or_zero,
    ),
    ExportedMetric("in_flight", "in_flight_datapoints", "Datapoints published and not yet acknowledged", _GAUGE),
    # A gauge, because the number falls when a payload has to be published again.
    ExportedMetric("superseded", "superseded_datapoints", "Datapoints replaced by a later value of the same key and time", _GAUGE),
    ExportedMetric("messages_published", "published_messages", "PUBLISH packets with datapoints"),
    ExportedMetric("messages_acknowledged", "acknowledged_messages", "PUBLISH packets with datapoints that were acknowledged"),
    ExportedMetric(
        "messages_rejected", "rejected_messages", "PUBLISH packets with datapoints that were refused and are not resent"
    ),
    ExportedMetric("messages_returned", "returned_messages", "PUBLISH packets with datapoints that had to be published again"),
    ExportedMetric("bytes_published", "published_bytes", "Payload bytes of the PUBLISH packets with datapoints"),
    ExportedMetric("payload_limit_bytes", "payload_limit_bytes", "Sum of the payload size limits of these packets"),
    ExportedMetric("queued_sends", "queued_sends", "Sends whose datapoints are not yet packed into payloads", _GAUGE),
    ExportedMetric("in_flight_messages", "in_flight_messages", "PUBLISH packets of any kind that wait for a PUBACK", _GAUGE),
    ExportedMetric("connections", "connections", "Sessions established"),
    ExportedMetric("seconds_limited", "limited_seconds", "Seconds in which a message waited for a rate limit"),
    ExportedMetric("backpressure_pauses", "backpressure_pauses", "Pauses of publishing after a refusal for a quota"),
    ExportedMetric(
        "limits.max_payload_size", "max_payload_size_bytes", "Bytes of the largest telemetry payload of this session", _GAUGE
    ),
    ExportedMetric(
        _LEARNED,
        "learned_limit_per_second",
        "Rate in use because of a limit that the server enforces without announcing it",
        _GAUGE,
        ("limit",),
        _learned("per_second"),
    ),
    ExportedMetric(
        _LEARNED,
        "learned_limit_refusals",
        "Refusals from which an unannounced limit was learned",
        labels=("limit",),
        read=_learned("refusals"),
    ),
    ExportedMetric("inbound_messages", "inbound_messages", "Messages received from the server"),
    ExportedMetric("inbound_malformed", "inbound_malformed_messages", "Messages received that cannot be parsed"),
    ExportedMetric(
        "inbound_unexpected", "inbound_unexpected_messages", "Messages received that belong to no request and no callback"
    ),
    ExportedMetric("inbound_refused", "inbound_refused_messages", "Messages refused because too many callbacks were pending"),
    ExportedMetric("callback_errors", "callback_errors", "Calls of user callbacks that failed"),
    ExportedMetric("values_rounded", "rounded_values", "Floats that were rounded to 16 decimal places"),
    ExportedMetric("values_stored_as_text", "values_stored_as_text", "Numbers that the platform stores as text instead"),
    ExportedMetric("connected", "connected", "1 if the client is connected", _GAUGE),
    ExportedMetric("ready", "ready", "1 if the session is set up, so that data can be published", _GAUGE),
    ExportedMetric("limited", "limited", "1 if a message waits for a rate limit or a pause", _GAUGE),
    ExportedMetric(
        "since",
        "connection_changed_timestamp_seconds",
        "When the connection was last established or lost, in seconds since the epoch",
        _GAUGE,
        read=_as_seconds,
    ),
    ExportedMetric("backlog.sends", "backlog_sends", "Sends of the backlog that are left", _GAUGE),
    ExportedMetric("backlog.datapoints", "backlog_datapoints", "Datapoints of the backlog that are left", _GAUGE),
    ExportedMetric("backlog.bytes", "backlog_bytes", "Encoded bytes of the backlog that are left", _GAUGE),
    ExportedMetric("backlog.oldest_seconds", "backlog_oldest_seconds", "Age of the oldest send of the backlog", _GAUGE),
    ExportedMetric("backlog.eta_seconds", "backlog_eta_seconds", "When the backlog will be gone, at its rate", _GAUGE),
    ExportedMetric("devices", "sub_devices", "Sub-devices registered with the gateway", _GAUGE),
    ExportedMetric("store.bytes", "store_bytes", "Bytes of the store's files", _GAUGE),
    ExportedMetric("store.unwritten_sends", "store_unwritten_sends", "Sends that are in memory and not yet in the store", _GAUGE),
    ExportedMetric("store.backlog_sends", "store_backlog_sends", "Sends that are in the store only", _GAUGE),
    ExportedMetric("store.commits", "store_commits", "Commits since the store was opened"),
    ExportedMetric("store.error", "store_failing", "1 if the disk of the store fails", _GAUGE, read=_is_set),
)


@dataclass(frozen=True, slots=True)
class ExportedHistogram:
    """One histogram, a field of ``health()["delays"]``, in seconds."""

    field: str
    name: str
    help: str

    def read(self, health: dict[str, Any]) -> dict[str, Any]:
        """Return the histogram in a snapshot: ``count``, ``seconds`` (the sum) and cumulative ``buckets``."""
        histogram: dict[str, Any] = health["delays"][self.field]
        return histogram


HISTOGRAMS = (
    ExportedHistogram("queue", "queue_delay_seconds", "Time from a send to the publish of its message, for the oldest of a batch"),
    ExportedHistogram("puback", "puback_delay_seconds", "Time from the publish of a message to its PUBACK"),
)


class ExportedClients:
    """The clients that an exporter shows. Other threads may collect while it changes."""

    def __init__(self, *clients: Observed) -> None:
        """Show some clients.

        Args:
            *clients: The clients to show; ``add()`` adds more.

        Raises:
            ValueError: Two clients have equal labels.
        """
        self._clients: dict[tuple[str, ...], Observed] = {}
        for client in clients:
            self.add(client)

    def add(self, client: Observed) -> None:
        """Show a client.

        Args:
            client: A ``DeviceClient`` or ``GatewayClient``.

        Raises:
            ValueError: Another client with the same client id, host and port is already exported.
        """
        labels = _labels(client.health())
        if self._clients.get(labels, client) is not client:
            raise ValueError(f"client: another client with {dict(zip(LABELS, labels, strict=True))} is already exported")
        # A new dict, because another thread may be iterating over the old one.
        self._clients = self._clients | {labels: client}

    def remove(self, client: Observed) -> None:
        """Stop showing a client.

        Args:
            client: A client that was added.

        Raises:
            ValueError: If the client is not shown.
        """
        left = {labels: one for labels, one in self._clients.items() if one is not client}
        if len(left) == len(self._clients):
            raise ValueError("client was not added to these metrics")
        self._clients = left

    def _snapshots(self) -> Iterable[Snapshot]:
        """Return the labels and the current health of each client."""
        return [(labels, client.health()) for labels, client in self._clients.items()]


def _labels(health: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(health[name]) for name in LABELS)
