"""Send telemetry in all forms that a send accepts, and print the results.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

import asyncio
import time

from tb_mqtt_client import DeviceClient, DeviceConfig, TimeseriesEntry, run


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        # Keys and values; their time is the time of the send.
        result = await client.send_timeseries({"temperature": 21.5, "humidity": 48, "window": "closed"})
        print("now:", result.datapoints_count, "datapoints,", result.reason)

        # Values with a time, in milliseconds since the epoch.
        an_hour_ago = int(time.time() * 1000) - 3_600_000
        result = await client.send_timeseries({"ts": an_hour_ago, "values": {"temperature": 20.9, "humidity": 50}})
        print("an hour ago:", result.datapoints_count, "datapoints,", result.reason)

        # Entries, which check and encode their value when they are created. A list may mix all forms.
        entries = [TimeseriesEntry("temperature", 20 + minute / 10, an_hour_ago + minute * 60_000) for minute in range(1, 60)]
        result = await client.send_timeseries([*entries, {"battery": 3.91}])
        print("the hour since:", result.datapoints_count, "datapoints,", result.reason)

        # Without waiting, each send returns a future that resolves when the platform has acknowledged the data. The platform
        # stores one value per key and millisecond, so values that are sent faster need their own times.
        futures = []
        for number in range(100):
            data = {"ts": an_hour_ago + number, "values": {"count": number}}
            futures += await client.send_timeseries(data, wait_for_publish=False)
        results = await asyncio.gather(*futures)
        print("not waiting:", sum(result.datapoints_count for result in results), "datapoints")


if __name__ == "__main__":
    run(main())
