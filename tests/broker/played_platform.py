"""A client on a real broker that plays the platform."""

import asyncio
import json

from broker_client import BrokerClient


class PlayedPlatform(BrokerClient):
    """Receives everything under ``v1/``. Its topics are written without ``prefix``."""

    prefix = "v1/"

    def __init__(self, broker):
        super().__init__(broker, "platform", qos=1)
        self.received = asyncio.Queue()

    def _on_message(self, _client, topic, payload, _qos, _properties):
        document = json.loads(payload)
        kind = topic.removeprefix(self.prefix)
        if document.get("method") != "getSessionLimits":
            self.respond(kind, document)
        self.received.put_nowait((kind, document))
        return 0

    def respond(self, kind, document):
        """Respond to a received message; subclasses do."""

    def send(self, kind, document):
        self._client.publish(self.prefix + kind, json.dumps(document), qos=1)

    async def wait_for(self, kind):
        while True:
            received_kind, document = await self.received.get()
            if received_kind == kind:
                return document
