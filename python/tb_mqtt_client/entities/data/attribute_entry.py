"""One attribute of a device (native)."""

from tb_mqtt_client._native import AttributeEntry

__all__ = ["AttributeEntry"]
