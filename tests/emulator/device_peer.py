"""Shared parts of tests of a device's downlinks: topics, a client, and the RPC responses that the platform gets."""

import asyncio

from tb_mqtt_client import DeviceClient

ATTRIBUTES = "v1/devices/me/attributes"
RPC_REQUEST = "v1/devices/me/rpc/request/"
RPC_RESPONSE = "v1/devices/me/rpc/response/"
FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}


def make_client(emulator, **options):
    return DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"} | options)


class NoException(BaseException):
    """A failure like the ones of test frameworks, which a callback in a test may raise."""


async def cancelled(_message):
    """Await a task that is cancelled, as a callback may do."""
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


class RPCResponses:
    """The responses of the device to RPC requests, as they arrive."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.arrived = asyncio.Queue()
        emulator.on_publish = self.judge

    def judge(self, publish):
        if publish.topic.startswith(RPC_RESPONSE):
            self.arrived.put_nowait((int(publish.topic.removeprefix(RPC_RESPONSE)), publish.json()))

    async def to(self, request_id, payload):
        """Send an RPC request to the device, and return id and payload of the next response."""
        assert await self.emulator.publish_to("TOKEN", f"{RPC_REQUEST}{request_id}", payload)
        return await self.arrived.get()
