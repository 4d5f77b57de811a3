"""Let users claim sub-devices: a user who enters a device's name and its secret in time becomes the owner.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

from tb_mqtt_client import ClaimRequest, GatewayClient, GatewayConfig, run
from tb_mqtt_client.entities.gateway.gateway_claim_request import GatewayClaimRequestBuilder

SECONDS = 120


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        meter, _ = await gateway.connect_device("meter 7", "meter", wait_for_publish=True)
        other, _ = await gateway.connect_device("meter 8", "meter", wait_for_publish=True)

        claims = GatewayClaimRequestBuilder()
        claims.add_device_request(meter, ClaimRequest.build("printed on meter 7", SECONDS))
        claims.add_device_request(other, ClaimRequest.build("printed on meter 8", SECONDS))
        result = await gateway.send_device_claim_request(meter, claims.build())
        # The platform acknowledges the request. It does not report whether its settings allow claiming.
        print(f"Claiming of two devices for {SECONDS} s: {result.reason}")


if __name__ == "__main__":
    run(main())
