"""An attribute of a device, implemented in the native core."""

from tb_mqtt_client._native import AttributeEntry

__all__ = ["AttributeEntry"]
