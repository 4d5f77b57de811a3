"""A datapoint, implemented in the native core."""

from tb_mqtt_client._native import DataEntry

__all__ = ["DataEntry"]
