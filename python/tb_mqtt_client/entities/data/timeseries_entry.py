"""One timeseries datapoint (native)."""

from tb_mqtt_client._native import TimeseriesEntry

__all__ = ["TimeseriesEntry"]
