"""The platform's part in an update: packages of the emulator, and faults."""

import asyncio
import random

from tb_mqtt_client.emulator import OtaPackage, Verdict

IMAGE = random.Random(1).randbytes(10_000)
FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "backpressure_delay": 0.02}
ALL_STATES = ["IDLE", "DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]
DROP = Verdict.refuse(0)
"""Acknowledge a request, without a response."""


def config(at, token="TOKEN", **options):
    return FAST | {"host": at.host, "port": at.port, "access_token": token} | options


class OtaPlatform:
    """The packages of one device, and its requests for chunks."""

    def __init__(self, emulator, owner="device"):
        self.emulator, self.owner = emulator, owner
        self.requests = []
        """(number of the session, request id, chunk, size) of each request."""
        self.fault = None
        """Called with (kind, request id, chunk, size) of each request. It returns ``None`` for the chunk, other bytes as a wrong
        chunk, a str for an error, or a ``Verdict``."""
        self._sessions = []
        self._waiters = set()
        emulator.on_publish = self._judge

    async def assign(self, title, version, image=None, kind="fw", algorithm="SHA256", url=None):
        await self.emulator.assign_package(self.owner, OtaPackage(title, version, image, kind, algorithm, url=url))

    async def change(self, **attributes):
        """Change attributes of the firmware; ``None`` deletes one."""
        attributes = {f"fw_{name}": value for name, value in attributes.items()}
        changed = {key: value for key, value in attributes.items() if value is not None}
        await self.emulator.set_shared_attributes(self.owner, changed)
        await self.emulator.delete_shared_attributes(self.owner, attributes.keys() - changed.keys())

    async def unassign(self, kind="fw"):
        await self.emulator.unassign_package(self.owner, kind)

    def states(self, kind="fw"):
        """Return all reported states and errors, in their order."""
        telemetry = self.emulator.device(self.owner).telemetry
        # One that was in flight at the end of a connection has arrived twice.
        points = list(dict.fromkeys(point for point in telemetry if point.key in {f"{kind}_state", f"{kind}_error"}))
        assert len({(point.ts, point.key) for point in points}) == len(points), "two states have the same time"
        return [point.value for point in points]

    async def wait_requests(self, count):
        """Wait until ``count`` chunks were requested."""
        event = asyncio.Event()
        self._waiters.add(event)
        async with asyncio.timeout(10):
            while len(self.requests) < count:
                event.clear()
                await event.wait()
        self._waiters.discard(event)

    def send(self, topic, payload):
        """Send a message in the device's current session."""
        return self.emulator.device(self.owner).session.send(topic, payload)

    def _judge(self, publish):
        if not publish.topic.startswith(("v2/fw/request/", "v2/sw/request/")):
            return None
        _, kind, _, request_id, _, number = publish.topic.split("/")
        session, request_id, number, size = publish.device.session, int(request_id), int(number), int(publish.payload)
        if session not in self._sessions:
            self._sessions.append(session)
        self.requests.append((self._sessions.index(session), request_id, number, size))
        for waiter in self._waiters:
            waiter.set()
        fault = self.fault(kind, request_id, number, size) if self.fault else None
        if isinstance(fault, bytes):
            session.send(publish.topic.replace("request", "response"), fault)
            return DROP
        if isinstance(fault, str):
            # Errors of software have the same topic.
            session.send("v2/fw/error", fault.encode())
            return Verdict.close(0x83)
        return fault


class Installer:
    """A callback of the application that keeps its arguments."""

    def __init__(self):
        self.packages = []
        self.images = []

    async def __call__(self, package, path):
        self.packages.append((package, path))
        self.images.append(path.read_bytes() if path else None)


async def update(client, **options):
    return await (await client.update_firmware(**({"chunk_size": 1000} | options)))


def subscriptions(emulator, owner="device"):
    return {topic for topic in emulator.device(owner).session.downlinks.subscriptions if topic.startswith("v2/")}


def once(*faults):
    """Return faults for the first requests of chunk 3."""
    left = list(faults)
    return lambda _kind, _request_id, number, _size: left.pop(0) if number == 3 and left else None
