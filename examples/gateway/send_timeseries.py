"""Send telemetry of sub-devices. Data of several sub-devices is combined into few messages.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

import asyncio
import time

from tb_mqtt_client import GatewayClient, GatewayConfig, TimeseriesEntry, run


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        meters = [(await gateway.connect_device(f"meter {number}", "meter"))[0] for number in range(1, 6)]

        result = await gateway.send_device_timeseries(meters[0], {"kwh": 1204.7, "voltage": 231})
        print("one device:", result.datapoints_count, "datapoints,", result.reason)

        # Without waiting for each result, the data of all sub-devices is collected and published in few messages.
        now = int(time.time() * 1000)
        futures = [
            await gateway.send_device_timeseries(meter, {"ts": now + hour, "values": {"kwh": hour * 1.5}}, wait_for_publish=False)
            for meter in meters
            for hour in range(24)
        ]
        results = await asyncio.gather(*futures)
        print("five devices:", sum(result.datapoints_count for result in results), "datapoints")

        result = await gateway.send_device_timeseries(meters[1], [TimeseriesEntry("kwh", 980.25, now), {"voltage": 229}])
        print("a list:", result.datapoints_count, "datapoints,", result.reason)

        # The gateway is a device too.
        result = await gateway.send_timeseries({"devices": len(meters)})
        print("the gateway itself:", result.datapoints_count, "datapoint,", result.reason)


if __name__ == "__main__":
    run(main())
