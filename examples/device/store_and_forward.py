"""A device that loses no sample: not without a network, and not when it is killed or loses its power.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. Samples are in the folder "queue" until the
platform has acknowledged them. Kill the program at any moment (kill -9) and start it again: it sends the samples that it finds. It
takes as many samples as its argument says (60 by default).
"""

import asyncio
import sys
import time

from tb_mqtt_client import DeviceClient, DeviceConfig, run

PERIOD = 0.2
"""Seconds between two samples."""
DATAPOINTS = 2
"""Datapoints of one sample; statistics count datapoints."""


async def main(samples: int) -> None:
    config = DeviceConfig(
        {
            # With durability "always", a sample is on disk when send_timeseries returns.
            "store": {"path": "queue", "durability": "always"},
            "connect_in_background": True,
            "reconnect_delay_max": 10,
        }
    )
    client = DeviceClient(config)
    # On entry, the store is opened. On exit, everything is sent if there is a session; the rest is kept for the next start.
    async with client:
        print(f"found {client.statistics.recovered // DATAPOINTS} samples of earlier runs", flush=True)
        for number in range(samples):
            data = {"ts": int(time.time() * 1000), "values": {"sample": number, "uptime": time.monotonic()}}
            await client.send_timeseries(data, wait_for_publish=False)
            print(f"sample {number} is safe", flush=True)
            await asyncio.sleep(PERIOD)
    totals = client.statistics
    print(f"arrived: {totals.acknowledged // DATAPOINTS}, kept for the next start: {totals.kept // DATAPOINTS}")


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
