"""What every client can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.requests.callbacks import Callback


class BaseClient(ABC):
    """A connection of one device, or of one gateway, to the platform."""

    DEFAULT_TIMEOUT = 3.0
    """Seconds that calls wait for an answer unless told otherwise."""

    def __init__(self, host: str | None, port: int, client_id: str | None) -> None:
        self._host = host
        self._port = port
        self._client_id = client_id

    @abstractmethod
    async def connect(self) -> None:
        """Connect, and stay connected until ``disconnect`` or ``stop``."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connection; what is queued stays queued."""

    @abstractmethod
    async def send_timeseries(
        self, data: Any, wait_for_publish: bool = True, timeout: float | None = None
    ) -> PublishResult | list[Delivery]:
        """Send timeseries."""

    @abstractmethod
    async def send_attributes(
        self, attributes: Any, wait_for_publish: bool = True, timeout: float | None = None
    ) -> PublishResult | list[Delivery]:
        """Send attributes."""

    @abstractmethod
    async def send_rpc_response(self, response: RPCResponse) -> PublishResult:
        """Answer a call of the platform."""

    @abstractmethod
    async def claim_device(self, claim_request: ClaimRequest) -> PublishResult | Delivery:
        """Let the device be claimed."""

    @abstractmethod
    def set_attribute_update_callback(self, callback: Callback[Any]) -> None:
        """Say what is called with attributes that have changed."""

    @abstractmethod
    def set_rpc_request_callback(self, callback: Callback[Any]) -> None:
        """Say what answers the platform's calls."""
