"""Kill a program with a store again and again, and check that everything that it reported as safe arrives.

``make soak-kills`` runs 500 rounds of each durability: four of five with a device, the others with a gateway of 200 sub-devices.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from store_kills import kill_rounds

SUB_DEVICES = 200
DURABILITIES = ("always", "group")


def show(number, reported, recovered):
    """Overwrite the line of progress in a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\rround {number + 1}: {reported:,} sends reported as safe, {recovered:,} datapoints recovered ")


def run(durability, rounds, seed, sub_devices):
    """Run the rounds of one durability with a device or a gateway, and print their totals."""
    with tempfile.TemporaryDirectory() as folder:
        kills = kill_rounds(Path(folder) / "queue", durability, rounds, seed, sub_devices=sub_devices, on_round=show)
        reported, recovered = asyncio.run(kills)
    sender = f"gateway of {sub_devices} sub-devices" if sub_devices else "device"
    print(
        f"{durability}, {sender}: {rounds} kills, {reported:,} sends reported as safe, {recovered:,} datapoints recovered, 0 lost",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500, help="rounds of each durability")
    parser.add_argument("--gateway-rounds", type=int, help="those of them with a gateway (default: a fifth)")
    parser.add_argument("--durability", choices=DURABILITIES, nargs="+", default=DURABILITIES, help="default: both")
    parser.add_argument("--seed", type=int, default=None, help="a number that repeats the choices of an earlier run")
    arguments = parser.parse_args()
    of_gateway = arguments.rounds // 5 if arguments.gateway_rounds is None else arguments.gateway_rounds
    for durability in arguments.durability:
        for rounds, sub_devices in ((arguments.rounds - of_gateway, 0), (of_gateway, SUB_DEVICES)):
            if rounds:
                run(durability, rounds, arguments.seed, sub_devices)


if __name__ == "__main__":
    main()
