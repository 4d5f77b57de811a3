"""A million datapoints that are queued while the server is unreachable, and sent when it is back."""

import asyncio
import statistics
import subprocess
import sys

import pytest

from end_to_end import Listener

# A process of its own, so that only the backlog grows in it. It prints a line for each step, and waits for one.
PROGRAM = """
import asyncio, os, sys, time
from tb_mqtt_client import DeviceClient

CALLS = 100_000

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def send(client, first):
    return [
        (await client.send_timeseries({"ts": ts, "values": {f"key {key}": ts / 8 + key for key in range(10)}}, False))[0]
        for ts in range(first, first + CALLS)
    ]

async def acknowledged(futures):
    return sum([(await future).datapoints_count for future in futures])

async def main():
    loop = asyncio.get_running_loop()
    config = {"host": "127.0.0.1", "port": int(sys.argv[1]), "access_token": "t", "limits_timeout": 0.05,
              "reconnect_delay_min": 0.01, "reconnect_delay_max": 0.01}
    client = DeviceClient(config)
    await client.connect()
    print("connected", 0, flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    before = resident()
    futures = await send(client, 1)
    assert client.statistics.queued == 10 * CALLS
    print("queued", (resident() - before) / (10 * CALLS), flush=True)
    await client.disconnect()
    await loop.run_in_executor(None, sys.stdin.readline)
    await client.connect()
    began = time.perf_counter()
    assert await acknowledged(futures) == 10 * CALLS
    print("drained", time.perf_counter() - began, flush=True)
    # Not first: the memory that it frees would hide the memory of the backlog.
    began = time.perf_counter()
    assert await acknowledged(await send(client, 1 + CALLS)) == 10 * CALLS
    print("sent", time.perf_counter() - began, flush=True)
    await client.stop()

asyncio.run(main())
"""
DATAPOINTS = 1_000_000


async def backlog(broker):
    """Return bytes per datapoint, seconds to encode and send as much while connected, and seconds to send the backlog."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(broker.port), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    async def step(name):
        printed, value = (await program.stdout.readline()).decode().split()
        assert printed == name
        return float(value)

    await step("connected")
    broker.stop()
    program.stdin.write(b"\n")
    grown = await step("queued")
    broker.start()
    async with Listener(broker) as listener:
        program.stdin.write(b"\n")
        drained = await step("drained")
        sent = await step("sent")
        received = await listener.until(2 * DATAPOINTS)
    assert await program.wait() == 0
    order = [(ts, int(key.removeprefix("key "))) for _, ts, key in received]
    assert order == sorted(order)
    return grown, sent, drained


@pytest.mark.parametrize(
    ("case", "peer", "index"),
    [
        ("one million datapoints queued while the server is away", "native", 0),
        ("one million datapoints queued, sent afterwards", "while connected", 1),
        ("one million datapoints queued, sent afterwards", "native", 2),
    ],
)
def test_backlog(benchmark, broker, case, peer, index):
    found = []
    benchmark.group = case
    benchmark.pedantic(lambda: found.append(asyncio.run(backlog(broker))[index]), rounds=3)
    benchmark.extra_info.update(peer=peer, correct=True, value=statistics.median(found))
