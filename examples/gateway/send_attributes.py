"""Send client attributes of sub-devices, and of the gateway itself.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

from tb_mqtt_client import AttributeEntry, GatewayClient, GatewayConfig, run


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        meter, _ = await gateway.connect_device("meter 7", "meter")

        result = await gateway.send_device_attributes(meter, {"serial": "M-0007", "phases": 3})
        print("a dict:", result.datapoints_count, "attributes,", result.reason)

        result = await gateway.send_device_attributes(meter, [AttributeEntry("firmware", "1.4"), AttributeEntry("wired", True)])
        print("a list:", result.datapoints_count, "attributes,", result.reason)

        result = await gateway.send_attributes({"building": "north"})
        print("the gateway itself:", result.datapoints_count, "attribute,", result.reason)


if __name__ == "__main__":
    run(main())
