"""Rounds of killing a program that has a store: everything that it reported as safe must arrive afterwards."""

import asyncio
import json
import os
import random
import sys
from pathlib import Path

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Emulator, Verdict

CHILD = Path(__file__).parent / "store_child.py"
TELEMETRY = "v1/devices/me/telemetry"


async def killed_child(options, prefix, kill_after):
    """Run the program until it has reported some keys, kill it, and return all keys that it reported."""
    arguments = [str(CHILD), json.dumps(options), prefix]
    child = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    reported = []
    async with asyncio.timeout(120):
        assert (line := await child.stdout.readline()) == b"ready\n", line
        while len(reported) < kill_after and (line := await child.stdout.readline()):
            reported.append(line)
        child.kill()
        reported += (await child.stdout.read()).splitlines(keepends=True)
        await child.wait()
    # The last line may be cut: its key was not reported.
    return [line.decode().strip() for line in reported if line.endswith(b"\n")]


async def all_delivered(client):
    """Wait until nothing is queued or in flight."""
    async with asyncio.timeout(120):
        while client.statistics.queued or client.statistics.in_flight:  # noqa: ASYNC110  # there is no event for that
            await asyncio.sleep(0.01)


async def kill_rounds(path, durability, rounds, seed):
    """Kill a program again and again; return the numbers of reported and of arrived datapoints.

    Raises:
        AssertionError: A reported datapoint did not arrive, or the counters of a client do not add up.
    """
    chance = random.Random(seed)
    reported_in_all = recovered_in_all = 0
    async with Emulator() as emulator:
        emulator.add_device("TOKEN", "device")
        options = {
            "host": emulator.host,
            "port": emulator.port,
            "access_token": "TOKEN",
            "reconnect_delay_min": 0.01,
            "reconnect_delay_max": 0.05,
            "store": {"path": str(path), "durability": durability, "min_free": 0},
        }
        for number in range(rounds):
            # Without acknowledgements, with some, or with all.
            answered = chance.choice([0, 0.5, 1])
            emulator.on_publish = lambda publish, answered=answered: (
                Verdict.ignore(store=False) if publish.topic == TELEMETRY and chance.random() >= answered else None
            )
            reported = await killed_child(options, f"r{number}", chance.randrange(300))
            emulator.on_publish = None
            async with DeviceClient(options) as client:
                await all_delivered(client)
                end = client.statistics
            assert end.accepted == 0
            assert end.recovered == end.acknowledged, f"round {number}, seed {seed}: {end}"
            arrived = {point.key for point in emulator.device("device").telemetry}
            missing = [key for key in reported if key not in arrived or f"{key}-b" not in arrived]
            assert not missing, f"round {number}, seed {seed}: {len(missing)} of {len(reported)} are missing, such as {missing[:3]}"
            reported_in_all += len(reported)
            recovered_in_all += end.recovered
    return reported_in_all, recovered_in_all
