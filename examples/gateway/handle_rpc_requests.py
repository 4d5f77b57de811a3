"""Answer the platform's calls to devices behind the gateway, until Ctrl-C.

TB_HOST and TB_ACCESS_TOKEN say which platform and which gateway.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import DeviceSession, GatewayClient, GatewayConfig, run
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse

relays: dict[str, bool] = {}


async def answer(session: DeviceSession, request: GatewayRPCRequest) -> GatewayRPCResponse:
    name = session.device_info.device_name
    print(f"{name}: {request.method} {request.params}")
    match request.method:
        case "get_relay":
            return GatewayRPCResponse.build(name, request.request_id, result=relays.get(name, False))
        case "set_relay":
            relays[name] = bool(request.params)
            return GatewayRPCResponse.build(name, request.request_id, result=relays[name])
        case _:
            return GatewayRPCResponse.build(name, request.request_id, error=f"There is no method {request.method!r}")


async def main() -> None:
    async with GatewayClient(GatewayConfig()) as gateway:
        for number in range(1, 4):
            relay, _ = await gateway.connect_device(f"relay {number}", "relay", wait_for_publish=True)
            relay.set_rpc_request_callback(answer)
        print("Waiting for calls. Ctrl-C ends this program.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
