"""What tests of a device's downlinks share: the topics, a client, and the answers that the platform gets."""

import asyncio

from tb_mqtt_client import DeviceClient

ATTRIBUTES = "v1/devices/me/attributes"
CALL = "v1/devices/me/rpc/request/"
ANSWER = "v1/devices/me/rpc/response/"
FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}


def make_client(emulator, **options):
    return DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"} | options)


class NoException(BaseException):
    """As test frameworks raise them, which a callback in a test may call."""


async def cancelled(_message):
    """A callback that awaits what somebody cancels."""
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


class Answers:
    """Answers of the device to calls, as they arrive."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.arrived = asyncio.Queue()
        emulator.on_publish = self.judge

    def judge(self, publish):
        if publish.topic.startswith(ANSWER):
            self.arrived.put_nowait((int(publish.topic.removeprefix(ANSWER)), publish.json()))

    async def to(self, number, payload):
        assert await self.emulator.publish_to("TOKEN", f"{CALL}{number}", payload)
        return await self.arrived.get()
