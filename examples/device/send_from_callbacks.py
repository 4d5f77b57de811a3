"""Send from plain callbacks, as the driver of a sensor calls them, and report what became of the data.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. The program ends after so many samples as its
argument says (100 by default).
"""

import asyncio
import random
import sys
from collections.abc import Callable

from tb_mqtt_client import Delivery, DeviceClient, DeviceConfig, PublishResult, QueueFullError, run


class Sensor:
    """Stands for a driver that calls a function with each sample. Such a callback cannot await."""

    def __init__(self, callback: Callable[[float], None]) -> None:
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        self.start()

    def start(self) -> None:
        """Take the next sample soon."""
        self._timer = asyncio.get_running_loop().call_later(0.005, self._sample)

    def stop(self) -> None:
        """Take no further sample."""
        if self._timer is not None:
            self._timer.cancel()

    def _sample(self) -> None:
        self.start()
        self._callback(20 + random.random())


async def main(samples: int) -> None:
    async with DeviceClient(DeviceConfig()) as client:
        all_sent = asyncio.Event()
        deliveries: list[Delivery | asyncio.Future[PublishResult]] = []

        def send(temperature: float) -> None:
            try:
                deliveries.append(client.enqueue_timeseries({"temperature": temperature}))
            except QueueFullError as error:
                # The platform was away for long. Nothing of this sample was accepted.
                print("lost:", error)
            if len(deliveries) == samples:
                sensor.stop()
                all_sent.set()

        sensor = Sensor(send)
        await all_sent.wait()
        results = [await delivery for delivery in deliveries]
        print("delivered:", sum(result.is_successful() for result in results), "of", samples)


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
