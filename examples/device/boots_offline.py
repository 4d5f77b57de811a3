"""A device that boots before its network: it samples from the first second on, and sends everything once it is connected.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. The program does not need the platform to run
yet. It ends when the platform has acknowledged so many samples as its argument says (60 by default).
"""

import asyncio
import sys
import time

from tb_mqtt_client import (
    Connected,
    ConnectFailed,
    ConnectionEvent,
    ConnectionLost,
    ConnectRefused,
    DeviceClient,
    DeviceConfig,
    QueueHigh,
    run,
)

PERIOD = 0.2
"""Seconds between two samples."""


def show(event: ConnectionEvent) -> None:
    """Print what happens to the connection; a device could switch a light."""
    match event:
        case ConnectFailed(reason, retry_in):
            print(f"no connection: {reason}; next attempt in {retry_in or 0:.1f} s")
        case ConnectRefused(reason, permanent=permanent):
            print(f"refused, {'until the cause is fixed' if permanent else 'for now'}: {reason}")
        case Connected(host, port):
            print(f"connected to {host}:{port}")
        case ConnectionLost(reason):
            print(f"lost: {reason}")
        case QueueHigh(messages, max_messages):
            print(f"the queue is nearly full: {messages} of {max_messages}")


async def main(samples: int) -> None:
    client = DeviceClient(DeviceConfig({"connect_in_background": True, "reconnect_delay_max": 10}))
    client.on_connection_event(show)
    # With connect_in_background, this returns at once, also without a network.
    async with client:
        deliveries = []
        for _ in range(samples):
            # The time is the time of the sample, not that of its arrival.
            data = {"ts": int(time.time() * 1000), "values": {"uptime": time.monotonic()}}
            deliveries += await client.send_timeseries(data, wait_for_publish=False)
            await asyncio.sleep(PERIOD)
        print(f"{client.statistics.acknowledged} of {samples} samples arrived while sampling")
        results = await asyncio.gather(*deliveries)
        print("all samples:", sum(result.datapoints_count for result in results if result.is_successful()))


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
