"""Records of the messages of a gateway, as the emulator receives them, and of the states of its sub-devices."""

import asyncio

from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState


class Wire:
    """Records messages under ``v1/gateway/``. ``verdict`` decides about them; by default the emulator does."""

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
        """Return the documents that were received on a topic, by the end of its name."""
        return [publish.json() for publish in self.publishes if publish.topic == f"v1/gateway/{kind}"]

    async def next(self, kind):
        """Wait for the next document on a topic."""
        while True:
            publish = await self.arrived.get()
            if publish.topic == f"v1/gateway/{kind}":
                return publish.json()


CONNECTED, DISCONNECTED = DeviceSessionState.CONNECTED, DeviceSessionState.DISCONNECTED
RECONNECTING, LOST = DeviceSessionState.RECONNECTING, DeviceSessionState.CONNECTION_LOST
FAILED = DeviceSessionState.CONNECTION_FAILED


class States:
    """Records the states of a session."""

    def __init__(self, session):
        self.seen = []
        self._arrived = asyncio.Event()
        session.set_state_change_callback(self._changed_to)

    def _changed_to(self, session):
        self.seen.append(session.state)
        self._arrived.set()

    async def until(self, *states):
        """Wait until the last states are ``states``."""
        while self.seen[-len(states) :] != list(states):
            self._arrived.clear()
            await self._arrived.wait()


async def announced(gateway, name="D1", profile="default"):
    """Connect a sub-device, and return its session."""
    session, result = await gateway.connect_device(name, profile, wait_for_publish=True)
    assert result.is_successful()
    return session
