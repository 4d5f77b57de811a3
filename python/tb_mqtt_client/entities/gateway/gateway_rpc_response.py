"""A sub-device's answer to a remote procedure call of the platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.option_values import RPCReply
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class GatewayRPCResponse(RPCResponse, BaseGatewayEvent):
    """Made by ``build``."""

    device_name: str | None = None
    event_type: GatewayEventType = GatewayEventType.DEVICE_RPC_RESPONSE

    @classmethod
    def build(  # type: ignore[override]  # published: a sub-device's answer has its name first
        cls,
        device_name: str,
        request_id: int | str,
        result: Any | None = None,
        error: str | dict[str, Any] | BaseException | None = None,
    ) -> Self:
        """As ``RPCResponse.build``. Raises ``ValueError`` for an empty name too."""
        if not isinstance(device_name, str) or not device_name:
            raise ValueError("Device name must be a non-empty string")
        return cls.of_device(device_name, RPCResponse.build(request_id, result, error))

    @classmethod
    def of_device(cls, device_name: str, response: RPCResponse) -> Self:
        """Return a response as one of this sub-device."""
        return cls._made(
            device_name=device_name,
            request_id=response.request_id,
            status=response.status,
            result=response.result,
            error=response.error,
            reply=response.reply,
        )

    def to_payload_format(self, default: RPCReply = RPCReply.WRAPPED) -> dict[str, Any]:
        """Return ``{"device": name, "id": n, "data": reply}``. The reply is that of ``RPCResponse.to_payload_format``."""
        return {"device": self.device_name, "id": self.request_id, "data": super().to_payload_format(default)}

    def __repr__(self) -> str:
        return (
            f"GatewayRPCResponse(device_name={self.device_name}, request_id={self.request_id}, "
            f"result={self.result}, error={self.error})"
        )
