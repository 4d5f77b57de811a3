"""The clients for programs with threads: the methods of the asyncio clients, which block, and may be called from any thread."""

from tb_mqtt_client.sync.device import DeviceClient
from tb_mqtt_client.sync.device_session import DeviceSession
from tb_mqtt_client.sync.gateway import EventDispatcher, GatewayClient
from tb_mqtt_client.sync.pending import Delivery, PendingResult, Work

__all__ = ["Delivery", "DeviceClient", "DeviceSession", "EventDispatcher", "GatewayClient", "PendingResult", "Work"]
