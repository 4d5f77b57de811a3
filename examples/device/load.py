"""Send a million datapoints as fast as the platform accepts them, and print their outcomes.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. The client keeps the rate limits
that the platform announces.
"""

import argparse
import asyncio
import time

from tb_mqtt_client import DeviceClient, DeviceConfig, run

KEYS_PER_SEND = 10


async def report(client: DeviceClient) -> None:
    """Print a line every second until cancelled."""
    while True:
        await asyncio.sleep(1)
        now = client.statistics
        print(f"acknowledged {now.acknowledged:,}, in flight {now.in_flight:,}, queued {now.queued:,}")


async def main(datapoints: int) -> None:
    async with DeviceClient(DeviceConfig()) as client:
        reporting = asyncio.create_task(report(client))
        began = time.perf_counter()
        sends = datapoints // KEYS_PER_SEND
        start_ms = int(time.time() * 1000) - sends
        futures = []
        for number in range(sends):
            values = {f"key {key}": number * key / 8 for key in range(KEYS_PER_SEND)}
            # The send waits only while the client's queue is full.
            futures += await client.send_timeseries({"ts": start_ms + number, "values": values}, wait_for_publish=False)
        for future in futures:
            await future
        seconds = time.perf_counter() - began
        reporting.cancel()

    end = client.statistics
    print(f"accepted {end.accepted:,} = acknowledged {end.acknowledged:,} + rejected {end.rejected:,}", end="")
    print(f" + dropped {end.dropped:,} + undelivered {end.undelivered:,}")
    print(f"{end.acknowledged / seconds:,.0f} datapoints per second in {end.messages_published:,} messages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datapoints", type=int, nargs="?", default=1_000_000)
    run(main(parser.parse_args().datapoints))
