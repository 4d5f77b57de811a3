"""The servers of ``tb-mqtt bench send``: two emulators, in a process of their own so that only the client's CPU time is measured.

The first emulator keeps what it receives, for the check; the second one only counts it, for the timed rounds. This program writes
one line with both ports. For each line on stdin it writes the datapoints that the first one has received, and forgets them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tb_mqtt_client.emulator import Emulator

DEVICE: str = "bench-device"
GATEWAY: str = "bench-gateway"
"""The access tokens."""


async def serve(max_payload_size: int) -> None:
    """Serve until the end of stdin.

    Args:
        max_payload_size: The largest packet to accept, in bytes.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with (
        Emulator(max_payload_size=max_payload_size) as checked,
        Emulator(max_payload_size=max_payload_size, keep_data=False) as counting,
    ):
        for emulator in (checked, counting):
            emulator.add_device(DEVICE)
            emulator.add_gateway(GATEWAY)
        write({"checked": checked.port, "timed": counting.port})
        while await reader.readline():
            found: list[Any] = []
            for device in checked.devices.values():
                name = None if device.name == DEVICE else device.name
                found += [(name, ts, list(values.items())) for ts, values in device.records]
                device.records.clear()
            write({"received": found})


def write(document: dict[str, Any]) -> None:
    """Write one line."""
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
