"""Fill a store of 1 GiB without a server, kill the program that did it, and send everything with another one.

Both programs run in processes of their own. This one is the server: it checks that all sends arrive, and that the memory of the
second program stays small. ``make soak-store`` runs it.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Emulator

TOKEN = "soak-store"
KEYS = 50
"""Datapoints of a send."""
SEND_BYTES = 11_000
"""Encoded bytes of a send, about."""
ALLOWED_BYTES = 64 * 2**20
"""The allowed growth of the resident memory while the store is sent."""
ALLOWED_SECONDS = 1.0
"""The allowed time for opening the store."""
MIB = 2**20


def resident():
    """Return the largest resident memory of this process until now, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def show(**values):
    """Write a line for the server process."""
    os.write(1, f"{json.dumps(values)}\n".encode())


async def fill(options, sends):
    """Send without a connection, and wait to be killed."""
    client = DeviceClient(options)
    await client.start()
    text = "x" * (SEND_BYTES // KEYS - 15)
    values = {f"key {number}": text for number in range(KEYS)}
    for number in range(sends):
        await client.send_timeseries({"ts": number + 1, "values": values}, wait_for_publish=False)
    await client.flush()
    show(queued=client.statistics.queued, bytes=client.health()["store"]["bytes"])
    await asyncio.Event().wait()


async def drain(options):
    """Send what the store has."""
    client = DeviceClient(options)
    before, begin = resident(), time.monotonic()
    await client.start()
    opened = time.monotonic() - begin
    recovered = client.statistics.recovered
    while client.statistics.queued or client.statistics.in_flight:  # noqa: ASYNC110  # there is no event for that
        await asyncio.sleep(0.1)
    seconds = time.monotonic() - begin
    now = client.statistics
    await client.stop()
    show(
        opened=opened,
        seconds=seconds,
        recovered=recovered,
        acknowledged=now.acknowledged,
        grown=resident() - before,
        bytes=client.health()["store"]["bytes"],
    )


class Counted:
    """Counts the sends that arrive, each of which has a timestamp of its own."""

    def __init__(self, emulator, sends):
        self.arrived = bytearray(sends)
        self.again = 0
        emulator.on_publish = self._note

    def _note(self, publish):
        if not publish.topic.endswith("telemetry"):
            return
        records = publish.json()
        for record in records if isinstance(records, list) else [records]:
            # Only a datapoint larger than a message may be alone: the datapoints of one send stay together.
            assert len(record["values"]) == KEYS
            self.again += self.arrived[record["ts"] - 1]
            self.arrived[record["ts"] - 1] = 1


async def run(arguments, *, is_killed):
    """Run this file as another program; return what it reports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    line = await process.stdout.readline()
    if is_killed:
        process.send_signal(signal.SIGKILL)
    await process.wait()
    return json.loads(line)


async def serve(mebibytes):
    """Run both programs, and check what arrives."""
    sends = mebibytes * MIB // SEND_BYTES
    with tempfile.TemporaryDirectory() as folder:
        async with Emulator(keep_data=False) as emulator:
            emulator.add_device(TOKEN, "soak store")
            counted = Counted(emulator, sends)
            await emulator.stop()
            store = {"path": str(Path(folder) / "queue"), "max_bytes": 2 * mebibytes * MIB, "min_free": 0}
            options = json.dumps({"host": emulator.host, "port": emulator.port, "access_token": TOKEN, "store": store})
            filled = await run(["--fill", options, "--sends", str(sends)], is_killed=True)
            print(f"{sends:,} sends with {filled['queued']:,} datapoints take {filled['bytes'] / MIB:,.0f} MiB on disk")
            await emulator.start()
            sent = await run(["--drain", options], is_killed=False)
    datapoints = sends * KEYS
    print(
        f"{sent['acknowledged']:,} datapoints sent in {sent['seconds']:.0f} s; opened in {sent['opened']:.2f} s; "
        f"memory grew by {sent['grown'] / MIB:.1f} MiB; {counted.again} sends arrived again"
    )
    missing = counted.arrived.count(0)
    assert not missing, f"{missing} sends did not arrive"
    assert filled["queued"] == sent["recovered"] == sent["acknowledged"] == datapoints, (filled, sent)
    assert sent["opened"] < ALLOWED_SECONDS, f"opening took {sent['opened']:.2f} s"
    assert sent["grown"] < ALLOWED_BYTES, f"memory grew by {sent['grown'] / MIB:.1f} MiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the store")
    for name in ("fill", "drain"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--sends", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        asyncio.run(fill(json.loads(arguments.fill), arguments.sends))
    elif arguments.drain:
        asyncio.run(drain(json.loads(arguments.drain)))
    else:
        asyncio.run(serve(arguments.mebibytes))


if __name__ == "__main__":
    main()
