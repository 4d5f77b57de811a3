"""Requests for attributes of a sub-device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.data.attribute_request import AttributeRequest, Keys, check_key_lists
from tb_mqtt_client.entities.data.request_ids import AttributeRequestIdProducer


@dataclass(frozen=True, init=False, repr=False)
class GatewayAttributeRequest(AttributeRequest):
    """A request for attributes of a sub-device, made by ``build`` or ``from_attribute_request``.

    The platform accepts keys of one scope in a message, at least one (docs/platform_contract.md, section 4). For a request of both
    scopes the client sends two messages and returns one response.
    """

    device_session: Any = None
    """The ``DeviceSession`` of the sub-device."""

    @classmethod
    async def build(  # type: ignore[override]  # public: the session comes before the keys
        cls, device_session: Any, shared_keys: Keys = None, client_keys: Keys = None
    ) -> Self:
        """Make a request for attributes of a sub-device.

        Args:
            device_session: The ``DeviceSession`` of the sub-device.
            shared_keys: Keys of shared attributes; ``None`` or an empty list for none.
            client_keys: Keys of client attributes; ``None`` or an empty list for none.

        Returns:
            A request with a new id.

        Raises:
            ValueError: An argument is not a list of non-empty ``str``.
        """
        request = cls.of(await AttributeRequestIdProducer.get_next(), shared_keys, client_keys)
        return request.with_fields(device_session=device_session)

    @classmethod
    async def from_attribute_request(cls, device_session: Any, attribute_request: AttributeRequest) -> Self:
        """Make a request for attributes of a sub-device, with the keys and the id of another request.

        Args:
            device_session: The ``DeviceSession`` of the sub-device.
            attribute_request: The other request.

        Raises:
            TypeError: ``attribute_request`` is not an ``AttributeRequest``.
        """
        if not isinstance(attribute_request, AttributeRequest):
            raise TypeError("attribute_request must be an instance of AttributeRequest")
        request = cls.of(attribute_request.request_id, attribute_request.shared_keys, attribute_request.client_keys)
        return request.with_fields(device_session=device_session)

    @staticmethod
    def check_keys(shared_keys: Keys, client_keys: Keys) -> None:
        """Raise unless the keys can be requested. Unlike those of a device, they may contain commas.

        Args:
            shared_keys: As for ``build``.
            client_keys: As for ``build``.

        Raises:
            ValueError: An argument is not a list of non-empty ``str``.
        """
        check_key_lists(shared_keys, client_keys, bool, "non-empty str")

    def scopes(self) -> list[tuple[bool, list[str]]]:
        """Return ``(True for client attributes, keys)`` for each requested scope, which is one message each."""
        both = (True, self.client_keys), (False, self.shared_keys)
        return [(client, list(keys)) for client, keys in both if keys]

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{"device": name, "id": n, "client": bool, "key": k}``, with ``"keys": [...]`` for several keys.

        If both scopes are requested, only the keys of client attributes are included. Without keys, ``device`` and ``id`` remain,
        which the platform refuses.
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
    """Return ``{"client": bool, "key": k}`` for one key, or ``{"client": bool, "keys": [...]}`` for several."""
    return {"client": client} | ({"key": keys[0]} if len(keys) == 1 else {"keys": keys})
