"""Ask the platform for attributes: shared ones, which it sets for the device, and the device's own.

TB_HOST and TB_ACCESS_TOKEN say which platform and which device.
"""

from tb_mqtt_client import DeviceClient, DeviceConfig, run


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        await client.send_attributes({"serial": "TH-0042"})

        answer = await client.request_attributes(shared_keys=["target_temperature", "period"], client_keys=["serial"])
        print("target temperature:", answer.get_shared("target_temperature", "not set"))
        print("period:", answer.get_shared("period", "not set"))
        print("serial:", answer.get_client("serial"))

        # All of both scopes. The platform may never answer: after the timeout this raises TimeoutError.
        everything = await client.request_attributes(timeout=10)
        print("shared:", sorted(everything.shared_keys()), "client:", sorted(everything.client_keys()))


if __name__ == "__main__":
    run(main())
