"""Print changes of the shared attributes of sub-devices as the platform sets and deletes them, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import AttributeUpdate, DeviceSession, GatewayClient, GatewayConfig, run


def attributes_changed(session: DeviceSession, update: AttributeUpdate) -> None:
    name = session.device_info.device_name
    for key, value in update.items():
        print(f"{name}: set {key} = {value}")
    for key in update.deleted_keys:
        print(f"{name}: deleted {key}")


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        for number in range(1, 4):
            meter, _ = await gateway.connect_device(f"meter {number}", "meter", wait_for_publish=True)
            meter.set_attribute_update_callback(attributes_changed)
        print("Waiting for attribute updates. Press Ctrl-C to stop.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
