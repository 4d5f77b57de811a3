"""The inner parts of clients, which no program may rely on: only these functions know where a client keeps them."""

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.service.engine import Engine
from tb_mqtt_client.service.gateway.sub_devices import SubDevices


def engine_of(client: DeviceClient) -> Engine:
    """Return the engine, whose parts are public."""
    return client._engine


def sub_devices_of(gateway: GatewayClient) -> SubDevices:
    """Return the component of a gateway's engine."""
    return gateway._sub_devices
