"""Functions for methods of server-side RPC and for shared attributes, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from tb_mqtt_client import DeviceClient, RPCRefusal, run


class Mode(Enum):
    ECO = "eco"
    COMFORT = "comfort"


@dataclass
class Slot:
    """A time with a temperature of its own."""

    start: str
    degrees: float
    days: list[str] | None = None


class Thermostat:
    """Methods of an object can be handlers, too."""

    def __init__(self, client: DeviceClient) -> None:
        self.target = 20.0
        self.slots: list[Slot] = []
        client.rpc("setTarget")(self.set_target)
        client.rpc("addSlot")(self.add_slot)
        client.rpc("status")(self.status)
        client.on_attribute("mode", "interval")(self.settings_changed)

    async def set_target(self, degrees: float) -> float:
        if not 5 <= degrees <= 30:
            raise RPCRefusal(f"{degrees} degrees are out of range (5 to 30)")
        self.target = degrees
        return self.target

    def add_slot(self, slot: Slot) -> int:
        self.slots.append(slot)
        return len(self.slots)

    def status(self) -> dict[str, object]:
        return {"target": self.target, "slots": [slot.start for slot in self.slots]}

    def settings_changed(self, mode: Mode | None = None, interval: int = 10) -> None:
        print("mode:", "not changed" if mode is None else mode.name, "interval:", interval)


async def main() -> None:
    client = DeviceClient()
    Thermostat(client)
    async with client:
        print("Waiting for requests and attributes. Press Ctrl-C to stop.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
