"""Compare two functions in turns, in processes of their own.

python benches/in_turns.py MODULE CASE

Benchmarks that run one after the other meet a machine that does other things meanwhile, and in each process the data has other
places in memory, which changes the time of data that is larger than the caches. So each round measures both functions right after
each other, in alternating order, a process gives the median of the ratios of its rounds, and a row is the median of several
processes. CPU time is compared, because both functions only compute.

A module has ``pair(case)``, which returns the two functions. The program prints the ratio of its process.
"""

import gc
import importlib
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROCESSES = 5
ROUNDS = range(5, 15)
"""The number of rounds: as many as take `SECONDS`, in this range."""

SECONDS = 4
SHORTEST = 0.02
"""Seconds that each function needs at least in a round; faster ones are called several times."""


def ratios(module, case, processes=PROCESSES):
    """Return how many times faster the first function of a case is than the second one, in so many processes."""
    command = [sys.executable, __file__, module, case]
    done = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(processes)]
    return sorted(float(text) for text in done)


def cpu_time(work, calls):
    began = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - began


def ratio_in_turns(work, peer):
    """Return how many times faster ``work`` is than ``peer``: the median of the rounds."""
    # The data does not become garbage in a round, so the collector has nothing to look for in it, on neither side.
    gc.collect()
    gc.freeze()
    calls = {one: max(1, round(SHORTEST / max(cpu_time(one, 1), 1e-9))) for one in (work, peer)}
    found = []
    end = time.monotonic() + SECONDS
    for number in range(ROUNDS.stop):
        if number >= ROUNDS.start and time.monotonic() > end:
            break
        order = (work, peer) if number % 2 else (peer, work)
        times = {one: cpu_time(one, calls[one]) / calls[one] for one in order}
        found.append(times[peer] / times[work])
    return statistics.median(found)


def main():
    module, case = sys.argv[1:]
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
    work, peer = importlib.import_module(module).pair(case)
    print(ratio_in_turns(work, peer))


if __name__ == "__main__":
    main()
