"""Responses to attribute requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry


@dataclass(frozen=True, repr=False)
class RequestedAttributeResponse:
    """The requested attributes by scope. Attributes that do not exist on the platform are missing."""

    request_id: int
    """The id of the request; -1 if unknown."""
    shared: list[AttributeEntry]
    """Shared attributes."""
    client: list[AttributeEntry]
    """Client attributes."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read a response from a JSON object.

        Args:
            data: ``{"shared": {key: value}, "client": {key: value}, "request_id": n}``; each part may be missing.

        Raises:
            ValueError: A scope is not a dict, or a key or a value is not valid for an attribute.
        """
        return cls(
            request_id=data.get("request_id", -1),
            shared=_entries("shared", data.get("shared")),
            client=_entries("client", data.get("client")),
        )

    def __getitem__(self, key: str) -> Any:
        """Return the value of a shared attribute or, if there is none with this key, of a client attribute.

        Raises:
            KeyError: The response does not contain the attribute.
        """
        for entry in (*self.shared, *self.client):
            if entry.key == key:
                return entry.value
        raise KeyError(f"Key '{key}' not found in shared or client attributes.")

    def shared_keys(self) -> list[str]:
        """Return the keys of the shared attributes."""
        return [entry.key for entry in self.shared]

    def client_keys(self) -> list[str]:
        """Return the keys of the client attributes."""
        return [entry.key for entry in self.client]

    def get_shared(self, key: str, default: Any = None) -> Any:
        """Return the value of a shared attribute, or ``default`` if the response does not contain it."""
        return _find(self.shared, key, default)

    def get_client(self, key: str, default: Any = None) -> Any:
        """Return the value of a client attribute, or ``default`` if the response does not contain it."""
        return _find(self.client, key, default)

    def as_dict(self) -> dict[str, Any]:
        """Return ``{"shared": [{"key": k, "value": v}, ...], "client": [...]}``."""
        return {
            "shared": [entry.as_dict() for entry in self.shared],
            "client": [entry.as_dict() for entry in self.client],
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(request_id={self.request_id}, shared={self.shared}, client={self.client})"


def _entries(scope: str, values: Any) -> list[AttributeEntry]:
    if values is None:
        return []
    if not isinstance(values, dict):
        raise ValueError(f"{scope} must be a dict of attributes, not {values!r}")  # noqa: TRY004  # bad data, not a bad call
    return [AttributeEntry(key, value) for key, value in values.items()]


def _find(entries: Iterable[AttributeEntry], key: str, default: Any) -> Any:
    return next((entry.value for entry in entries if entry.key == key), default)
