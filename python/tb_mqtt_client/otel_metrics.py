"""Export ``client.health()`` as OpenTelemetry metrics (extra ``otel``).

>>> metrics = OpenTelemetryMetrics(client)  # of the global meter provider; meter_provider=... names another one

Nothing is counted here: the numbers are read when the SDK of the program collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
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
)

PREFIX = "tb_mqtt_client."
Callback = Callable[[CallbackOptions], Iterable[Observation]]


class OpenTelemetryMetrics(ExportedClients):
    """The metrics of any number of clients in one meter provider.

    The names are those of Prometheus with the prefix ``tb_mqtt_client.``, without ``_total``. A delay is a counter ``..._bucket``
    with the attribute ``le``, ``..._count`` and ``..._sum``: OpenTelemetry has no histogram that is read when it is collected.
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
        meter = get_meter("tb_mqtt_client", __version__, meter_provider)
        for metric in METRICS:
            _instrument(meter, metric.kind, metric.name, metric.help, partial(self._observe, metric))
        for histogram in HISTOGRAMS:
            name, text = histogram.name, histogram.help
            _instrument(meter, Kind.COUNTER, f"{name}_bucket", text, partial(self._observe_buckets, histogram))
            _instrument(meter, Kind.COUNTER, f"{name}_count", text, partial(self._observe_delays, histogram, "count"))
            _instrument(meter, Kind.COUNTER, f"{name}_sum", text, partial(self._observe_delays, histogram, "seconds"))

    def _observe(self, metric: ExportedMetric, _options: CallbackOptions) -> list[Observation]:
        return [
            Observation(value, dict(zip((*LABELS, *metric.labels), (*labels, *own_labels), strict=True)))
            for labels, health in self._snapshots()
            for own_labels, value in metric.values(health)
        ]

    def _observe_buckets(self, histogram: ExportedHistogram, _options: CallbackOptions) -> list[Observation]:
        observations = []
        for labels, health in self._snapshots():
            delays: dict[str, Any] = histogram.read(health)
            for bound, count in (*delays["buckets"].items(), ("+Inf", delays["count"])):
                observations.append(Observation(count, _attributes(labels) | {"le": bound}))
        return observations

    def _observe_delays(self, histogram: ExportedHistogram, field: str, _options: CallbackOptions) -> list[Observation]:
        snapshots = self._snapshots()
        return [Observation(histogram.read(health)[field], _attributes(labels)) for labels, health in snapshots]


def _attributes(labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(LABELS, labels, strict=True))


def _instrument(meter: Meter, kind: Kind, name: str, description: str, callback: Callback) -> None:
    create = meter.create_observable_counter if kind is Kind.COUNTER else meter.create_observable_gauge
    unit = "s" if name.endswith(("_seconds", "_seconds_sum")) else "By" if name.endswith("_bytes") else "1"
    create(PREFIX + name, callbacks=[callback], unit=unit, description=description)
