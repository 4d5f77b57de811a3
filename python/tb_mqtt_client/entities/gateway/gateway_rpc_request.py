"""Server-side RPC requests for sub-devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class GatewayRPCRequest(FactoryMade, BaseGatewayEvent):
    """A server-side RPC request for a sub-device, made by the client."""

    request_id: int | str
    """The platform's id, which counts from 0 for each sub-device and starts again when the server restarts."""
    device_name: str
    """The sub-device's name."""
    method: str
    """The name of the method."""
    params: Any | None = None
    """The parameters, a JSON value."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_RPC_REQUEST

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read a request from the platform's JSON object.

        Args:
            data: ``{"device": name, "data": {"id": n, "method": m, "params": p}}``; the parameters may be missing.

        Raises:
            KeyError: ``data`` is missing in the object.
            ValueError: Another part is missing or has the wrong type.
        """
        device_name = data.get("device")
        if not isinstance(device_name, str) or not device_name:
            raise ValueError("Missing device name in RPC request")
        rpc = data["data"]
        if not isinstance(rpc, dict):
            raise ValueError("'data' must be an object in RPC request")  # noqa: TRY004  # bad data, not a bad call
        request_id, method = rpc.get("id"), rpc.get("method")
        if not isinstance(request_id, int | str) or isinstance(request_id, bool):
            raise ValueError("Missing request id in RPC request")  # noqa: TRY004  # the type and the text are public
        if not isinstance(method, str):
            raise ValueError("Missing 'method' in RPC request")  # noqa: TRY004  # the type and the text are public
        return cls._made(request_id=request_id, device_name=device_name, method=method, params=rpc.get("params"))

    def __repr__(self) -> str:
        return f"RPCRequest(id={self.request_id}, device_name={self.device_name}, method={self.method}, params={self.params})"

    __str__ = __repr__
