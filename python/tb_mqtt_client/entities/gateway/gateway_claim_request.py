"""Requests that let users claim sub-devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.factory_made import FactoryMade
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType


@dataclass(frozen=True, init=False, repr=False)
class GatewayClaimRequest(FactoryMade, BaseGatewayEvent):
    """Claiming requests of several sub-devices. Made by ``build`` or by ``GatewayClaimRequestBuilder``."""

    devices_requests: dict[Any, ClaimRequest] | None = None
    """The requests by the sub-device's ``DeviceSession`` or name."""
    event_type: GatewayEventType = GatewayEventType.GATEWAY_CLAIM_REQUEST

    @classmethod
    def build(cls) -> Self:
        """Make a request without sub-devices; ``add_device_request`` adds them."""
        return cls._made(devices_requests={})

    def add_device_request(self, device_name_or_session: Any, claim_request: ClaimRequest) -> None:
        """Add a sub-device, or replace its request.

        Args:
            device_name_or_session: The ``DeviceSession`` or the name of the sub-device.
            claim_request: The request of this sub-device.

        Raises:
            ValueError: An argument has another type, or the name is empty.
        """
        if not (isinstance(device_name_or_session, str) and device_name_or_session) and not _is_session(device_name_or_session):
            raise ValueError("device_session must be an instance of DeviceSession or a string representing the device name")
        if not isinstance(claim_request, ClaimRequest):
            raise ValueError("device_claim_request must be an instance of ClaimRequest")  # noqa: TRY004  # the type and the text are public
        assert self.devices_requests is not None
        self.devices_requests[device_name_or_session] = claim_request

    def to_payload_format(self) -> dict[str, Any]:
        """Return ``{name: {"secretKey": s, "durationMs": n}, ...}`` with the current names of the sub-devices."""
        return {_name(device): request.to_payload_format() for device, request in (self.devices_requests or {}).items()}

    def __repr__(self) -> str:
        return f"GatewayClaimRequest(devices_requests={self.devices_requests})"


class GatewayClaimRequestBuilder:
    """Collects the sub-devices of a ``GatewayClaimRequest``."""

    def __init__(self) -> None:
        self._request = GatewayClaimRequest.build()

    def add_device_request(self, device_name_or_session: Any, device_claim_request: ClaimRequest) -> Self:
        """Add a sub-device, or replace its request.

        Args:
            device_name_or_session: The ``DeviceSession`` or the name of the sub-device.
            device_claim_request: The request of this sub-device.

        Returns:
            The builder.

        Raises:
            ValueError: An argument has another type, or the name is empty.
        """
        self._request.add_device_request(device_name_or_session, device_claim_request)
        return self

    def build(self) -> GatewayClaimRequest:
        """Return a request with the added sub-devices. Later additions do not change it."""
        return self._request.with_fields(devices_requests=dict(self._request.devices_requests or {}))


def _is_session(device: Any) -> bool:
    return isinstance(getattr(device, "device_info", None), DeviceInfo)


def _name(device: Any) -> str:
    name: str = device if isinstance(device, str) else device.device_info.device_name
    return name
