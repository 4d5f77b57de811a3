"""A plain gmqtt client on a real broker, subscribed to everything under ``v1/``."""

import asyncio

from gmqtt import Client as GmqttClient


class BrokerClient:
    """Passes received messages to the method ``_on_message`` of its subclass, which gmqtt calls."""

    def __init__(self, broker, name, qos):
        self._broker = broker
        self._qos = qos
        self._subscribed = asyncio.Event()
        self._client = GmqttClient(name)

    async def __aenter__(self):
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        await self._client.connect(self._broker.host, self._broker.port)
        # The broker does not send this client its own messages.
        self._client.subscribe("v1/#", qos=self._qos, no_local=True)
        await self._subscribed.wait()
        return self

    async def __aexit__(self, *_):
        await self._client.disconnect()
