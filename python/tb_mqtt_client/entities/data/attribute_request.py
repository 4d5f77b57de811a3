"""Requests for attributes of the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import UnsupportedValueError
from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer
from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType

Keys = list[str] | None
"""Keys of attributes, or ``None``; each method says what ``None`` means."""


@dataclass(frozen=True, init=False, repr=False)
class AttributeRequest(FactoryMade, BaseGatewayEvent):
    """A request for attributes of the device, made by ``build``."""

    request_id: int
    """Identifies the request in the program. The client uses its own number on the wire."""
    shared_keys: Keys = None
    """Keys of shared attributes."""
    client_keys: Keys = None
    """Keys of client attributes."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_ATTRIBUTE_REQUEST

    @classmethod
    async def build(cls, shared_keys: Keys = None, client_keys: Keys = None) -> Self:
        """Make a request for attributes. Without any argument it requests all attributes of both scopes.

        Args:
            shared_keys: Keys of shared attributes; ``None`` or an empty list for none.
            client_keys: Keys of client attributes; ``None`` or an empty list for none.

        Returns:
            A request with a new id.

        Raises:
            ValueError: A key is empty or contains a comma, or the arguments request nothing. It is an ``UnsupportedValueError``
                if an argument is not a list of ``str``.
        """
        return cls.create(shared_keys, client_keys)

    @classmethod
    def create(cls, shared_keys: Keys = None, client_keys: Keys = None) -> Self:
        """Make a request for attributes without a coroutine. Without any argument it requests all attributes of both scopes.

        Args:
            shared_keys: As for ``build``.
            client_keys: As for ``build``.

        Returns:
            A request with a new id.

        Raises:
            ValueError: As ``build``.
        """
        cls.check_keys(shared_keys, client_keys)
        return cls.of(AttributeRequestIdProducer.next_id(), shared_keys, client_keys)

    @classmethod
    def of(cls, request_id: int, shared_keys: Keys, client_keys: Keys) -> Self:
        """Make a request with a given id.

        Args:
            request_id: The id of the request.
            shared_keys: As for ``build``.
            client_keys: As for ``build``.

        Raises:
            ValueError: As ``build``.
        """
        cls.check_keys(shared_keys, client_keys)
        return cls._made(request_id=request_id, shared_keys=_copied(shared_keys), client_keys=_copied(client_keys))

    @staticmethod
    def check_keys(shared_keys: Keys, client_keys: Keys) -> None:
        """Raise unless the keys can be requested.

        Args:
            shared_keys: As for ``build``.
            client_keys: As for ``build``.

        Raises:
            ValueError: As ``build``.
        """
        # The platform splits the list of keys at commas (docs/platform_contract.md, section 2).
        check_key_lists(shared_keys, client_keys, lambda key: key and "," not in key, "non-empty str without commas")
        if not shared_keys and not client_keys and not (shared_keys is None and client_keys is None):
            raise ValueError("shared_keys and client_keys request nothing: name a key, or omit both to request all attributes")

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{"sharedKeys": "a,b", "clientKeys": "c"}``, without empty parts.

        An empty part would request a key with an empty name.
        """
        named = {"sharedKeys": self.shared_keys, "clientKeys": self.client_keys}
        return {name: ",".join(keys) for name, keys in named.items() if keys}

    def __repr__(self) -> str:
        return f"AttributeRequest(id={self.request_id}, shared_keys={self.shared_keys}, client_keys={self.client_keys})"


def check_key_lists(shared_keys: Keys, client_keys: Keys, allowed: Callable[[str], object], what: str) -> None:
    """Raise unless each argument is ``None`` or a list of allowed keys.

    Args:
        shared_keys: Keys of shared attributes.
        client_keys: Keys of client attributes.
        allowed: Returns a true value for an allowed key.
        what: Describes allowed keys in the error.

    Raises:
        ValueError: A key is not allowed. It is an ``UnsupportedValueError`` if an argument is not a list of ``str``.
    """
    for name, keys in (("shared_keys", shared_keys), ("client_keys", client_keys)):
        if keys is None:
            continue
        complaint = f"{name} must be None or a list of {what}, not {keys!r}"
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise UnsupportedValueError(complaint)
        if not all(map(allowed, keys)):
            raise ValueError(complaint)


def _copied(keys: Keys) -> Keys:
    return None if keys is None else list(keys)
