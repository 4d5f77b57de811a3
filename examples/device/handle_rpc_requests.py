"""Answer the platform's calls, until Ctrl-C.

TB_HOST and TB_ACCESS_TOKEN say which platform and which device.
"""

import asyncio
from contextlib import suppress

from tb_mqtt_client import DeviceClient, DeviceConfig, RPCRequest, RPCResponse, run

switches = {"light": False}


async def answer(request: RPCRequest) -> RPCResponse:
    print("call:", request.method, request.params)
    match request.method:
        case "get_switches":
            return RPCResponse.build(request.request_id, result=switches)
        case "set_switch":
            # What is raised here becomes the answer too: a KeyError for a call without a name.
            name, on = request.params["name"], request.params["on"]
            switches[name] = on
            return RPCResponse.build(request.request_id, result={name: on})
        case _:
            return RPCResponse.build(request.request_id, error=f"There is no method {request.method!r}")


async def main() -> None:
    client = DeviceClient(DeviceConfig())
    client.set_rpc_request_callback(answer)
    async with client:
        print("Waiting for calls. Ctrl-C ends this program.")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        run(main())
