"""Tells a sub-device that shared attributes have changed."""

from __future__ import annotations

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate


class GatewayAttributeUpdate(AttributeUpdate):
    """An ``AttributeUpdate`` and the name of its device."""

    def __init__(self, device_name: str, attribute_update: AttributeUpdate | list[AttributeEntry] | AttributeEntry) -> None:
        update = _as_update(attribute_update)
        super().__init__(update.entries, deleted_keys=update.deleted_keys)
        self.device_name = device_name
        self.attribute_update = update

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GatewayAttributeUpdate):
            return NotImplemented
        return (self.device_name, self.attribute_update) == (other.device_name, other.attribute_update)

    __hash__ = None  # type: ignore[assignment]  # it may change

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
