"""Kill a program with a store again and again, and check that everything that it reported as safe arrives.

``make soak-kills`` runs 500 rounds of each durability.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from store_kills import kill_rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500, help="rounds of each durability")
    parser.add_argument("--seed", type=int, default=None, help="a number that repeats the choices of an earlier run")
    arguments = parser.parse_args()
    for durability in ("always", "group"):
        with tempfile.TemporaryDirectory() as folder:
            rounds = kill_rounds(Path(folder) / "queue", durability, arguments.rounds, arguments.seed)
            reported, recovered = asyncio.run(rounds)
        print(f"{durability}: {arguments.rounds} kills, {reported:,} sends reported as safe, {recovered:,} recovered, none lost")


if __name__ == "__main__":
    main()
