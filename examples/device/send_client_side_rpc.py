"""Make client-side RPCs: the platform's rule chain responds, or reports that it does not know the method.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

from typing import Any

from tb_mqtt_client import DeviceClient, DeviceConfig, RPCStatus, run


async def call(client: DeviceClient, method: str, params: Any = None) -> str:
    try:
        response = await client.call_rpc(method, params, timeout=5)
    except TimeoutError:
        # The platform itself gives up after 60 seconds and responds with the status TIMEOUT.
        return "no response within 5 s"
    return str(response.result) if response.status is RPCStatus.SUCCESS else f"{response.status}, {response.error}"


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        print("getCurrentTime:", await call(client, "getCurrentTime", {"zone": "UTC"}))
        print("noSuchMethod:", await call(client, "noSuchMethod"))


if __name__ == "__main__":
    run(main())
