"""Call the platform: its rule chain answers, or says that it does not know the method.

TB_HOST and TB_ACCESS_TOKEN say which platform and which device.
"""

from typing import Any

from tb_mqtt_client import DeviceClient, DeviceConfig, RPCStatus, run


async def call(client: DeviceClient, method: str, params: Any = None) -> str:
    try:
        response = await client.call_rpc(method, params, timeout=5)
    except TimeoutError:
        # The platform itself gives up after 60 seconds, with the status TIMEOUT.
        return "no answer within 5 s"
    return str(response.result) if response.status is RPCStatus.SUCCESS else f"{response.status}, {response.error}"


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        print("getCurrentTime:", await call(client, "getCurrentTime", {"zone": "UTC"}))
        print("noSuchMethod:", await call(client, "noSuchMethod"))


if __name__ == "__main__":
    run(main())
