"""The parts of `MQTTManager` that setting up a session and sending requests need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from tb_mqtt_client.common.mqtt.session_terms import SessionTerms
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.service.delivery.transport import SessionEnd, SessionEndCallback
from tb_mqtt_client.service.delivery.work_item import WorkItem

Handler = Callable[[str, bytes], Coroutine[Any, Any, Any]]
"""A coroutine function that is called with a topic and a payload."""


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """The options for handling messages of a topic."""

    concurrent: bool = False
    """Whether the handler of a message may start before the handler of the message before it has ended."""
    owes_reply: bool = False
    """Whether the handler sends a reply that the server waits for: ``stop()`` waits for that handler."""
    on_refused: Callable[[str, bytes], None] | None = None
    """Called with topic and payload of a message that is not handled, because too many others are waiting."""


DEFAULT_OPTIONS = HandlerOptions()
"""The options of a handler that gets one message after the other and sends no reply."""


class Session(Protocol):
    """Requests and responses in the current session."""

    session_end_callbacks: list[SessionEndCallback]
    """Called when a session has ended."""

    @property
    def connections(self) -> int:
        """The number of sessions, the current one included."""

    def session_future(self) -> asyncio.Future[Any]:
        """Return a future that fails with ``ConnectionLostError`` when the session ends."""

    def register_handler(self, topic_filter: str, handler: Handler, options: HandlerOptions = DEFAULT_OPTIONS) -> None:
        """Pass messages of a topic to a coroutine function."""

    def unregister_handler(self, topic_filter: str) -> None:
        """Stop passing messages of a topic to its handler."""

    async def subscribe(self, topic: str) -> None:
        """Subscribe to a topic, and wait for the SUBACK."""

    def publish_now(self, item: WorkItem) -> None:
        """Write a PUBLISH."""


class Connection(Session, Protocol):
    """A session that can be opened and closed."""

    terms: SessionTerms
    """The terms of the session, from its CONNACK."""

    async def connect_by(self, route: Route, username: str | None, password: str | None, keepalive: int) -> None:
        """Connect to the server of a route."""

    def open_for_traffic(self) -> None:
        """Allow queued messages to be published."""

    async def wait_lost(self) -> SessionEnd:
        """Wait until the connection has ended."""

    async def disconnect(self) -> None:
        """Send DISCONNECT and close the connection."""
