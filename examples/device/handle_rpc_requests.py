"""Respond to server-side RPCs, until Ctrl-C.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import DeviceClient, DeviceConfig, RPCRequest, RPCResponse, run

switches = {"light": False}


async def respond(request: RPCRequest) -> RPCResponse:
    print("request:", request.method, request.params)
    match request.method:
        case "get_switches":
            return RPCResponse.build(request.request_id, result=switches)
        case "set_switch":
            # An exception is sent as the error of the request, such as KeyError for a request without a name.
            name, on = request.params["name"], request.params["on"]
            switches[name] = on
            return RPCResponse.build(request.request_id, result={name: on})
        case _:
            return RPCResponse.build(request.request_id, error=f"There is no method {request.method!r}")


async def main() -> None:
    client = DeviceClient(DeviceConfig())
    client.set_rpc_request_callback(respond)
    async with client:
        print("Waiting for RPC requests. Press Ctrl-C to stop.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
