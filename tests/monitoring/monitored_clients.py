"""The files of docs/monitoring, and clients whose metrics have values for all of them."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import Emulator, RateLimits, SessionLimits

FOLDER = Path(__file__).parents[2] / "docs" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = DASHBOARD["panels"]


def dashboard_expressions(rate_interval="5m"):
    """Return the queries of the panels as Prometheus gets them: Grafana replaces variables before."""
    values = {"$__rate_interval": rate_interval, "$job": ".+", "$instance": ".+", "$client_id": ".*"}
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for name, value in values.items():
        expressions = [expression.replace(name, value) for expression in expressions]
    return expressions


@asynccontextmanager
async def busy_clients(port, store):
    """Yield a device and a gateway that work on a backlog, meet a limit that is not announced, and get data refused."""
    at = {"host": "127.0.0.1", "port": port}
    settings = at | {"access_token": "TOKEN", "client_id": "d", "store": str(store)}
    earlier = DeviceClient(settings)
    await earlier.start()
    for number in range(100):
        values = [{"ts": 1_700_000_000_000 + number * 400 + i, "values": {"temperature": i}} for i in range(400)]
        await earlier.send_timeseries(values, wait_for_publish=False)
    # The platform does not exist yet, so everything is kept.
    await earlier.stop(0)
    limits = SessionLimits(tenant_rate_limits=RateLimits(telemetry_datapoints="1000:1"))
    async with Emulator(port=port, limits=limits) as emulator:
        emulator.add_device("TOKEN", name="thermometer")
        emulator.add_gateway("GATEWAY", name="gateway")
        device, gateway = DeviceClient(settings), GatewayClient(at | {"access_token": "GATEWAY", "client_id": "g"})
        sending = None
        try:
            await device.connect()
            await gateway.connect()
            sending = asyncio.create_task(_send(device, gateway))
            yield device, gateway
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait([sending])
            await device.stop(0)
            await gateway.stop(0)


async def _send(device, gateway):
    session, _ = await gateway.connect_device("boiler")
    while True:
        await device.send_timeseries({"temperature": 21.5}, wait_for_publish=False)
        await device.send_timeseries({"long": "x" * 70_000}, wait_for_publish=False)
        await gateway.send_device_timeseries(session, {"pressure": 2.1}, wait_for_publish=False)
        await asyncio.sleep(0.1)
