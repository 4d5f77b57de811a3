"""Tells the device that shared attributes have changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(repr=False)
class AttributeUpdate(BaseGatewayEvent):
    """New values in ``entries``, or the keys that were deleted; the platform never sends both in one message."""

    entries: list[AttributeEntry]
    event_type: GatewayEventType = GatewayEventType.DEVICE_ATTRIBUTE_UPDATE
    deleted_keys: list[str] = field(default_factory=list)

    @classmethod
    def _deserialize_from_dict(cls, data: dict[str, Any]) -> Self:
        """From ``{key: value}``, or ``{"deleted": [key, ...]}``, which is how the platform tells a deletion.

        An attribute named "deleted" whose value is a list of ``str`` looks the same (docs/platform_contract.md, section 2). Raises
        ``ValueError`` for what cannot be an attribute.
        """
        deleted = data.get("deleted")
        if len(data) == 1 and isinstance(deleted, list) and all(isinstance(key, str) for key in deleted):
            return cls([], deleted_keys=list(deleted))
        return cls([AttributeEntry(key, value) for key, value in data.items()])

    def get(self, key: str, default: Any = None) -> Any:
        """The new value of an attribute."""
        return next((entry.value for entry in self.entries if entry.key == key), default)

    def keys(self) -> list[str]:
        """Keys with a new value."""
        return [entry.key for entry in self.entries]

    def values(self) -> list[Any]:
        """The new values."""
        return [entry.value for entry in self.entries]

    def items(self) -> list[tuple[str, Any]]:
        """Keys and new values."""
        return [(entry.key, entry.value) for entry in self.entries]

    def as_dict(self) -> dict[str, Any]:
        """``{key: new value}``"""
        return dict(self.items())

    def __repr__(self) -> str:
        deleted = f", deleted_keys={self.deleted_keys}" if self.deleted_keys else ""
        return f"{type(self).__name__}(entries={self.entries}{deleted})"
