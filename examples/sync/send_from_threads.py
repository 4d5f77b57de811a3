"""Sends telemetry from several threads, without an event loop, and counts what became of it.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

import threading
import time

from tb_mqtt_client.sync import DeviceClient

SAMPLES = 100


def sample(client: DeviceClient, sensor: str) -> None:
    """Send samples of one sensor, and wait for all results at the end."""
    start = int(time.time() * 1000)
    deliveries = [
        client.send_timeseries({"ts": start + number, "values": {sensor: number}}, wait=False) for number in range(SAMPLES)
    ]
    results = [delivery.result() for delivery in deliveries]
    print(f"{sensor}: {sum(result.is_successful() for result in results)} of {SAMPLES} acknowledged")


def main() -> None:
    with DeviceClient() as client:
        threads = [threading.Thread(target=sample, args=(client, f"sensor_{number}")) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"datapoints acknowledged: {client.statistics.acknowledged}")


if __name__ == "__main__":
    main()
