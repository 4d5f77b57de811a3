"""Ask the platform for attributes of a device behind the gateway.

TB_HOST and TB_ACCESS_TOKEN say which platform and which gateway.
"""

from tb_mqtt_client import GatewayClient, GatewayConfig, run


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        meter, _ = await gateway.connect_device("meter 7", "meter", wait_for_publish=True)
        await gateway.send_device_attributes(meter, {"serial": "M-0007"})

        # The keys must be named: of a device behind a gateway the platform does not give all attributes.
        answer = await gateway.request_device_attributes(meter, shared_keys=["tariff", "period"], client_keys=["serial"])
        print("tariff:", answer.get_shared("tariff", "not set"))
        print("period:", answer.get_shared("period", "not set"))
        print("serial:", answer.get_client("serial"))


if __name__ == "__main__":
    run(main())
