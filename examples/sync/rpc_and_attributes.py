"""Callbacks without an event loop: they may block, and use the client.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. Stop the program with Ctrl-C.
"""

import threading

from tb_mqtt_client import AttributeUpdate, RPCRequest
from tb_mqtt_client.sync import DeviceClient


def main() -> None:
    client = DeviceClient()

    def on_update(update: AttributeUpdate) -> None:
        for key, value in update.items():
            print(f"set: {key} = {value}")
        # A callback may wait for the result of a send.
        client.send_attributes({"applied": update.keys()})

    def on_rpc(request: RPCRequest) -> object:
        print(f"{request.method}({request.params})")
        return {"done": request.method}

    client.set_attribute_update_callback(on_update)
    client.set_rpc_request_callback(on_rpc)
    with client:
        print("Waiting for updates and RPC requests, Ctrl-C ends")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
