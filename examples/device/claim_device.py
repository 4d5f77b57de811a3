"""Let a user claim the device: a user who enters its name and this secret in time becomes the owner.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

from tb_mqtt_client import ClaimRequest, DeviceClient, DeviceConfig, run

SECRET = "printed on the device"
SECONDS = 120


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        result = await client.claim_device(ClaimRequest.build(SECRET, SECONDS))
        # The platform acknowledges the request. It does not report whether its settings allow claiming.
        print(f"Claiming for {SECONDS} s: {result.reason}")


if __name__ == "__main__":
    run(main())
