"""One datapoint (native)."""

from tb_mqtt_client._native import DataEntry

__all__ = ["DataEntry"]
