"""Changes of shared attributes of a sub-device."""

from __future__ import annotations

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate


class GatewayAttributeUpdate(AttributeUpdate):
    """An ``AttributeUpdate`` of a sub-device.

    Attributes:
        device_name: The sub-device's name.
        attribute_update: The update without the name.
    """

    def __init__(self, device_name: str, attribute_update: AttributeUpdate | list[AttributeEntry] | AttributeEntry) -> None:
        """Make an update of a sub-device.

        Args:
            device_name: The sub-device's name.
            attribute_update: An update, or the attributes with their new values.

        Raises:
            TypeError: ``attribute_update`` has another type.
        """
        update = _as_update(attribute_update)
        super().__init__(update.entries, deleted_keys=update.deleted_keys)
        self.device_name = device_name
        self.attribute_update = update

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GatewayAttributeUpdate):
            return NotImplemented
        return (self.device_name, self.attribute_update) == (other.device_name, other.attribute_update)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __str__(self) -> str:
        return f"GatewayAttributeUpdate(device_name={self.device_name}, attribute_update={self.attribute_update})"


def _as_update(update: AttributeUpdate | list[AttributeEntry] | AttributeEntry) -> AttributeUpdate:
    if isinstance(update, AttributeUpdate):
        return update
    entries = update if isinstance(update, list) else [update]
    if not all(isinstance(entry, AttributeEntry) for entry in entries):
        raise TypeError(
            "attribute_update must be an instance of AttributeUpdate, list of AttributeEntry, or a single AttributeEntry."
        )
    return AttributeUpdate(entries)
