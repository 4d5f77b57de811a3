"""Requests of client-side and server-side RPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import JSONCompatibleType, validate_json_compatibility
from tb_mqtt_client.entities.data.request_ids import RPCRequestIdProducer
from tb_mqtt_client.entities.factory_made import FactoryMade


@dataclass(frozen=True, init=False, repr=False)
class RPCRequest(FactoryMade):
    """An RPC request: client-side if a program makes it with ``build``, server-side if the client passes it to a callback."""

    request_id: int | str
    """Identifies a client-side RPC in the program; the client uses its own number on the wire. The id of a server-side RPC is the
    platform's, which counts from 0 and starts again when the server restarts."""
    method: str
    """The name of the method."""
    params: Any = None
    """The parameters, a JSON value."""

    @classmethod
    async def build(cls, method: str, params: JSONCompatibleType = None) -> Self:
        """Make a request of a client-side RPC.

        Args:
            method: The name of the method.
            params: The parameters, a JSON value.

        Returns:
            A request with a new id.

        Raises:
            ValueError: ``method`` is not a ``str``, or JSON cannot express ``params``.
        """
        return cls.create(method, params)

    @classmethod
    def create(cls, method: str, params: JSONCompatibleType = None) -> Self:
        """Make a request of a client-side RPC without a coroutine.

        Args:
            method: The name of the method.
            params: The parameters, a JSON value.

        Returns:
            A request with a new id.

        Raises:
            ValueError: ``method`` is not a ``str``, or JSON cannot express ``params``.
        """
        if not isinstance(method, str):
            raise ValueError("Method must be a string")  # noqa: TRY004  # the type and the text are public
        validate_json_compatibility(params)
        return cls._made(request_id=RPCRequestIdProducer.next_id(), method=method, params=params)

    @classmethod
    def from_dict(cls, request_id: Any, data: dict[str, Any]) -> Self:
        """Read a server-side RPC from the platform's JSON object.

        Args:
            request_id: The id of the request, which is part of the topic.
            data: ``{"method": m, "params": p}``; the parameters may be missing.

        Raises:
            ValueError: The id or the method is missing or has the wrong type.
        """
        if not isinstance(request_id, int | str) or isinstance(request_id, bool):
            raise ValueError("Missing request id in RPC request")  # noqa: TRY004  # the type and the text are public
        if not isinstance(data.get("method"), str):
            raise ValueError("Missing 'method' in RPC request")  # noqa: TRY004  # the type and the text are public
        return cls._made(request_id=request_id, method=data["method"], params=data.get("params"))

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{"id": n, "method": m, "params": p}``, without the parameters if they are ``None``."""
        params = {} if self.params is None else {"params": self.params}
        return {"id": self.request_id, "method": self.method} | params

    def __repr__(self) -> str:
        return f"RPCRequest(id={self.request_id}, method={self.method}, params={self.params})"

    __str__ = __repr__
