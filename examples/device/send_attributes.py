"""Send client attributes, which describe the device. The platform keeps the newest value of each.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

import platform

from tb_mqtt_client import AttributeEntry, DeviceClient, DeviceConfig, run


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        result = await client.send_attributes({"python": platform.python_version(), "system": platform.system()})
        print("a dict:", result.datapoints_count, "attributes,", result.reason)

        result = await client.send_attributes(AttributeEntry("serial", "TH-0042"))
        print("an entry:", result.datapoints_count, "attribute,", result.reason)

        result = await client.send_attributes([AttributeEntry("floor", 3), AttributeEntry("place", {"x": 12.5, "y": 3.0})])
        print("a list:", result.datapoints_count, "attributes,", result.reason)


if __name__ == "__main__":
    run(main())
