"""The seam between delivery and a session: the operations of a session, and its reports to delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.delivery.work_item import WorkItem


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended."""

    cause: str
    """The cause, for people."""
    reason_code: int | None = None
    """The reason code of the server's DISCONNECT."""
    worked: bool = False
    """Whether the server acknowledged a message in the session after it was set up."""
    seconds: float = 0.0
    """How long the session lasted, from its CONNACK."""
    expected: bool = False
    """Whether the server had announced the end and its cause."""
    error: Exception | None = None
    """The error of the transport, or of reading."""
    by_server: bool = False
    """Whether the server ended the session, or an event that cannot be distinguished from that."""
    tells_reasons: bool = True
    """Whether the server could have given a reason: MQTT 3.1.1 has no reason codes."""
    server: ServerAddress | None = None
    """The server of the session."""

    def __str__(self) -> str:
        return self.cause if self.server is None else f"{self.server}: {self.cause}"


SessionEndCallback = Callable[[SessionEnd], None]
AcknowledgedCallback = Callable[[WorkItem, int], None]
"""Called with a message and the reason code of its PUBACK."""
ConnectionLostCallback = Callable[[list[WorkItem], SessionEnd], None]
"""Called with the messages without an acknowledgement, in the order in which they were published."""


class Transport(Protocol):
    """The part of a client's sessions, one after the other, that delivery needs."""

    opened: asyncio.Event
    """Set while a session is set up."""
    writable: asyncio.Event
    """Set while a message with datapoints may be published."""
    service_writable: asyncio.Event
    """Set while a message without datapoints may be published, for which some of the in-flight window is reserved."""
    has_room: asyncio.Event
    """Set while a message may be published within `alone`."""
    idle: asyncio.Event
    """Set while every publish is acknowledged."""
    connections: int
    """The number of sessions, the current one included."""

    @property
    def in_flight(self) -> int:
        """The number of publishes without an acknowledgement."""

    @property
    def batch_bytes(self) -> int | None:
        """Bytes that should be packed into messages now, because the link is slow; None for no bound."""

    @property
    def has_worked(self) -> bool:
        """Whether the server has acknowledged a message in this session since it was set up."""

    async def wait_worked(self, seconds: float) -> bool:
        """Wait until the server has acknowledged a message in a session, at most ``seconds``; return whether it has."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Return a block that begins when nothing is in flight, and outside of which nothing is published while it runs."""

    def publish_now(self, item: WorkItem) -> None:
        """Write a PUBLISH.

        Raises:
            ConnectionLostError: There is no connection.
        """
