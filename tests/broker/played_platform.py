"""A client on a real broker that plays the platform."""

import asyncio
import json

from gmqtt import Client as GmqttClient


class PlayedPlatform:
    """Hears everything under ``v1/``. Topics stand without ``prefix``."""

    prefix = "v1/"

    def __init__(self, broker):
        self._broker = broker
        self.heard = asyncio.Queue()
        self._subscribed = asyncio.Event()
        self._client = GmqttClient("platform")

    async def __aenter__(self):
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        await self._client.connect(self._broker.host, self._broker.port)
        self._client.subscribe("v1/#", qos=1, no_local=True)
        await self._subscribed.wait()
        return self

    async def __aexit__(self, *_):
        await self._client.disconnect()

    def _on_message(self, _client, topic, payload, _qos, _properties):
        document = json.loads(payload)
        kind = topic.removeprefix(self.prefix)
        if document.get("method") != "getSessionLimits":
            self.answer(kind, document)
        self.heard.put_nowait((kind, document))
        return 0

    def answer(self, kind, document):
        """Say something to what was heard."""

    def say(self, kind, document):
        self._client.publish(self.prefix + kind, json.dumps(document), qos=1)

    async def hear(self, kind):
        while True:
            heard, document = await self.heard.get()
            if heard == kind:
                return document
