"""Export ``client.health()`` as Prometheus metrics (extra ``metrics``).

>>> metrics = ClientMetrics()  # in the default registry; registry=... names another one
>>> metrics.add(client)
>>> prometheus_client.start_http_server(9100)

Nothing is counted here: each scrape reads the numbers from the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tb_mqtt_client.exported_metrics import HISTOGRAMS, LABELS, METRICS, ExportedClients, Kind, Observed, Snapshot

PREFIX = "tb_mqtt_client_"
_FAMILIES: dict[Kind, Callable[..., Any]] = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}


class ClientMetrics(ExportedClients, Collector):
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
        super().__init__(*clients)
        self._registry = registry
        if registry is not None:
            registry.register(self)

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
        return self._families(self._snapshots())

    @staticmethod
    def _families(snapshots: Iterable[Snapshot]) -> Iterable[Metric]:
        for metric in METRICS:
            family = _FAMILIES[metric.kind](PREFIX + metric.name, metric.help, labels=(*LABELS, *metric.labels))
            for labels, health in snapshots:
                for own_labels, value in metric.values(health):
                    family.add_metric([*labels, *own_labels], value)
            yield family
        for exported in HISTOGRAMS:
            histogram = HistogramMetricFamily(PREFIX + exported.name, exported.help, labels=LABELS)
            for labels, health in snapshots:
                delays = exported.read(health)
                buckets = [*delays["buckets"].items(), ("+Inf", delays["count"])]
                histogram.add_metric(labels, buckets, sum_value=delays["seconds"])
            yield histogram
