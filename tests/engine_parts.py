"""The inner parts of clients, on which no program may rely: only these functions know where a client keeps them."""

import asyncio
from typing import Any

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.common.mqtt.acknowledgements import LARGEST_ID, PacketIds
from tb_mqtt_client.common.mqtt.packets import PacketType
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.service.engine import Engine
from tb_mqtt_client.service.gateway.sub_devices import SubDevices


def own_tasks() -> Tasks:
    """Return an owner of tasks for a part that is tested without a client."""
    return Tasks(report_failure)


def engine_of(client: DeviceClient) -> Engine:
    """Return the engine, whose parts are public."""
    return client._engine


def take_ids_until(ids: PacketIds, packet_id: int) -> None:
    """Take and free packet ids until ``packet_id`` was taken, which must be free: the next publish gets the id after it."""
    last = (packet_id - 1) % LARGEST_ID + 1
    while (taken := ids.next_id()) != last:
        ids.acknowledge(taken, PacketType.PUBACK)
    ids.acknowledge(taken, PacketType.PUBACK)


def running_tasks(name: str) -> list[asyncio.Task[Any]]:
    """Return the tasks of all clients whose names end with ``name``."""
    return [
        task for task in asyncio.all_tasks() if task.get_name().startswith("tb-mqtt-client ") and task.get_name().endswith(name)
    ]


def sub_devices_of(gateway: GatewayClient) -> SubDevices:
    """Return the component of a gateway's engine."""
    return gateway._sub_devices
