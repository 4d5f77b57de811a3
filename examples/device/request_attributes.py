"""Request attributes from the platform: shared attributes, which it sets for the device, and client attributes.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

from tb_mqtt_client import DeviceClient, DeviceConfig, run


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        await client.send_attributes({"serial": "TH-0042"})

        response = await client.request_attributes(shared_keys=["target_temperature", "period"], client_keys=["serial"])
        print("target temperature:", response.get_shared("target_temperature", "not set"))
        print("period:", response.get_shared("period", "not set"))
        print("serial:", response.get_client("serial"))

        # Without keys, all attributes of both scopes. The platform may not respond; then this raises TimeoutError.
        everything = await client.request_attributes(timeout=10)
        print("shared:", sorted(everything.shared_keys()), "client:", sorted(everything.client_keys()))


if __name__ == "__main__":
    run(main())
