"""The window of publishes that have no acknowledgement.

The rule: a message that was published is here until its PUBACK comes or the connection ends.
"""

from __future__ import annotations

import asyncio

from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.service.link_pace import LinkPace

MOST_PUBLISHES = 65_000
"""There are 65,535 packet ids, and service messages and subscriptions need some, too."""
SERVICE_RESERVE = 16
"""Publishes beyond the window that only service messages may use: they do not wait behind telemetry."""


class InFlightWindow:
    """What is in flight, and whether more may be."""

    def __init__(self, max_inflight: int, pace: LinkPace) -> None:
        """At most ``max_inflight`` messages; in bytes, what ``pace`` finds that the link carries."""
        self._max_inflight = min(max_inflight, MOST_PUBLISHES)
        self._pace = pace
        self.nbytes = 0
        """Bytes of the payloads in flight."""
        self._limit = self._service_limit = self._max_inflight
        self._messages: dict[int, MqttPublishMessage] = {}
        self._unwritten: list[MqttPublishMessage] = []
        self._socket_takes_more = True
        self.opened = asyncio.Event()
        """Set while a session is set up."""
        self.writable = asyncio.Event()
        """Set while a message may be published."""
        self.service_writable = asyncio.Event()
        """Set while one without datapoints may be."""
        self.has_room = asyncio.Event()
        """Set while a message may be published by whoever has reserved the window."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self.worked = asyncio.Event()
        """Set when the server has acknowledged something since the session was set up."""
        self._reserved = False

    def __len__(self) -> int:
        return len(self._messages) + len(self._unwritten)

    def set_receive_maximum(self, receive_maximum: int) -> None:
        """How many publishes the server takes without having acknowledged them (MQTT 5, section 3.2.2.3.3)."""
        self._service_limit = min(self._max_inflight + SERVICE_RESERVE, receive_maximum)
        self._limit = max(1, min(self._max_inflight, self._service_limit - SERVICE_RESERVE))

    def open(self) -> None:
        """The session is set up."""
        self.opened.set()
        self._update()

    def close(self) -> list[MqttPublishMessage]:
        """The session has ended: what was in flight, in the order of its publishing."""
        self.opened.clear()
        self.worked.clear()
        self._socket_takes_more = True
        unacknowledged = [*self._messages.values(), *self._unwritten]
        self._messages.clear()
        self._unwritten.clear()
        self.nbytes = 0
        self._pace.connection_ended()
        self._update()
        return unacknowledged

    def note_worked(self) -> None:
        """The server has acknowledged something."""
        if not self.worked.is_set():
            self.worked.set()

    def reserve(self) -> None:
        """Let no further message wait for room with success until ``release``."""
        self._reserved = True
        self._update()

    def release(self) -> None:
        """End what ``reserve`` began."""
        self._reserved = False
        self._update()

    def set_socket_takes_more(self, takes_more: bool) -> None:
        """Whether the socket takes more bytes."""
        self._socket_takes_more = takes_more
        self._update()

    def add(self, packet_id: int, message: MqttPublishMessage) -> None:
        """A message was published."""
        self._messages[packet_id] = message
        self.nbytes += message.payload_size
        self._pace.published(packet_id, self.nbytes)
        self._update()

    def add_unwritten(self, message: MqttPublishMessage) -> None:
        """A message was published on a connection that takes nothing more, but has not ended."""
        self._unwritten.append(message)
        self._update()

    def get(self, packet_id: int | None) -> MqttPublishMessage | None:
        """The message that was published with this packet id."""
        return self._messages.get(packet_id) if packet_id is not None else None

    def take(self, packet_id: int) -> MqttPublishMessage | None:
        """A publish was acknowledged. ``None`` when it is not in flight."""
        message = self._messages.pop(packet_id, None)
        if message is not None:
            self.nbytes -= message.payload_size
            self._pace.acknowledged(packet_id)
        self._update()
        return message

    def forgo(self, packet_id: int) -> None:
        """A publish is not waited for any longer."""
        self._pace.forget(packet_id)
        self.take(packet_id)

    def _update(self) -> None:
        in_flight = len(self)
        takes_more = self.opened.is_set() and self._socket_takes_more
        has_room = takes_more and in_flight < self._limit and self.nbytes < self._pace.window
        _set(self.idle, in_flight == 0)
        _set(self.has_room, has_room)
        _set(self.writable, has_room and not self._reserved)
        _set(self.service_writable, takes_more and not self._reserved and in_flight < self._service_limit)


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
