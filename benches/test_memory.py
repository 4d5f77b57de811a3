"""Memory of a million queued datapoints, and of 100,000 sub-devices."""

import subprocess
import sys

RESIDENT = """
import asyncio, gc, os, sys
from collections import deque
from tb_mqtt_client import GatewayClient
from tb_mqtt_client._native import EncodedUplink

VALUES = {"cpu_percent": 12.5, "memory_used": 8123456, "temperature": 21.375, "humidity": 48.25, "pressure": 1013.2,
          "status": "running", "online": True, "packets": 123456, "voltage": 3.71, "signal": -67}

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""
QUEUE = """
async def main():
    loop = asyncio.get_running_loop()
    queue = deque()
    queue.append((EncodedUplink.timeseries(VALUES, 0), loop.create_future(), 0))
    before = resident()
    for ts in range(100_000):
        queue.append((EncodedUplink.timeseries(VALUES, ts), loop.create_future(), 0))
    print((resident() - before) / 1_000_000, sum(len(VALUES) for _ in range(100_000)))

asyncio.run(main())
"""
SUB_DEVICES = """
async def stream(gateway, sessions):
    futures = [await gateway.send_device_timeseries(session, VALUES, wait_for_publish=False) for session in sessions]
    return sum([(await future).datapoints_count for future in futures])

async def main(port):
    async with GatewayClient({"host": "127.0.0.1", "port": port, "access_token": "GATEWAY"}) as gateway:
        first, _ = await gateway.connect_device("first", wait_for_publish=True)
        await stream(gateway, [first] * 1000)
        gc.collect()
        before, sessions, datapoints = resident(), [], 0
        for begin in range(0, 100_000, 1000):
            # As devices appear over time: a queue of announcements would take memory of its own.
            names = [f"device {number}" for number in range(begin, begin + 1000)]
            found = [await gateway.connect_device(name, wait_for_publish=False) for name in names]
            for session, futures in found:
                await asyncio.gather(*futures)
                sessions.append(session)
        for begin in range(0, 100_000, 1000):
            datapoints += await stream(gateway, sessions[begin : begin + 1000])
        gc.collect()
        print((resident() - before) / 100_000, datapoints)

asyncio.run(main(int(sys.argv[1])))
"""


def growth(program, *arguments):
    command = [sys.executable, "-c", RESIDENT + program, *map(str, arguments)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    each, datapoints = printed.split()
    assert int(datapoints) == 1_000_000
    return float(each)


def test_queued_datapoints(benchmark):
    """Resident growth of a fresh process, with the future of each send, as in the client's queue."""
    benchmark.group = "one million queued datapoints, 10 to a message"
    found = benchmark.pedantic(growth, (QUEUE,), rounds=3)
    benchmark.extra_info.update(peer="native", correct=True, value=found)


def test_sub_devices(benchmark, broker):
    """Resident growth of a gateway by its sub-devices, with the session of each, which the program keeps."""
    benchmark.group = "100,000 sub-devices announced and streaming: memory"
    found = benchmark.pedantic(growth, (SUB_DEVICES, broker.port), rounds=1)
    benchmark.extra_info.update(peer="native", correct=True, value=found)
