"""Request attributes of a sub-device from the platform.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

from tb_mqtt_client import GatewayClient, GatewayConfig, run


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        meter, _ = await gateway.connect_device("meter 7", "meter", wait_for_publish=True)
        await gateway.send_device_attributes(meter, {"serial": "M-0007"})

        # The keys must be named, because the platform does not return all attributes of a sub-device at once.
        response = await gateway.request_device_attributes(meter, shared_keys=["tariff", "period"], client_keys=["serial"])
        print("tariff:", response.get_shared("tariff", "not set"))
        print("period:", response.get_shared("period", "not set"))
        print("serial:", response.get_client("serial"))


if __name__ == "__main__":
    run(main())
