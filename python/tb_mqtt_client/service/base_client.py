"""What every client can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.publish_result import PublishResult


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
