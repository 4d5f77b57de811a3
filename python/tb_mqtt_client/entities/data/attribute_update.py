"""Changes of shared attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(repr=False)
class AttributeUpdate(BaseGatewayEvent):
    """A change of shared attributes: new values or deleted keys. The platform never sends both in one message."""

    entries: list[AttributeEntry]
    """The attributes with their new values."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_ATTRIBUTE_UPDATE
    deleted_keys: list[str] = field(default_factory=list)
    """The keys of deleted attributes."""

    @staticmethod
    def from_dict(data: dict[str, Any]) -> AttributeUpdate:
        """Read an update from the platform's JSON object.

        Args:
            data: ``{key: value}``, or ``{"deleted": [key, ...]}`` for deleted attributes. An attribute with the key "deleted" and a
                list of ``str`` as its value cannot be distinguished from a deletion (docs/platform_contract.md, section 2).

        Raises:
            ValueError: A key or a value is not valid for an attribute.
        """
        deleted = data.get("deleted")
        if len(data) == 1 and isinstance(deleted, list) and all(isinstance(key, str) for key in deleted):
            return AttributeUpdate([], deleted_keys=list(deleted))
        return AttributeUpdate([AttributeEntry(key, value) for key, value in data.items()])

    def get(self, key: str, default: Any = None) -> Any:
        """Return the new value of an attribute, or ``default`` if it has none."""
        return next((entry.value for entry in self.entries if entry.key == key), default)

    def keys(self) -> list[str]:
        """Return the keys of attributes with a new value."""
        return [entry.key for entry in self.entries]

    def values(self) -> list[Any]:
        """Return the new values."""
        return [entry.value for entry in self.entries]

    def items(self) -> list[tuple[str, Any]]:
        """Return ``(key, new value)`` pairs."""
        return [(entry.key, entry.value) for entry in self.entries]

    def as_dict(self) -> dict[str, Any]:
        """Return ``{key: new value}``."""
        return dict(self.items())

    def __repr__(self) -> str:
        deleted = f", deleted_keys={self.deleted_keys}" if self.deleted_keys else ""
        return f"{type(self).__name__}(entries={self.entries}{deleted})"
