"""Random telemetry through a gateway for a long time: equal sums on both sides and flat memory, or a non-zero exit.

Both sides add up counts and values, so that a lost, doubled or altered datapoint shows. Memory is this process's, and
the emulator lives in it too; what the emulator keeps is taken from it as it comes.
"""

import argparse
import asyncio
import gc
import random
import sys
import time
from collections import deque
from dataclasses import dataclass, field

import psutil

from tb_mqtt_client import GatewayClient
from tb_mqtt_client.emulator import Emulator

TOKEN = "soak-gateway"
DEVICES = 20
LARGEST_CALL = 500
CALLS_IN_FLIGHT = 2_000
SECONDS_BETWEEN_LINES = 10.0
WARM_UP_SHARE = 0.2
ALLOWED_GROWTH_BYTES = 4 * 2**20
"""After warm-up: in ten minutes a leak of a few hundredths of a byte a datapoint shows."""


@dataclass
class Sums:
    """What one side has seen. Integers, so that the order of additions does not matter."""

    datapoints: int = 0
    values: int = 0
    text_bytes: int = 0

    def add(self, values: dict[str, object]) -> None:
        for value in values.values():
            self.datapoints += 1
            if isinstance(value, str):
                self.text_bytes += len(value.encode())
            elif isinstance(value, int):
                self.values += value
            else:
                raise TypeError(f"nobody sent {value!r}")


@dataclass
class Memory:
    """Resident bytes, over time."""

    process: psutil.Process = field(default_factory=psutil.Process)
    samples: list[tuple[float, int]] = field(default_factory=list)

    def sample(self, second: float) -> int:
        gc.collect()
        resident = self.process.memory_info().rss
        self.samples.append((second, resident))
        return resident

    def growth(self, seconds: float) -> int:
        """The highest of the last fifth above the highest up to the end of warm-up."""
        warm = max(rss for second, rss in self.samples if second <= seconds * WARM_UP_SHARE)
        end = max(rss for second, rss in self.samples if second >= seconds * (1 - WARM_UP_SHARE))
        return end - warm


class Source:
    """Random calls, each with timestamps that no other call of its device has."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._next_ts = 1_700_000_000_000
        self.sums = Sums()

    def call(self) -> tuple[int, list[dict[str, object]]]:
        """Give a device's number and a list of `{"ts", "values"}`, from one datapoint to `LARGEST_CALL`."""
        rows: list[dict[str, object]] = []
        left = int(LARGEST_CALL ** self._random.random())
        while left > 0:
            count = self._random.randint(1, min(left, 20))
            values = {f"key{number}": self._value() for number in range(count)}
            rows.append({"ts": self._next_ts, "values": values})
            self.sums.add(values)
            self._next_ts += 1
            left -= count
        return self._random.randrange(DEVICES), rows

    def _value(self) -> object:
        if self._random.random() < 0.1:
            return "é\n" * self._random.randint(0, 200)
        return self._random.randint(-(2**53), 2**53)


def take(emulator: Emulator, names: list[str], sums: Sums) -> None:
    """Add up what has arrived, and let the emulator forget it."""
    for name in names:
        records = emulator.device(name).records
        while records:
            _, values = records.popleft()
            sums.add(values)


async def soak(seconds: float, seed: int) -> list[str]:
    """Run it; give what went wrong."""
    names = [f"soak {number}" for number in range(DEVICES)]
    source, arrived, memory = Source(seed), Sums(), Memory()
    failed: list[str] = []
    async with Emulator() as emulator:
        emulator.add_gateway(TOKEN, name="soak gateway")
        client = GatewayClient({"host": emulator.host, "port": emulator.port, "access_token": TOKEN})
        await client.connect()
        sessions = [(await client.connect_device(name, wait_for_publish=True))[0] for name in names]
        waiting: deque[asyncio.Future] = deque()

        async def answer() -> None:
            result = await waiting.popleft()
            if not result.is_successful():
                failed.append(str(result))
            take(emulator, names, arrived)

        began = line_at = time.monotonic()
        while (second := time.monotonic() - began) < seconds:
            device, rows = source.call()
            waiting.append(await client.send_device_timeseries(sessions[device], rows, wait_for_publish=False))
            if len(waiting) >= CALLS_IN_FLIGHT:
                await answer()
            if time.monotonic() >= line_at:
                line_at += min(SECONDS_BETWEEN_LINES, seconds / 20)
                resident = memory.sample(second)
                print(
                    f"{second:6.0f} s  {source.sums.datapoints:>13,} datapoints  {resident / 2**20:7.1f} MiB",
                    flush=True,
                )
        while waiting:
            await answer()
        memory.sample(seconds)
        await client.stop()
        statistics = client.statistics

    growth = memory.growth(seconds)
    print(f"sent {source.sums}\ntook {arrived}\n{statistics}\nmemory grew by {growth / 2**20:.1f} MiB after warm-up")
    problems = [f"{len(failed)} calls failed, the first with {failed[0]}"] if failed else []
    if arrived != source.sums:
        problems.append("the two sides have different sums")
    if statistics.acknowledged != source.sums.datapoints:
        problems.append("not everything was acknowledged")
    if growth > ALLOWED_GROWTH_BYTES:
        problems.append(f"memory is not flat: more than {ALLOWED_GROWTH_BYTES / 2**20:.0f} MiB of growth")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    print(f"soak: {options.seconds:g} s, --seed {options.seed}")
    problems = asyncio.run(soak(options.seconds, options.seed))
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
