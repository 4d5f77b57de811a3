"""What a gateway says for its sub-devices, as it arrives at the emulator, and what its sessions say of their state."""

import asyncio

from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState


class Wire:
    """Records publishes under ``v1/gateway/``, and decides nothing unless told to."""

    def __init__(self, emulator):
        self.publishes = []
        self.arrived = asyncio.Queue()
        self.verdict = lambda _publish: None
        emulator.on_publish = self._on_publish

    def _on_publish(self, publish):
        if publish.topic.startswith("v1/gateway/"):
            self.publishes.append(publish)
            self.arrived.put_nowait(publish)
        return self.verdict(publish)

    def of(self, kind):
        """Documents published so far on a topic, by the end of its name."""
        return [publish.json() for publish in self.publishes if publish.topic == f"v1/gateway/{kind}"]

    async def next(self, kind):
        """The next document on a topic."""
        while True:
            publish = await self.arrived.get()
            if publish.topic == f"v1/gateway/{kind}":
                return publish.json()


CONNECTED, DISCONNECTED = DeviceSessionState.CONNECTED, DeviceSessionState.DISCONNECTED
RECONNECTING, LOST = DeviceSessionState.RECONNECTING, DeviceSessionState.CONNECTION_LOST
FAILED = DeviceSessionState.CONNECTION_FAILED


class States:
    """Changes of a session's state."""

    def __init__(self, session):
        self.seen = []
        self._changed = asyncio.Condition()
        self._arrived = asyncio.Event()
        session.set_state_change_callback(self._changed_to)

    def _changed_to(self, session):
        self.seen.append(session.state)
        self._arrived.set()

    async def until(self, *states):
        while self.seen[-len(states) :] != list(states):
            self._arrived.clear()
            await self._arrived.wait()


async def announced(gateway, name="D1", profile="default"):
    session, result = await gateway.connect_device(name, profile, wait_for_publish=True)
    assert result.is_successful()
    return session
