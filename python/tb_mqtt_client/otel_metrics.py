"""Export ``client.health()`` as OpenTelemetry metrics (extra ``otel``).

>>> metrics = OpenTelemetryMetrics(client)  # of the global meter provider; meter_provider=... names another one

Nothing is counted here: the numbers are read when the SDK of the program collects them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

from tb_mqtt_client import __version__
from tb_mqtt_client.exported_metrics import (
    HISTOGRAMS,
    LABELS,
    METRICS,
    ExportedClients,
    ExportedHistogram,
    ExportedMetric,
    Kind,
    Observed,
    Snapshot,
)

PREFIX = "tb_mqtt_client."
Callback = Callable[[CallbackOptions], Iterable[Observation]]
MAX_AGE = 1.0
"""Seconds after which a snapshot is not used any more, for instruments that a meter provider does not collect each time."""


class OpenTelemetryMetrics(ExportedClients):
    """The metrics of any number of clients in one meter provider.

    The names are those of Prometheus with the prefix ``tb_mqtt_client.``, without ``_total``. A delay is a counter ``..._bucket``
    with the attribute ``le``, ``..._count`` and ``..._sum``: OpenTelemetry has no histogram that is read when it is collected.

    All instruments of a collection show the same moment, so that sums of them are exact. A collection may run in any thread.
    """

    def __init__(self, *clients: Observed, meter_provider: MeterProvider | None = None) -> None:
        """Create the instruments.

        Args:
            *clients: The clients to show; ``add()`` adds more.
            meter_provider: Where to create them. ``None``: in the global meter provider.

        Raises:
            ValueError: Two clients have equal labels.
        """
        super().__init__(*clients)
        self._lock = Lock()
        self._snapshot: list[Snapshot] = []
        self._readers: set[str] = set()
        self._taken_at = -MAX_AGE
        meter = get_meter("tb_mqtt_client", __version__, meter_provider)

        def create(kind: Kind, name: str, description: str, observe: Callable[[Iterable[Snapshot]], list[Observation]]) -> None:
            _instrument(meter, kind, name, description, lambda _options: observe(self._snapshot_for(name)))

        for metric in METRICS:
            create(metric.kind, metric.name, metric.help, partial(_observe, metric))
        for histogram in HISTOGRAMS:
            name, text = histogram.name, histogram.help
            create(Kind.COUNTER, f"{name}_bucket", text, partial(_observe_buckets, histogram))
            create(Kind.COUNTER, f"{name}_count", text, partial(_observe_delays, histogram, "count"))
            create(Kind.COUNTER, f"{name}_sum", text, partial(_observe_delays, histogram, "seconds"))

    def _snapshot_for(self, instrument: str) -> Iterable[Snapshot]:
        """Return the snapshot of the collection that an instrument is part of.

        A meter provider calls the callback of each instrument once in a collection, and reports neither the start nor the end
        of it. So an instrument that has read the current snapshot belongs to another collection, of any reader.
        """
        with self._lock:
            now = time.monotonic()
            if instrument in self._readers or now - self._taken_at >= MAX_AGE:
                self._snapshot = list(self._snapshots())
                self._readers.clear()
                self._taken_at = now
            self._readers.add(instrument)
            return self._snapshot


def _observe(metric: ExportedMetric, snapshots: Iterable[Snapshot]) -> list[Observation]:
    return [
        Observation(value, dict(zip((*LABELS, *metric.labels), (*labels, *own_labels), strict=True)))
        for labels, health in snapshots
        for own_labels, value in metric.values(health)
    ]


def _observe_buckets(histogram: ExportedHistogram, snapshots: Iterable[Snapshot]) -> list[Observation]:
    observations = []
    for labels, health in snapshots:
        delays: dict[str, Any] = histogram.read(health)
        for bound, count in (*delays["buckets"].items(), ("+Inf", delays["count"])):
            observations.append(Observation(count, _attributes(labels) | {"le": bound}))
    return observations


def _observe_delays(histogram: ExportedHistogram, field: str, snapshots: Iterable[Snapshot]) -> list[Observation]:
    return [Observation(histogram.read(health)[field], _attributes(labels)) for labels, health in snapshots]


def _attributes(labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(LABELS, labels, strict=True))


def _instrument(meter: Meter, kind: Kind, name: str, description: str, callback: Callback) -> None:
    create = meter.create_observable_counter if kind is Kind.COUNTER else meter.create_observable_gauge
    unit = "s" if name.endswith(("_seconds", "_seconds_sum")) else "By" if name.endswith("_bytes") else "1"
    create(PREFIX + name, callbacks=[callback], unit=unit, description=description)
