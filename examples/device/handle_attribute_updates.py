"""Hear of shared attributes as the platform sets and deletes them, until Ctrl-C.

TB_HOST and TB_ACCESS_TOKEN say which platform and which device.
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
    # Before connecting, so that no update is missed.
    client.set_attribute_update_callback(attributes_changed)
    async with client:
        print("Waiting for attributes. Ctrl-C ends this program.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
