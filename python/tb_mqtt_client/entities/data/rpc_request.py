"""A remote procedure call, in either direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.json_typing import JSONCompatibleType, validate_json_compatibility
from tb_mqtt_client.entities.data.request_ids import RPCRequestIdProducer
from tb_mqtt_client.entities.factory_made import FactoryMade


@dataclass(frozen=True, init=False, repr=False)
class RPCRequest(FactoryMade):
    """Made by ``build`` for a call to the platform, and by the client for a call of the platform.

    ``request_id`` tells a program's calls apart; on the wire the client uses a number of its own. Of a call of the platform
    it is the platform's number, which begins with 0 and comes again after a restart of the server.
    """

    request_id: int | str
    method: str
    params: Any = None

    @classmethod
    async def build(cls, method: str, params: JSONCompatibleType = None) -> Self:
        """Raises ``ValueError`` when ``method`` is no ``str`` and when JSON cannot carry ``params``."""
        if not isinstance(method, str):
            raise ValueError("Method must be a string")  # noqa: TRY004  # published type and text
        validate_json_compatibility(params)
        return cls._made(request_id=await RPCRequestIdProducer.get_next(), method=method, params=params)

    @classmethod
    def _deserialize_from_dict(cls, request_id: Any, data: dict[str, Any]) -> Self:
        """From ``{"method": m, "params": p}``, where the params may be missing. Raises ``ValueError``."""
        if not isinstance(request_id, int | str) or isinstance(request_id, bool):
            raise ValueError("Missing request id in RPC request")  # noqa: TRY004  # published type and text
        if not isinstance(data.get("method"), str):
            raise ValueError("Missing 'method' in RPC request")  # noqa: TRY004  # published type and text
        return cls._made(request_id=request_id, method=data["method"], params=data.get("params"))

    def to_payload_format(self) -> dict[str, Any]:
        """``{"id": n, "method": m, "params": p}``, the params only when they are not ``None``."""
        params = {} if self.params is None else {"params": self.params}
        return {"id": self.request_id, "method": self.method} | params

    def __repr__(self) -> str:
        return f"RPCRequest(id={self.request_id}, method={self.method}, params={self.params})"

    __str__ = __repr__
