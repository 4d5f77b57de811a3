"""Responses of sub-devices to server-side RPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.constants.option_values import RPCReply
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class GatewayRPCResponse(RPCResponse, BaseGatewayEvent):
    """A response of a sub-device to a server-side RPC, made by ``build``."""

    device_name: str | None = None
    """The sub-device's name."""
    event_type: GatewayEventType = GatewayEventType.DEVICE_RPC_RESPONSE

    @classmethod
    def build(  # type: ignore[override]  # public: the device's name comes first
        cls,
        device_name: str,
        request_id: int | str,
        result: Any | None = None,
        error: str | dict[str, Any] | BaseException | None = None,
    ) -> Self:
        """Make a response of a sub-device.

        Args:
            device_name: The sub-device's name.
            request_id: The id of the request.
            result: The result, a JSON value.
            error: ``None`` for success; otherwise a text, a dict of JSON values, or an exception, of which the message, the type
                and the traceback are sent.

        Raises:
            ValueError: The name is empty, the error has another type, or JSON cannot express the error or, without one, the result.
        """
        if not isinstance(device_name, str) or not device_name:
            raise ValueError("Device name must be a non-empty string")
        return cls.of_device(device_name, RPCResponse.build(request_id, result, error))

    @classmethod
    def of_device(cls, device_name: str, response: RPCResponse) -> Self:
        """Return the response of a sub-device with the content of another response.

        Args:
            device_name: The sub-device's name, which has been checked.
            response: The other response.
        """
        return cls._made(
            device_name=device_name,
            request_id=response.request_id,
            status=response.status,
            result=response.result,
            error=response.error,
            reply=response.reply,
        )

    def to_payload_format(self, default: RPCReply = RPCReply.WRAPPED) -> dict[str, Any]:
        """Return ``{"device": name, "id": n, "data": reply}`` with the reply of ``RPCResponse.to_payload_format``.

        Args:
            default: The form of a result if ``reply`` is ``None``.
        """
        return {"device": self.device_name, "id": self.request_id, "data": super().to_payload_format(default)}

    def __repr__(self) -> str:
        return (
            f"GatewayRPCResponse(device_name={self.device_name}, request_id={self.request_id}, "
            f"result={self.result}, error={self.error})"
        )
