"""The inner parts of clients, which no program may rely on: only these functions know where a client keeps them."""

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.service.engine import Engine
from tb_mqtt_client.service.gateway.sub_devices import SubDevices


def own_tasks() -> Tasks:
    """Return an owner of tasks for a part that is tested without a client."""
    return Tasks(report_failure)


def engine_of(client: DeviceClient) -> Engine:
    """Return the engine, whose parts are public."""
    return client._engine


def sub_devices_of(gateway: GatewayClient) -> SubDevices:
    """Return the component of a gateway's engine."""
    return gateway._sub_devices
