"""Asks the platform for attributes of the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import UnsupportedValueError
from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer
from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType

Keys = list[str] | None


@dataclass(frozen=True, init=False, repr=False)
class AttributeRequest(FactoryMade, BaseGatewayEvent):
    """Made by ``build``. ``request_id`` tells a program's requests apart; on the wire the client uses a number of its own."""

    request_id: int
    shared_keys: Keys = None
    client_keys: Keys = None
    event_type: GatewayEventType = GatewayEventType.DEVICE_ATTRIBUTE_REQUEST

    @classmethod
    async def build(cls, shared_keys: Keys = None, client_keys: Keys = None) -> Self:
        """Ask for the named attributes, or for all of both scopes when neither list is given.

        An empty list asks for nothing of its scope. Raises ``ValueError`` for a key that is empty or has a comma, and when nothing
        at all would be asked for; for what is no list of ``str`` it is an ``UnsupportedValueError``.
        """
        cls.check_keys(shared_keys, client_keys)
        return cls.of(await AttributeRequestIdProducer.get_next(), shared_keys, client_keys)

    @classmethod
    def of(cls, request_id: int, shared_keys: Keys, client_keys: Keys) -> Self:
        """The same with an id that the caller has. Raises as ``build`` does."""
        cls.check_keys(shared_keys, client_keys)
        return cls._made(request_id=request_id, shared_keys=_copied(shared_keys), client_keys=_copied(client_keys))

    @staticmethod
    def check_keys(shared_keys: Keys, client_keys: Keys) -> None:
        """Raise ``ValueError`` for keys that cannot be asked for."""
        # The platform splits at commas (docs/platform_contract.md, section 2).
        check_key_lists(shared_keys, client_keys, lambda key: key and "," not in key, "non-empty str without commas")
        if not shared_keys and not client_keys and not (shared_keys is None and client_keys is None):
            raise ValueError("shared_keys and client_keys ask for nothing: name a key, or give neither to ask for all attributes")

    def to_payload_format(self) -> dict[str, Any]:
        """``{"sharedKeys": "a,b", "clientKeys": "c"}`` without what is empty, since ``""`` would ask for a key named so."""
        named = {"sharedKeys": self.shared_keys, "clientKeys": self.client_keys}
        return {name: ",".join(keys) for name, keys in named.items() if keys}

    def __repr__(self) -> str:
        return f"AttributeRequest(id={self.request_id}, shared_keys={self.shared_keys}, client_keys={self.client_keys})"


def check_key_lists(shared_keys: Keys, client_keys: Keys, allowed: Callable[[str], object], what: str) -> None:
    """Raise ``ValueError`` unless all keys are ``allowed``, which ``what`` says in words.

    For what is no list of ``str`` it is an ``UnsupportedValueError``.
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
