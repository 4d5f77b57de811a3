"""Rounds of killing a program that has a store: everything that it reported as safe must arrive afterwards."""

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path

from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import Emulator, Verdict

CHILD = Path(__file__).parent / "store_child.py"
SECONDS = 600
"""A limit for one round, so that a defect cannot block the tests. A machine with much other load is slow."""
TELEMETRY = frozenset({"v1/devices/me/telemetry", "v1/gateway/telemetry"})


class Children:
    """Runs programs with a store one after the other, see ``store_child.py``."""

    async def __aenter__(self):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        self._process = await asyncio.create_subprocess_exec(sys.executable, str(CHILD), **pipes, env=environment)
        return self

    async def __aexit__(self, *_):
        self._process.stdin.close()
        await self._process.wait()

    async def _line(self):
        return (await self._process.stdout.readline()).decode().strip()

    async def run(self, options, prefix, sub_devices, kill_after):
        """Run a program until it has reported some keys, kill it, and return all keys that it reported."""
        async with asyncio.timeout(SECONDS):
            self._process.stdin.write(f"{json.dumps([options, prefix, sub_devices])}\n".encode())
            first = {await self._line(), await self._line()}
            assert "ready" in first, first
            [pid] = first - {"ready"}
            reported = []
            while len(reported) < kill_after and not (line := await self._line()).startswith("ended"):
                reported.append(line)
            assert len(reported) == kill_after, line
            os.kill(int(pid), signal.SIGKILL)
            while not (line := await self._line()).startswith("ended"):
                reported.append(line)
            assert line == f"ended {-signal.SIGKILL}"
        return reported


async def all_delivered(client):
    """Wait until nothing is queued or in flight."""
    async with asyncio.timeout(SECONDS):
        while client.statistics.queued or client.statistics.in_flight:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0.01)


def take_arrived(emulator):
    """Return how many values of each key have arrived since the last call, in all devices."""
    arrived = {}
    for device in emulator.devices.values():
        for point in device.telemetry:
            arrived[point.key] = arrived.get(point.key, 0) + 1
        device.records.clear()
    return arrived


def datapoints_of(key, sub_devices):
    """Return the keys of the datapoints of a send, see ``store_child.py``."""
    return [key, *(f"{key}-{letter}" for letter in ("bcdefghij" if sub_devices else "b"))]


async def kill_rounds(path, durability, rounds, seed, *, sub_devices=0, on_round=lambda *_: None):
    """Kill a program again and again; return the numbers of reported sends and of recovered datapoints.

    Args:
        path: The directory of the store.
        durability: Its durability.
        rounds: The number of kills.
        seed: A number that repeats the choices of an earlier run; ``None`` for new ones.
        sub_devices: The number of sub-devices of a gateway; 0 for a device.
        on_round: Called after each round with its number, the sends reported in all, and the datapoints recovered in all.

    Raises:
        AssertionError: A reported datapoint did not arrive, or the counters of a client do not add up.
    """
    chance = random.Random(seed)
    reported_in_all = recovered_in_all = 0
    async with Emulator() as emulator, Children() as children:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        options = {
            "host": emulator.host,
            "port": emulator.port,
            "access_token": "GATEWAY" if sub_devices else "TOKEN",
            "reconnect_delay_min": 0.01,
            "reconnect_delay_max": 0.05,
            "store": {"path": str(path), "durability": durability, "min_free": 0},
        }
        for number in range(rounds):
            # Without acknowledgements, with some, or with all.
            answered = chance.choice([0, 0.5, 1])
            emulator.on_publish = lambda publish, answered=answered: (
                Verdict.ignore(store=False) if publish.topic in TELEMETRY and chance.random() >= answered else None
            )
            reported = await children.run(options, f"r{number}", sub_devices, chance.randrange(300))
            emulator.on_publish = None
            async with (GatewayClient if sub_devices else DeviceClient)(options) as client:
                await all_delivered(client)
                end = client.statistics
            assert end.accepted == 0
            assert end.recovered == end.acknowledged, f"round {number}, seed {seed}: {end}"
            arrived = take_arrived(emulator)
            missing = [one for key in reported for one in datapoints_of(key, sub_devices) if one not in arrived]
            assert not missing, f"round {number}, seed {seed}: {len(missing)} datapoints are missing, such as {missing[:3]}"
            reported_in_all += len(reported)
            recovered_in_all += end.recovered
            on_round(number, reported_in_all, recovered_in_all)
    return reported_in_all, recovered_in_all
