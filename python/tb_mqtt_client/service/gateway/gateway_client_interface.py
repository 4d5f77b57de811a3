"""What a client of a gateway can do beyond that of a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.gateway.device_connect_message import DeviceConnectMessage
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequest
from tb_mqtt_client.service.base_client import BaseClient
from tb_mqtt_client.service.gateway.device_session import DeviceSession


class GatewayClientInterface(BaseClient, ABC):
    """Sub-devices and their data. Methods wait for the platform's acknowledgement, or give futures of it."""

    @abstractmethod
    async def connect_device(
        self,
        device_name_or_device_connect_message: str | DeviceConnectMessage,
        device_profile: str = "default",
        wait_for_publish: bool = False,
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]:
        """Announce a sub-device."""

    @abstractmethod
    async def disconnect_device(
        self, device_session: DeviceSession, wait_for_publish: bool = False
    ) -> tuple[DeviceSession, PublishResult | list[Delivery]]:
        """Tell that a sub-device is gone."""

    @abstractmethod
    async def send_device_timeseries(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Send timeseries of a sub-device."""

    @abstractmethod
    async def send_device_attributes(
        self, device_session: DeviceSession, data: Any, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Send client attributes of a sub-device."""

    @abstractmethod
    async def send_device_attributes_request(
        self, device_session: DeviceSession, attribute_request: AttributeRequest, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Ask for attributes of a sub-device."""

    @abstractmethod
    async def send_device_claim_request(
        self, device_session: DeviceSession, gateway_claim_request: GatewayClaimRequest, wait_for_publish: bool = True
    ) -> PublishResult | Delivery:
        """Let sub-devices be claimed."""
