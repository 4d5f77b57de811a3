"""A remote procedure call of the platform to a sub-device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class GatewayRPCRequest(FactoryMade, BaseGatewayEvent):
    """Made by the client. ``request_id`` is the platform's: counted from 0 a device, and again after a restart of the server."""

    request_id: int | str
    device_name: str
    method: str
    params: Any | None = None
    event_type: GatewayEventType = GatewayEventType.DEVICE_RPC_REQUEST

    @classmethod
    def _deserialize_from_dict(cls, data: dict[str, Any]) -> Self:
        """From ``{"device": d, "data": {"id": n, "method": m, "params": p}}``, where the params may be missing.

        Raises ``ValueError``, and ``KeyError`` without ``data``.
        """
        device_name = data.get("device")
        if not isinstance(device_name, str) or not device_name:
            raise ValueError("Missing device name in RPC request")
        call = data["data"]
        if not isinstance(call, dict):
            raise ValueError("'data' must be an object in RPC request")  # noqa: TRY004  # bad data, not a bad call
        request_id, method = call.get("id"), call.get("method")
        if not isinstance(request_id, int | str) or isinstance(request_id, bool):
            raise ValueError("Missing request id in RPC request")  # noqa: TRY004  # published type and text
        if not isinstance(method, str):
            raise ValueError("Missing 'method' in RPC request")  # noqa: TRY004  # published type and text
        return cls._made(request_id=request_id, device_name=device_name, method=method, params=call.get("params"))

    def __repr__(self) -> str:
        return f"RPCRequest(id={self.request_id}, device_name={self.device_name}, method={self.method}, params={self.params})"

    __str__ = __repr__
