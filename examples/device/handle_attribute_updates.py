"""Print changes of the shared attributes as the platform sets and deletes them, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import AttributeUpdate, DeviceClient, DeviceConfig, run


async def attributes_changed(update: AttributeUpdate) -> None:
    for key, value in update.items():
        print("set:", key, "=", value)
    for key in update.deleted_keys:
        print("deleted:", key)


async def main() -> None:
    client = DeviceClient(DeviceConfig())
    # The callback is set before connecting, so that it receives all updates.
    client.set_attribute_update_callback(attributes_changed)
    async with client:
        print("Waiting for attribute updates. Press Ctrl-C to stop.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
