"""Programs with a store, to be killed: each writes a key to stdout once the datapoints of that key must not be lost any more.

This process starts a program for each line of stdin, which is JSON: the options of the client, the prefix of the keys, and the
number of sub-devices; with 0, a device sends. It forks, because importing the package takes longer than a round. It writes the id
of the process before its keys, and its exit status after them.
"""

import asyncio
import json
import os
import sys
from functools import partial

from tb_mqtt_client import DeviceClient, GatewayClient


def report(key):
    os.write(1, f"{key}\n".encode())


async def send_all(send, data_of, prefix, *, reports_return):
    number = 0
    while True:
        key = f"{prefix}-{number}"
        number += 1
        delivery = await send(number, data_of(key, number))
        if reports_return:
            report(key)
        else:
            delivery.stored.add_done_callback(lambda _, key=key: report(key))
            if number % 20 == 0:
                await asyncio.sleep(0.001)


def two_values(key, number):
    return {key: number, f"{key}-b": "x" * (number % 50)}


def ten_values(key, number):
    return {key: number, **{f"{key}-{letter}": number for letter in "bcdefghij"}}


async def send_own(client, _number, data):
    [delivery] = await client.send_timeseries(data, wait_for_publish=False)
    return delivery


async def send_of_sub_device(client, sessions, number, data):
    return await client.send_device_timeseries(sessions[number % len(sessions)], data, wait_for_publish=False)


async def program(options, prefix, sub_devices):
    client = GatewayClient(options) if sub_devices else DeviceClient(options)
    await client.start()
    send, data_of = partial(send_own, client), two_values
    if sub_devices:
        names = [f"sub-device {number}" for number in range(sub_devices)]
        sessions = [(await client.connect_device(name, wait_for_publish=False))[0] for name in names]
        send, data_of = partial(send_of_sub_device, client, sessions), ten_values
    always = options["store"]["durability"] == "always"
    report("ready")
    senders = [send_all(send, data_of, f"{prefix}-{sender}", reports_return=always) for sender in range(4)]
    await asyncio.gather(*senders)


def main():
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            asyncio.run(program(*json.loads(line)))
            return
        report(pid)
        _, status = os.waitpid(pid, 0)
        report(f"ended {os.waitstatus_to_exitcode(status)}")


main()
