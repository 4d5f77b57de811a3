"""``client.statistics`` as Prometheus metrics, extra ``metrics``.

>>> metrics = ClientMetrics()  # in the default registry, or in the one that is given
>>> metrics.add(client)
>>> prometheus_client.start_http_server(9100)

The rule: nothing is counted here. Numbers are read from the clients when somebody scrapes, and from nowhere else.
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
    """What a client has to tell: ``DeviceClient`` and ``GatewayClient`` do."""

    def health(self) -> dict[str, Any]:
        """State of now, with the fields of ``Statistics``."""


@dataclass(frozen=True, slots=True)
class _Described:
    """One metric and the field of the health snapshot that it shows."""

    field: str
    name: str
    help: str
    family: Callable[..., Metric] = CounterMetricFamily


_METRICS = (
    _Described("accepted", "accepted_datapoints", "Datapoints taken by a send call"),
    _Described("acknowledged", "acknowledged_datapoints", "Datapoints that the platform acknowledged"),
    _Described("rejected", "rejected_datapoints", "Datapoints that the platform refused, or that no payload can hold"),
    _Described("dropped", "dropped_datapoints", "Datapoints given up by the queue policy"),
    _Described("undelivered", "undelivered_datapoints", "Datapoints not sent before the client was stopped"),
    _Described("queued", "queued_datapoints", "Datapoints between the door and the wire", GaugeMetricFamily),
    _Described("in_flight", "in_flight_datapoints", "Datapoints published and not acknowledged so far", GaugeMetricFamily),
    # Taken back when a payload has to be published again, so it may fall.
    _Described("superseded", "superseded_datapoints", "Datapoints replaced by a later value of their key", GaugeMetricFamily),
    _Described("messages_published", "published_messages", "PUBLISH packets with datapoints"),
    _Described("messages_acknowledged", "acknowledged_messages", "PUBLISH packets with datapoints that were acknowledged"),
    _Described("messages_rejected", "rejected_messages", "PUBLISH packets with datapoints that were refused for good"),
    _Described("messages_returned", "returned_messages", "PUBLISH packets with datapoints that have to be published again"),
    _Described("bytes_published", "published_bytes", "Payload bytes of the PUBLISH packets with datapoints"),
    _Described("payload_limit_bytes", "payload_limit_bytes", "Bytes that these payloads might have held"),
    _Described("queued_calls", "queued_calls", "Calls whose datapoints are not packed so far", GaugeMetricFamily),
    _Described("in_flight_messages", "in_flight_messages", "PUBLISH packets of any kind without PUBACK", GaugeMetricFamily),
    _Described("connections", "connections", "Sessions begun"),
    _Described("seconds_limited", "limited_seconds", "Seconds in which a message waited for the server's limits"),
    _Described("backpressure_pauses", "backpressure_pauses", "Pauses of publishing after a refusal for a quota"),
    _Described("inbound_messages", "inbound_messages", "Messages that the server sent"),
    _Described("inbound_malformed", "inbound_malformed_messages", "Messages of the server that cannot be read"),
    _Described("inbound_unexpected", "inbound_unexpected_messages", "Messages of the server that nobody waits for"),
    _Described("inbound_refused", "inbound_refused_messages", "Messages of the server that were too many for the callbacks"),
    _Described("callback_errors", "callback_errors", "Callbacks of the program that failed"),
    _Described("values_rounded", "rounded_values", "Floats that were rounded to 16 decimal places"),
    _Described("values_stored_as_text", "values_stored_as_text", "Numbers that the platform stores as text"),
    _Described("connected", "connected", "Whether there is a connection", GaugeMetricFamily),
    _Described("ready", "ready", "Whether the session is set up, so that data may go", GaugeMetricFamily),
    _Described("limited", "limited", "Whether a message waits for the limits or a pause now", GaugeMetricFamily),
    _Described("devices", "sub_devices", "Sub-devices that are registered with the gateway", GaugeMetricFamily),
)
_BY_REASON = _Described("rejected_by_reason", "rejected_datapoints_by_reason", "The rejected datapoints by reason code")
_SINCE = _Described(
    "since", "connection_changed_timestamp_seconds", "When the connection came or ended, seconds since the epoch", GaugeMetricFamily
)


class ClientMetrics(Collector):
    """The metrics of any number of clients in one registry.

    A scrape may come from any thread. Each number is exact; while the event loop runs in another thread their sum may be
    off by the one call that is being counted.
    """

    def __init__(self, *clients: Observed, registry: CollectorRegistry | None = REGISTRY) -> None:
        """``registry=None``: register this collector yourself. Raises ``ValueError`` when the registry has one already."""
        self._clients: dict[tuple[str, ...], Observed] = {}
        self._registry = registry
        for client in clients:
            self.add(client)
        if registry is not None:
            registry.register(self)

    def add(self, client: Observed) -> None:
        """Show a client. Raises ``ValueError`` when another one of the same client id, host and port is shown."""
        labels = _labels(client.health())
        if self._clients.setdefault(labels, client) is not client:
            raise ValueError(f"client: there is one with {dict(zip(LABELS, labels, strict=True))} already")

    def remove(self, client: Observed) -> None:
        """Show a client no longer. Raises ``ValueError`` when it is not shown."""
        for labels, known in self._clients.items():
            if known is client:
                # A new dict, since a scrape in another thread may be walking the old one.
                self._clients = {other: one for other, one in self._clients.items() if other != labels}
                return
        raise ValueError("client: it is not among the clients that are shown")

    def close(self) -> None:
        """Leave the registry."""
        if self._registry is not None:
            self._registry.unregister(self)
            self._registry = None

    def describe(self) -> Iterable[Metric]:
        """The names, without a number: the registry keeps them from being used twice."""
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        """What the clients tell now."""
        return self._families([(list(labels), client.health()) for labels, client in list(self._clients.items())])

    @staticmethod
    def _families(snapshots: list[tuple[list[str], dict[str, Any]]]) -> Iterable[Metric]:
        for described in _METRICS:
            family = _family(described, *LABELS)
            for labels, snapshot in snapshots:
                if described.field in snapshot:
                    family.add_metric(labels, float(snapshot[described.field]))
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


def _family(described: _Described, *labels: str) -> Any:
    return described.family(PREFIX + described.name, described.help, labels=labels)


def _labels(health: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(health[name]) for name in LABELS)
