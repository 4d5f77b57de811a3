"""Let a user claim the device: whoever enters its name and this secret within the time becomes its owner.

TB_HOST and TB_ACCESS_TOKEN say which platform and which device.
"""

from tb_mqtt_client import ClaimRequest, DeviceClient, DeviceConfig, run

SECRET = "printed on the device"
SECONDS = 120


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        result = await client.claim_device(ClaimRequest.build(SECRET, SECONDS))
        # The platform acknowledges the request; whether its settings allow claiming it does not say.
        print(f"Claiming for {SECONDS} s: {result.reason}")


if __name__ == "__main__":
    run(main())
