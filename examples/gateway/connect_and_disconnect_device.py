"""Announce a device behind the gateway, and say when it is gone.

TB_HOST and TB_ACCESS_TOKEN say which platform and which gateway.
"""

from tb_mqtt_client import GatewayClient, GatewayConfig, run


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        # The platform creates the device, and the profile too, when there is none.
        meter, announced = await gateway.connect_device("meter 7", "meter", wait_for_publish=True)
        print("connected:", announced.reason, meter.state.value)

        # The same name gives the same session.
        again, _ = await gateway.connect_device("meter 7", wait_for_publish=True)
        print("the same session:", again is meter)

        _, left = await gateway.disconnect_device(meter, wait_for_publish=True)
        print("disconnected:", left.reason, meter.state.value)


if __name__ == "__main__":
    run(main())
