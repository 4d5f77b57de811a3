"""Send a million datapoints of a hundred sub-devices as fast as the platform accepts them, and print their outcomes.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway. The client keeps the rate limits
that the platform announces.
"""

import argparse
import asyncio
import time

from tb_mqtt_client import GatewayClient, GatewayConfig, run

KEYS_PER_SEND = 10


async def report(gateway: GatewayClient) -> None:
    """Print a line every second until cancelled."""
    while True:
        await asyncio.sleep(1)
        now = gateway.statistics
        print(f"acknowledged {now.acknowledged:,}, in flight {now.in_flight:,}, queued {now.queued:,}")


async def main(datapoints: int, devices: int) -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        sessions = [(await gateway.connect_device(f"load {number}"))[0] for number in range(devices)]
        reporting = asyncio.create_task(report(gateway))
        began = time.perf_counter()
        sends = datapoints // KEYS_PER_SEND
        start_ms = int(time.time() * 1000) - sends
        futures = []
        for number in range(sends):
            session = sessions[number % devices]
            values = {f"key {key}": number * key / 8 for key in range(KEYS_PER_SEND)}
            data = {"ts": start_ms + number, "values": values}
            # The send waits only while the client's queue is full.
            futures.append(await gateway.send_device_timeseries(session, data, wait_for_publish=False))
        for future in futures:
            await future
        seconds = time.perf_counter() - began
        reporting.cancel()

    end = gateway.statistics
    print(f"accepted {end.accepted:,} = acknowledged {end.acknowledged:,} + rejected {end.rejected:,}", end="")
    print(f" + dropped {end.dropped:,} + undelivered {end.undelivered:,}")
    print(f"{end.acknowledged / seconds:,.0f} datapoints per second in {end.messages_published:,} messages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datapoints", type=int, nargs="?", default=1_000_000)
    parser.add_argument("devices", type=int, nargs="?", default=100)
    arguments = parser.parse_args()
    run(main(arguments.datapoints, arguments.devices))
