"""``python -m tb_mqtt_client.emulator --port 1883 --gateway TOKEN --device TOKEN``"""

import argparse
import asyncio
from contextlib import suppress

from tb_mqtt_client.emulator.server import Emulator


async def serve(arguments: argparse.Namespace) -> None:
    """Listen until cancelled."""
    async with Emulator(host=arguments.host, port=arguments.port, history_limit=arguments.history) as emulator:
        for token in arguments.gateway:
            emulator.add_gateway(token)
        for token in arguments.device:
            emulator.add_device(token)
        print(f"Listening on {emulator.host}:{emulator.port}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tb_mqtt_client.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--gateway", action="append", default=[], metavar="TOKEN", help="access token of a gateway")
    parser.add_argument("--device", action="append", default=[], metavar="TOKEN", help="access token of a device")
    parser.add_argument("--history", type=int, default=1000, help="records kept a device")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
