"""Asks the platform for attributes of a sub-device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.data.attribute_request import AttributeRequest, Keys, check_key_lists
from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer


@dataclass(frozen=True, init=False, repr=False)
class GatewayAttributeRequest(AttributeRequest):
    """Made by ``build`` or ``from_attribute_request``.

    The platform takes keys of one scope a message, and needs at least one (docs/platform_contract.md, section 4): when both scopes
    are asked for, the client sends two messages and gives one answer.
    """

    device_session: Any = None

    @classmethod
    async def build(  # type: ignore[override]  # published: a sub-device's request has a session before its keys
        cls, device_session: Any, shared_keys: Keys = None, client_keys: Keys = None
    ) -> Self:
        """Ask for the named attributes of a device. Raises ``ValueError`` for keys that are no list of non-empty ``str``."""
        request = cls.of(await AttributeRequestIdProducer.get_next(), shared_keys, client_keys)
        return request.with_fields(device_session=device_session)

    @classmethod
    async def from_attribute_request(cls, device_session: Any, attribute_request: AttributeRequest) -> Self:
        """The same keys and id for a sub-device."""
        if not isinstance(attribute_request, AttributeRequest):
            raise TypeError("attribute_request must be an instance of AttributeRequest")
        request = cls.of(attribute_request.request_id, attribute_request.shared_keys, attribute_request.client_keys)
        return request.with_fields(device_session=device_session)

    @staticmethod
    def check_keys(shared_keys: Keys, client_keys: Keys) -> None:
        """Raise ``ValueError`` for what is no list of keys. A gateway's keys travel one by one: commas may be in them."""
        check_key_lists(shared_keys, client_keys, bool, "non-empty str")

    def scopes(self) -> list[tuple[bool, list[str]]]:
        """``(whether it is the client scope, keys)`` of each scope that is asked for: the messages that it takes."""
        both = (True, self.client_keys), (False, self.shared_keys)
        return [(client, list(keys)) for client, keys in both if keys]

    def to_payload_format(self) -> dict[str, Any]:
        """``{"device": name, "id": n, "client": bool, "key": k}``, with ``"keys": [...]`` for several; of two scopes the client's.

        Without keys there are ``device`` and ``id`` only, which the platform refuses.
        """
        start = {"device": self.device_session.device_info.device_name, "id": self.request_id}
        scopes = self.scopes()
        return start | scope_format(*scopes[0]) if scopes else start

    def __repr__(self) -> str:
        return (
            f"GatewayAttributeRequest(id={self.request_id}, device_session={self.device_session}, "
            f"shared_keys={self.shared_keys}, client_keys={self.client_keys})"
        )


def scope_format(client: bool, keys: list[str]) -> dict[str, Any]:
    """``{"client": bool, "key": k}`` for one key, ``{"client": bool, "keys": [...]}`` for several."""
    return {"client": client} | ({"key": keys[0]} if len(keys) == 1 else {"keys": keys})
