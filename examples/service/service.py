"""A device as a service: it boots without a network, keeps its data in a store, reports to systemd, and answers health checks.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. Optional: TB_STORE, the folder of the store
(default: store); HEALTH_PORT, the port of the health check on 127.0.0.1 (default: 8080); LOG_FILE, a file that is rotated in place
of standard error; INTERVAL, the seconds between two samples (default: 10).
"""

import asyncio
import logging
import logging.handlers
import os
import random

from tb_mqtt_client import DeviceClient, run
from tb_mqtt_client.health_server import HealthServer
from tb_mqtt_client.systemd import SystemdService

INTERVAL = float(os.environ.get("INTERVAL", "10"))
logger = logging.getLogger("service")


def configure_logging() -> None:
    handler: logging.Handler = logging.StreamHandler()
    if path := os.environ.get("LOG_FILE"):
        # At most 6 MB: the current file and five older ones.
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=1_000_000, backupCount=5)
    logging.basicConfig(level="INFO", handlers=[handler], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The MQTT library logs each subscription.
    logging.getLogger("gmqtt").setLevel("WARNING")


async def sample(client: DeviceClient) -> None:
    while True:
        # With a store, this returns at once, also without a network.
        await client.send_timeseries({"temperature": round(random.gauss(21, 0.5), 1)}, wait_for_publish=False)
        await asyncio.sleep(INTERVAL)


async def main() -> None:
    configure_logging()
    client = DeviceClient({"store": os.environ.get("TB_STORE", "store")})
    port = int(os.environ.get("HEALTH_PORT", "8080"))
    async with HealthServer(client, port=port), SystemdService(client, stop_timeout=20):
        logger.info("started")
        await sample(client)


if __name__ == "__main__":
    run(main())
