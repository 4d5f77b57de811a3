"""A program with a store, to be killed: it writes each key to stdout once the datapoint must not be lost any more.

Arguments: the options of the client as JSON, and the prefix of the keys.
"""

import asyncio
import json
import os
import sys

from tb_mqtt_client import DeviceClient


def report(key):
    os.write(1, f"{key}\n".encode())


async def send_all(client, prefix, *, reports_return):
    number = 0
    while True:
        key = f"{prefix}-{number}"
        number += 1
        data = {key: number, f"{key}-b": "x" * (number % 50)}
        [delivery] = await client.send_timeseries(data, wait_for_publish=False)
        if reports_return:
            report(key)
        else:
            delivery.stored.add_done_callback(lambda _, key=key: report(key))
            if number % 20 == 0:
                await asyncio.sleep(0.001)


async def main():
    options, prefix = json.loads(sys.argv[1]), sys.argv[2]
    client = DeviceClient(options)
    await client.start()
    always = options["store"]["durability"] == "always"
    report("ready")
    await asyncio.gather(*[send_all(client, f"{prefix}-{sender}", reports_return=always) for sender in range(4)])


asyncio.run(main())
