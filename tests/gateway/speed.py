"""How fast the IoT Gateway is on this package, on SDK 1.13, and with a client that sends nothing. `make gateway-speed` runs it.

The connector first sends one record of each device, because the application connects devices one after the other, and waits for
each. When these have arrived, it hands all other data to the storage at once. The time and the CPU time of the application count
from then until the platform has everything, or until the client that sends nothing was given everything. A run counts only if the
data that arrived is the data that was sent.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "compat" / "one_x"))
from gateway_application import FOLDER, Application, install, install_sdk
from watched_platform import WatchedPlatform

from tb_mqtt_client.emulator import Verdict

CLIENTS = {"this package": None, "SDK 1.13": None, "a client that sends nothing": Path(__file__).with_name("no_client")}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Case:
    """A storage, and the time until the platform acknowledges."""

    name: str
    storage: str
    delay: float
    rounds: int
    ratio_to_sdk: float | None
    ratio_to_nothing: float | None


CASES = [
    Case("memory storage", "memory", 0, 100, 1.7, 0.9),
    Case("memory storage, PUBACK after 50 ms", "memory", 0.05, 30, 3.0, None),
    Case("SQLite storage", "sqlite", 0, 100, None, 0.9),
]


def cpu_seconds(pid):
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(environment, client, case):
    """Return datapoints per second, and CPU seconds per datapoint."""
    platform = WatchedPlatform()
    if case.delay:
        platform.emulator.on_publish = lambda _: Verdict.delay(case.delay)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = CLIENTS[client]
        application = Application(environment, platform, folder, storage=case.storage, rounds=case.rounds, pause=0)
        total = len(application.expected) * application.load["devices"]
        first = application.load["keys"] * application.load["devices"]
        started, go = folder / "started", folder / "go"

        def has(datapoints):
            if path:
                return Path(f"{folder}/given{datapoints}").exists()
            return platform.emulator.counters.telemetry_datapoints >= datapoints

        application.start(
            PYTHONPATH=str(path or ""),
            LOAD_STARTED=str(started),
            LOAD_GO=str(go),
            GIVEN=f"{folder}/given",
            GIVEN_AT=f"{first},{total}",
        )
        try:
            application.wait_until(lambda: has(first))
            go.touch()
            application.wait_until(started.exists)
            began, cpu = time.monotonic(), cpu_seconds(application.pid)
            while not has(total):
                if application.exit_code is not None or time.monotonic() - began > 180:
                    raise RuntimeError(f"{client}, {case.name}: the data did not arrive: {application.output}")
                time.sleep(0.005)
            seconds, cpu = time.monotonic() - began, cpu_seconds(application.pid) - cpu
            if not path:
                for device in application.names:
                    if set(platform.stored(device)) != application.expected:
                        raise RuntimeError(f"{client}, {case.name}: other data of {device} arrived")
        finally:
            application.kill()
            platform.stop()
    return (total - first) / seconds, cpu / (total - first)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each row, of which the median counts (%(default)s)")
    runs = parser.parse_args().runs
    ours, sdk = install(), install_sdk()
    version = subprocess.run([sdk / "bin/pip", "list"], check=True, capture_output=True, text=True).stdout
    print(*(line for line in version.splitlines() if line.startswith(("tb-mqtt", "thingsboard"))), sep="\n")
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {runs} runs, environments in {FOLDER}")
    for case in CASES:
        print(f"\n{case.name} (load {os.getloadavg()[0]:.1f})", flush=True)
        found = {client: [] for client in CLIENTS}
        for _ in range(runs):
            for client in CLIENTS:
                speed, cpu = measure(sdk if client == "SDK 1.13" else ours, client, case)
                print(f"    {client}: {speed:,.0f} datapoints/s, {cpu * 1e6:.1f} us", flush=True)
                found[client].append((speed, cpu))
        medians = {client: [statistics.median(column) for column in zip(*rows, strict=True)] for client, rows in found.items()}
        for client, (speed, cpu) in medians.items():
            print(f"  {client:28} {speed:8,.0f} datapoints/s  {cpu * 1e6:5.1f} us of CPU each")
        own = medians["this package"]
        for client, wanted in (("SDK 1.13", case.ratio_to_sdk), ("a client that sends nothing", case.ratio_to_nothing)):
            ratio, of_cpu = own[0] / medians[client][0], medians[client][1] / own[1]
            bound = "" if wanted is None else f" (at least {wanted:g}: {'met' if ratio >= wanted else 'MISSED'})"
            print(f"  {ratio:.2f} x the speed of {client}{bound}, {of_cpu:.2f} x its datapoints of a CPU second")


if __name__ == "__main__":
    main()
