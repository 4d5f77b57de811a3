"""A complete device: a thermostat that reports, receives settings, and responds to RPC requests, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. After a lost connection, the client
reconnects automatically; data measured in the meantime is queued.
"""

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any

from tb_mqtt_client import AttributeUpdate, DeviceClient, DeviceConfig, RPCRequest, run
from tb_mqtt_client.common.logging_utils import configure_logging

logger = logging.getLogger("thermostat")


class Thermostat:
    """A thermostat with the shared attributes ``target_temperature`` and ``period`` (seconds between two reports)."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"target_temperature": 21.0, "period": 5.0}
        self.temperature = 18.0
        self._changed = asyncio.Event()

    def take_settings(self, values: dict[str, Any]) -> None:
        self.settings |= {key: values[key] for key in self.settings.keys() & values.keys()}
        logger.info("settings: %s", self.settings)
        self._changed.set()

    def measure(self) -> dict[str, float]:
        self.temperature += 0.2 * (self.settings["target_temperature"] - self.temperature) + random.uniform(-0.1, 0.1)
        return {"temperature": round(self.temperature, 2), "target_temperature": self.settings["target_temperature"]}

    def respond(self, request: RPCRequest) -> Any:
        """Respond to a request: the return value is its result, and an exception is sent as its error."""
        if request.method == "get_status":
            return self.measure()
        if request.method == "set_target":
            self.take_settings({"target_temperature": float(request.params)})
            return self.settings
        raise ValueError(f"There is no method {request.method!r}")

    async def wait_period(self) -> None:
        """Wait until the next report is due, or the settings have changed."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings["period"]):
                await self._changed.wait()


async def main() -> None:
    configure_logging()
    thermostat = Thermostat()

    def attributes_changed(update: AttributeUpdate) -> None:
        thermostat.take_settings(update.as_dict())

    client = DeviceClient(DeviceConfig())
    client.set_attribute_update_callback(attributes_changed)
    client.set_rpc_request_callback(thermostat.respond)
    async with client:
        await client.send_attributes({"model": "thermostat", "version": "1.0"})
        stored = await client.request_attributes(shared_keys=list(thermostat.settings))
        thermostat.take_settings({entry.key: entry.value for entry in stored.shared})
        while True:
            # The client takes care of the delivery, so the result is not awaited here.
            await client.send_timeseries(thermostat.measure(), wait_for_publish=False)
            await thermostat.wait_period()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
