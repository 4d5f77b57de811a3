"""Who a sub-device is."""

from __future__ import annotations

import uuid
from typing import Any


class DeviceInfo:
    """Name and profile; ``device_id`` and ``original_name`` stay the same when the device is renamed."""

    __slots__ = ("device_id", "device_name", "device_profile", "original_name")

    device_name: str
    device_profile: str
    device_id: uuid.UUID
    original_name: str

    def __init__(self, device_name: str, device_profile: str) -> None:
        self._fill(device_name, device_profile, uuid.uuid4(), device_name)

    def _fill(self, device_name: str, device_profile: str, device_id: uuid.UUID, original_name: str) -> None:
        fields = {
            "device_name": device_name,
            "device_profile": device_profile,
            "device_id": device_id,
            "original_name": original_name,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DeviceInfo:
        """From what ``to_dict`` gave. Raises ``KeyError`` without name or id, ``ValueError`` when the id is no UUID."""
        info = object.__new__(cls)
        name = data["device_name"]
        device_id = uuid.UUID(data["device_id"])
        info._fill(name, data.get("device_profile", "default"), device_id, data.get("original_name", name))
        return info

    def rename(self, new_name: str) -> None:
        """Change the name."""
        object.__setattr__(self, "device_name", new_name)

    def to_dict(self) -> dict[str, str]:
        """All fields, as text."""
        return {
            "device_name": self.device_name,
            "device_profile": self.device_profile,
            "device_id": str(self.device_id),
            "original_name": self.original_name,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Cannot modify attribute '{name}' of DeviceInfo, rename() changes the name")

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, DeviceInfo) else NotImplemented

    def __hash__(self) -> int:
        # The name may change: an object has to be found again where it was put.
        return hash(self.device_id)

    def __str__(self) -> str:
        return (
            f"DeviceInfo(device_id={self.device_id}, device_name={self.device_name}, "
            f"device_profile={self.device_profile}, original_name={self.original_name})"
        )

    def __repr__(self) -> str:
        return (
            f"DeviceInfo(device_id={self.device_id!r}, device_name={self.device_name!r}, "
            f"device_profile={self.device_profile!r}, original_name={self.original_name!r})"
        )
