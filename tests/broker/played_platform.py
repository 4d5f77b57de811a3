"""A client on a real broker that plays the platform."""

import asyncio
import json

from broker_client import BrokerClient


class PlayedPlatform(BrokerClient):
    """Hears everything under ``v1/``. Topics stand without ``prefix``."""

    prefix = "v1/"

    def __init__(self, broker):
        super().__init__(broker, "platform", qos=1)
        self.heard = asyncio.Queue()

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
