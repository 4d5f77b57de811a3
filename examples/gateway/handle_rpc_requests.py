"""Respond to server-side RPCs of sub-devices, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the gateway.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import DeviceSession, GatewayClient, GatewayConfig, run
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse

relays: dict[str, bool] = {}


async def respond(session: DeviceSession, request: GatewayRPCRequest) -> GatewayRPCResponse:
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
            relay.set_rpc_request_callback(respond)
        print("Waiting for RPC requests. Press Ctrl-C to stop.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
