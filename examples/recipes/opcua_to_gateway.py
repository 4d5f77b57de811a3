"""Variables of an OPC UA server as telemetry of a sub-device, whenever they change.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway. Needs the package asyncua.

    python opcua_to_gateway.py opc.tcp://localhost:4840 "ns=2;s=temperature" "ns=2;s=pressure"
"""

import asyncio
import logging
import sys
from typing import Any

from asyncua.client.client import Client
from asyncua.common.node import Node

from tb_mqtt_client import DeviceSession, GatewayClient, run

logger = logging.getLogger("opcua")


class Forwarder:
    """Gets the changes that the server reports."""

    def __init__(self, gateway: GatewayClient, session: DeviceSession, names: dict[Node, str]) -> None:
        self._gateway = gateway
        self._session = session
        self._names = names

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        stamp = data.monitored_item.Value.SourceTimestamp
        values = {self._names[node]: value}
        # A plain function, so it does not wait. asyncua's times are UTC without a timezone.
        record = values if stamp is None else {"ts": int(stamp.timestamp() * 1000), "values": values}
        self._gateway.enqueue_device_timeseries(self._session, record)


async def main(url: str, *node_ids: str) -> None:
    logging.basicConfig(level="INFO")
    # It connects again after a loss, and subscribes again.
    async with GatewayClient() as gateway, Client(url, auto_reconnect=True) as server:
        session, _ = await gateway.connect_device("press 1", "press")
        nodes = [server.get_node(node_id) for node_id in node_ids]
        names = {node: str((await node.read_browse_name()).Name) for node in nodes}
        # The server reports each change, at most every 500 ms.
        subscription = await server.create_subscription(500, Forwarder(gateway, session, names))
        await subscription.subscribe_data_change(nodes)
        logger.info("forwarding %s", ", ".join(names.values()))
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
