"""Events of a client's connection and of its queue, which ``on_connection_event`` and ``connection_events`` report.

Each attempt to connect ends in a ``Connected``, a ``ConnectRefused`` or a ``ConnectFailed``, unless the program ends it. The
program's own ``disconnect()`` and ``stop()`` are not events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """Base class of all events."""


@dataclass(frozen=True, slots=True)
class Connecting(ConnectionEvent):
    """The client tries to connect to a server."""

    host: str
    """Name or address of the server."""
    port: int
    """Port of the server."""
    attempt: int
    """1 for the first attempt since the last session, or since ``connect()`` or ``start()``. If there are several servers, one
    attempt tries all of them, with an event for each."""


@dataclass(frozen=True, slots=True)
class Connected(ConnectionEvent):
    """A session is set up, and queued data is published."""

    host: str
    """Name or address of the server."""
    port: int
    """Port of the server."""
    mqtt_version: int
    """5, or 4 for MQTT 3.1.1."""
    limits: Mapping[str, Any] = field(hash=False)
    """The limits of the session, as ``health()["limits"]``."""
    connections: int
    """The number of sessions, this one included."""


@dataclass(frozen=True, slots=True)
class ConnectFailed(ConnectionEvent):
    """An attempt to connect failed, such as for DNS, the network, TLS, or a time limit."""

    reason: str
    """What happened, and what to try next."""
    retry_in: float | None
    """Seconds until the next attempt; ``None`` if there is none, because ``connect()`` raises the error."""
    error: BaseException
    """The error that ``connect()`` raises, or would raise."""


@dataclass(frozen=True, slots=True)
class ConnectRefused(ConnectionEvent):
    """A server refused an attempt to connect in its CONNACK."""

    reason: str
    """What happened, and what to try next."""
    reason_code: int
    """The reason code of the CONNACK: of MQTT 5, or the return code of MQTT 3.1.1."""
    permanent: bool
    """Whether the refusal lasts until an administrator fixes its cause, such as wrong credentials. The next attempt then follows
    after a delay with the longest bound, ``reconnect_delay_max``."""
    retry_in: float | None
    """Seconds until the next attempt; ``None`` if there is none, because ``connect()`` raises the error."""


@dataclass(frozen=True, slots=True)
class ConnectionLost(ConnectionEvent):
    """A session ended that the program did not end. The client connects again."""

    reason: str
    """Why it ended, with the server."""
    reason_code: int | None
    """The reason code of the server's DISCONNECT; ``None`` without one."""


@dataclass(frozen=True, slots=True)
class ClientFailed(ConnectionEvent):
    """The client ended because of a defect, or because the program cancelled one of its tasks (``ClientState.FAILED``)."""

    reason: str
    """Which task ended, and why."""


@dataclass(frozen=True, slots=True)
class PublishingPaused(ConnectionEvent):
    """The server enforced a limit or failed to take a message, and the client publishes nothing for a while."""

    seconds: float
    """Seconds until publishing continues."""
    reason: str
    """What the server did."""
    limit: str
    """The limit that was probably exceeded, or that there was none."""


@dataclass(frozen=True, slots=True)
class _QueueFill(ConnectionEvent):
    messages: int
    """The number of queued sends."""
    max_messages: int
    """The option ``max_queued_messages``."""
    nbytes: int
    """The encoded bytes of these."""
    max_bytes: int
    """The option ``max_queued_bytes``."""


@dataclass(frozen=True, slots=True)
class QueueHigh(_QueueFill):
    """A send found the queue at least 80 % full, in sends or in bytes."""


@dataclass(frozen=True, slots=True)
class QueueLow(_QueueFill):
    """After a ``QueueHigh``, the queue is at most half full again."""


@dataclass(frozen=True, slots=True)
class EventsDropped(ConnectionEvent):
    """A consumer was too slow: its oldest events were dropped, in whose place this event is."""

    count: int
    """The number of dropped events."""
