"""Announce a sub-device, and report that it has disconnected.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

from tb_mqtt_client import GatewayClient, GatewayConfig, run


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        # The platform creates the device and its profile if they do not exist.
        meter, announced = await gateway.connect_device("meter 7", "meter", wait_for_publish=True)
        print("connected:", announced.reason, meter.state.value)

        # Connecting a name again returns the existing session.
        again, _ = await gateway.connect_device("meter 7", wait_for_publish=True)
        print("the same session:", again is meter)

        _, left = await gateway.disconnect_device(meter, wait_for_publish=True)
        print("disconnected:", left.reason, meter.state.value)


if __name__ == "__main__":
    run(main())
