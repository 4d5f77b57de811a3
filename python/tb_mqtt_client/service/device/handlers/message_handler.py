"""What the handlers of a device's messages share."""

from __future__ import annotations

from tb_mqtt_client.service.device.message_adapter import JsonMessageAdapter, MessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport


class MessageHandler:
    """Reads messages with an adapter, and reports what is wrong with them. ``handle`` raises nothing."""

    def __init__(self, message_adapter: MessageAdapter | None = None, report: InboundReport | None = None) -> None:
        """Without an adapter messages are JSON; without a report of a client's own the handler has one for itself."""
        self._message_adapter = message_adapter or JsonMessageAdapter()
        self._report = report or InboundReport()

    def set_message_adapter(self, message_adapter: MessageAdapter) -> None:
        """Read messages with another adapter. Raises ``ValueError`` for what is none."""
        if not isinstance(message_adapter, MessageAdapter):
            raise ValueError("message_adapter must be an instance of MessageAdapter.")  # noqa: TRY004  # published type and text
        self._message_adapter = message_adapter
