"""A timeseries datapoint, implemented in the native core."""

from tb_mqtt_client._native import TimeseriesEntry

__all__ = ["TimeseriesEntry"]
