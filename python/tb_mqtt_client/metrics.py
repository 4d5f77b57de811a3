"""Export ``client.statistics`` as Prometheus metrics (extra ``metrics``).

>>> metrics = ClientMetrics()  # in the default registry; registry=... names another one
>>> metrics.add(client)
>>> prometheus_client.start_http_server(9100)

Nothing is counted here: each scrape reads the numbers from the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tb_mqtt_client.constants.reason_codes import reason_name

PREFIX = "tb_mqtt_client_"
LABELS = ("client_id", "host", "port")


class Observed(Protocol):
    """The part of ``DeviceClient`` and ``GatewayClient`` that the metrics need."""

    def health(self) -> dict[str, Any]:
        """Return the current state, including the fields of ``Statistics``."""


@dataclass(frozen=True, slots=True)
class _Described:
    """One metric, and the field of ``health()`` that it shows; ``a.b`` is the field ``b`` of the dict in field ``a``."""

    field: str
    name: str
    help: str
    family: Callable[..., Metric] = CounterMetricFamily


_METRICS = (
    _Described("accepted", "accepted_datapoints", "Datapoints accepted by a send"),
    _Described("recovered", "recovered_datapoints", "Datapoints found in the store, where an earlier client left them"),
    _Described("acknowledged", "acknowledged_datapoints", "Datapoints that the platform acknowledged"),
    _Described("rejected", "rejected_datapoints", "Datapoints that the platform refused, or that are too large for a payload"),
    _Described("dropped", "dropped_datapoints", "Datapoints dropped by the queue policy"),
    _Described("undelivered", "undelivered_datapoints", "Datapoints not delivered before the client was stopped"),
    _Described("kept", "kept_datapoints", "Datapoints left in the store when the client was stopped"),
    _Described("queued", "queued_datapoints", "Datapoints accepted and waiting to be published", GaugeMetricFamily),
    _Described("in_flight", "in_flight_datapoints", "Datapoints published and not yet acknowledged", GaugeMetricFamily),
    # A gauge, because the number falls when a payload has to be published again.
    _Described(
        "superseded", "superseded_datapoints", "Datapoints replaced by a later value of the same key and time", GaugeMetricFamily
    ),
    _Described("messages_published", "published_messages", "PUBLISH packets with datapoints"),
    _Described("messages_acknowledged", "acknowledged_messages", "PUBLISH packets with datapoints that were acknowledged"),
    _Described("messages_rejected", "rejected_messages", "PUBLISH packets with datapoints that were refused and are not resent"),
    _Described("messages_returned", "returned_messages", "PUBLISH packets with datapoints that had to be published again"),
    _Described("bytes_published", "published_bytes", "Payload bytes of the PUBLISH packets with datapoints"),
    _Described("payload_limit_bytes", "payload_limit_bytes", "Sum of the payload size limits of these packets"),
    _Described("queued_sends", "queued_sends", "Sends whose datapoints are not yet packed into payloads", GaugeMetricFamily),
    _Described("in_flight_messages", "in_flight_messages", "PUBLISH packets of any kind that wait for a PUBACK", GaugeMetricFamily),
    _Described("connections", "connections", "Sessions established"),
    _Described("seconds_limited", "limited_seconds", "Seconds in which a message waited for a rate limit"),
    _Described("backpressure_pauses", "backpressure_pauses", "Pauses of publishing after a refusal for a quota"),
    _Described("inbound_messages", "inbound_messages", "Messages received from the server"),
    _Described("inbound_malformed", "inbound_malformed_messages", "Messages received that cannot be parsed"),
    _Described("inbound_unexpected", "inbound_unexpected_messages", "Messages received that belong to no request and no callback"),
    _Described("inbound_refused", "inbound_refused_messages", "Messages refused because too many callbacks were pending"),
    _Described("callback_errors", "callback_errors", "Calls of user callbacks that failed"),
    _Described("values_rounded", "rounded_values", "Floats that were rounded to 16 decimal places"),
    _Described("values_stored_as_text", "values_stored_as_text", "Numbers that the platform stores as text instead"),
    _Described("connected", "connected", "1 if the client is connected", GaugeMetricFamily),
    _Described("ready", "ready", "1 if the session is set up, so that data can be published", GaugeMetricFamily),
    _Described("limited", "limited", "1 if a message waits for a rate limit or a pause", GaugeMetricFamily),
    _Described("backlog.sends", "backlog_sends", "Sends of the backlog that are left", GaugeMetricFamily),
    _Described("backlog.datapoints", "backlog_datapoints", "Datapoints of the backlog that are left", GaugeMetricFamily),
    _Described("backlog.bytes", "backlog_bytes", "Encoded bytes of the backlog that are left", GaugeMetricFamily),
    _Described("backlog.oldest_seconds", "backlog_oldest_seconds", "Age of the oldest send of the backlog", GaugeMetricFamily),
    _Described("backlog.eta_seconds", "backlog_eta_seconds", "When the backlog will be gone, at its rate", GaugeMetricFamily),
    _Described("devices", "sub_devices", "Sub-devices registered with the gateway", GaugeMetricFamily),
)
_STORE_METRICS = (
    _Described("bytes", "store_bytes", "Bytes of the store's files", GaugeMetricFamily),
    _Described("unwritten_sends", "store_unwritten_sends", "Sends that are in memory and not yet in the store", GaugeMetricFamily),
    _Described("backlog_sends", "store_backlog_sends", "Sends that are in the store only", GaugeMetricFamily),
    _Described("commits", "store_commits", "Commits since the store was opened", GaugeMetricFamily),
    _Described("error", "store_failing", "1 if the disk of the store fails", GaugeMetricFamily),
)
"""Metrics of clients with a store: fields of ``health()["store"]``."""
_BY_REASON = _Described("rejected_by_reason", "rejected_datapoints_by_reason", "Rejected datapoints by reason code")
_SINCE = _Described(
    "since",
    "connection_changed_timestamp_seconds",
    "When the connection was last established or lost, in seconds since the epoch",
    GaugeMetricFamily,
)


class ClientMetrics(Collector):
    """The metrics of any number of clients in one registry.

    A scrape may run in any thread. Each number is exact. If the event loop runs in another thread, the sum of the states
    may differ from ``accepted`` by the one send that is being counted.
    """

    def __init__(self, *clients: Observed, registry: CollectorRegistry | None = REGISTRY) -> None:
        """Register the metrics of some clients.

        Args:
            *clients: The clients to show; ``add()`` adds more.
            registry: Where to register. ``None``: register this collector yourself.

        Raises:
            ValueError: If the registry already has a ``ClientMetrics``, or if two clients have equal labels.
        """
        self._clients: dict[tuple[str, ...], Observed] = {}
        self._registry = registry
        for client in clients:
            self.add(client)
        if registry is not None:
            registry.register(self)

    def add(self, client: Observed) -> None:
        """Show a client.

        Args:
            client: A ``DeviceClient`` or ``GatewayClient``.

        Raises:
            ValueError: Another client with the same client id, host and port is already exported.
        """
        labels = _labels(client.health())
        if self._clients.setdefault(labels, client) is not client:
            raise ValueError(f"client: another client with {dict(zip(LABELS, labels, strict=True))} is already exported")

    def remove(self, client: Observed) -> None:
        """Stop showing a client.

        Args:
            client: A client that was added.

        Raises:
            ValueError: If the client is not shown.
        """
        for labels, known in self._clients.items():
            if known is client:
                # A new dict, because a scrape in another thread may be iterating over the old one.
                self._clients = {other: one for other, one in self._clients.items() if other != labels}
                return
        raise ValueError("client was not added to these metrics")

    def close(self) -> None:
        """Unregister these metrics from their registry."""
        if self._registry is not None:
            self._registry.unregister(self)
            self._registry = None

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values; the registry uses them to detect duplicate names."""
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with the current values of all clients."""
        return self._families([(list(labels), client.health()) for labels, client in list(self._clients.items())])

    @staticmethod
    def _families(snapshots: list[tuple[list[str], dict[str, Any]]]) -> Iterable[Metric]:
        for described in _METRICS:
            family = _family(described, *LABELS)
            for labels, snapshot in snapshots:
                if (value := _value(snapshot, described.field)) is not None:
                    family.add_metric(labels, float(value))
            yield family
        for described in _STORE_METRICS:
            family = _family(described, *LABELS)
            for labels, snapshot in snapshots:
                if snapshot.get("store") is not None:
                    value = snapshot["store"][described.field]
                    family.add_metric(labels, float(bool(value) if isinstance(value, str) else value))
            yield family
        by_reason = _family(_BY_REASON, *LABELS, "reason_code", "reason")
        since = _family(_SINCE, *LABELS)
        for labels, snapshot in snapshots:
            for code, datapoints in snapshot[_BY_REASON.field].items():
                by_reason.add_metric([*labels, code, reason_name(int(code))], datapoints)
            if snapshot[_SINCE.field] is not None:
                since.add_metric(labels, snapshot[_SINCE.field] / 1000)
        yield by_reason
        yield since


def _value(snapshot: dict[str, Any], field: str) -> Any:
    """Return the value of a field; ``None`` if there is none."""
    outer, _, inner = field.partition(".")
    value = snapshot.get(outer)
    return value.get(inner) if inner and value is not None else value


def _family(described: _Described, *labels: str) -> Any:
    return described.family(PREFIX + described.name, described.help, labels=labels)


def _labels(health: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(health[name]) for name in LABELS)
