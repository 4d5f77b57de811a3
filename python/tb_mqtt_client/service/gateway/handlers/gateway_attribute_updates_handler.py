"""Shared attributes of sub-devices that have changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from weakref import WeakKeyDictionary

from tb_mqtt_client.entities.gateway.gateway_attribute_update import GatewayAttributeUpdate
from tb_mqtt_client.service.callbacks import call_reporting
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.message_adapter import GatewayMessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport

MAX_WAITING = 100
"""Updates of one device that may wait for its callback; the others are refused."""


class GatewayAttributeUpdatesHandler:
    """Gives updates to the sessions of their devices: one after the other to each, and to several side by side."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        message_adapter: GatewayMessageAdapter,
        device_manager: DeviceManager,
        report: InboundReport | None = None,
    ) -> None:
        self.event_dispatcher = event_dispatcher
        self.message_adapter = message_adapter
        self.device_manager = device_manager
        self._report = report or InboundReport()
        self._turns: WeakKeyDictionary[DeviceSession, asyncio.Lock] = WeakKeyDictionary()
        self._waiting: Counter[DeviceSession] = Counter()

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an update and wait until the session's callback has taken it. Raises nothing."""
        try:
            update = self.message_adapter.parse_attribute_update(self.message_adapter.deserialize_to_dict(payload))
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        session = self.device_manager.resolve(update.device_name)
        if session is None:
            self._report.message_unexpected(topic, f"there is no device {update.device_name!r}")
            return
        session.update_last_seen()
        if self._waiting[session] >= MAX_WAITING:
            self._report.message_refused(topic, MAX_WAITING)
            return
        self._waiting[session] += 1
        try:
            await self._give(session, update)
        finally:
            self._waiting[session] -= 1
            if not self._waiting[session]:
                del self._waiting[session]

    async def _give(self, session: DeviceSession, update: GatewayAttributeUpdate) -> None:
        event = update.attribute_update
        event.set_device_session(session)
        give = partial(self.event_dispatcher.dispatch, device_session=session)
        # A lock lets those who wait through in the order in which they came.
        async with self._turns.setdefault(session, asyncio.Lock()):
            await call_reporting(self._report, f"attribute updates of {update.device_name}", give, event)
