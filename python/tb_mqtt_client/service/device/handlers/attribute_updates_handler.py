"""Shared attributes that have changed."""

from __future__ import annotations

from collections.abc import Callable

from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.service.callbacks import Callback, call_reporting
from tb_mqtt_client.service.device.handlers.message_handler import MessageHandler
from tb_mqtt_client.service.device.message_adapter import MessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport

AttributeUpdateCallback = Callback[None]
"""Called with an ``AttributeUpdate``."""


class AttributeUpdatesHandler(MessageHandler):
    """Gives updates to the callback. Without one they are of no interest."""

    def __init__(self, message_adapter: MessageAdapter | None = None, report: InboundReport | None = None) -> None:
        super().__init__(message_adapter, report)
        self._callback: AttributeUpdateCallback | None = None
        self.listeners: list[Callable[[AttributeUpdate], None]] = []
        """Parts of the client that are told before the callback is, and do not wait."""

    def set_callback(self, callback: AttributeUpdateCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an update and wait until the callback has taken it."""
        if self._callback is None and not self.listeners:
            return
        try:
            update: AttributeUpdate = self._message_adapter.parse_attribute_update(payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        for listener in self.listeners:
            listener(update)
        if self._callback is not None:
            await call_reporting(self._report, "attribute updates", self._callback, update)
