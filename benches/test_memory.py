"""Memory of a million queued datapoints."""

import subprocess
import sys

PROGRAM = """
import asyncio, os
from collections import deque
from tb_mqtt_client._native import EncodedUplink

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main():
    loop = asyncio.get_running_loop()
    values = {"cpu_percent": 12.5, "memory_used": 8123456, "temperature": 21.375, "humidity": 48.25, "pressure": 1013.2,
              "status": "running", "online": True, "packets": 123456, "voltage": 3.71, "signal": -67}
    queue = deque()
    queue.append((EncodedUplink.timeseries(values, 0), loop.create_future(), 0))
    before = resident()
    for ts in range(100_000):
        queue.append((EncodedUplink.timeseries(values, ts), loop.create_future(), 0))
    print((resident() - before) / 1_000_000, sum(len(values) for _ in range(100_000)))

asyncio.run(main())
"""


def growth():
    printed = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    per_datapoint, datapoints = printed.split()
    assert int(datapoints) == 1_000_000
    return float(per_datapoint)


def test_queued_datapoints(benchmark):
    """Resident growth of a fresh process, with the future of each send, as in the client's queue."""
    benchmark.group = "one million queued datapoints, 10 to a message"
    found = benchmark.pedantic(growth, rounds=3)
    benchmark.extra_info.update(peer="native", correct=True, value=found)
