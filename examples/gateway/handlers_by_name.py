"""Functions for methods and attributes of all sub-devices, or of some of them, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import DeviceSession, GatewayClient, RPCRefusal, run

gateway = GatewayClient()
degrees: dict[str, float] = {}


@gateway.rpc("heat", devices="boiler*")
async def heat(session: DeviceSession, to: float) -> float:
    if to > 90:
        raise RPCRefusal("too hot")
    degrees[session.device_info.device_name] = to
    return to


@gateway.rpc("status", devices="*")
async def status(session: DeviceSession) -> dict[str, object]:
    return {"degrees": degrees.get(session.device_info.device_name)}


@gateway.on_attribute("interval", devices="*")
async def interval_changed(session: DeviceSession, seconds: int) -> None:
    print(session.device_info.device_name, "every", seconds, "s")


async def main() -> None:
    async with gateway:
        for name in ("boiler 1", "boiler 2", "pump"):
            await gateway.connect_device(name, wait_for_publish=True)
        print("Waiting for requests and attributes. Press Ctrl-C to stop.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
