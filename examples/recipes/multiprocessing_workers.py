"""Several processes measure, and one of them sends: a client belongs to the process that made it.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from typing import Any

from tb_mqtt_client.sync import DeviceClient

WORKERS = 3
MEASUREMENTS = 100


def measure(worker: int, measured: Queue[dict[str, Any] | None]) -> None:
    """Run in a process of its own, without a client."""
    for number in range(MEASUREMENTS):
        time.sleep(0.002)
        # The time of the measurement, which may wait in the queue.
        measured.put({"ts": time.time_ns() // 1_000_000, "values": {f"worker {worker}": number}})
    measured.put(None)


def main() -> None:
    # A forked process would have a copy of the client's locks without its thread, so processes are spawned.
    context = multiprocessing.get_context("spawn")
    measured = context.Queue(maxsize=1000)
    workers = [context.Process(target=measure, args=(number, measured)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    with DeviceClient() as client:
        running = WORKERS
        while running:
            record = measured.get()
            if record is None:
                running -= 1
            else:
                # Many records share a message, because this does not wait for each result.
                client.send_timeseries(record, wait=False)
    for worker in workers:
        worker.join()
    print(client.statistics)


if __name__ == "__main__":
    main()
