"""Reports the events of one client's connection and queue to the listeners and streams of the program.

The rule: reporting an event never waits, raises nothing and runs no code of the program; each listener runs in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Self
from weakref import WeakSet

from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.entities.connection_event import (
    ClientFailed,
    Connected,
    ConnectFailed,
    Connecting,
    ConnectionEvent,
    ConnectionLost,
    ConnectRefused,
    EventsDropped,
    PublishingPaused,
    QueueHigh,
    QueueLow,
)
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.requests.callbacks import call_reporting, require_callable
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.session.keeper import is_transient

MAX_EVENTS = 100
"""Events that a slow consumer may have in its queue."""

EventCallback = Callable[[ConnectionEvent], Awaitable[object] | object]
"""A plain function, which must not block, or a coroutine function."""


class EventQueue:
    """The events that one consumer has not taken yet: the newest ones, and the number of those that were dropped before them."""

    def __init__(self, max_events: int) -> None:
        """Create an empty queue.

        Args:
            max_events: The number of events after which the oldest one is dropped.
        """
        self._events: deque[ConnectionEvent] = deque(maxlen=max_events)
        self._dropped = 0

    def put(self, event: ConnectionEvent) -> None:
        """Add an event, in place of the oldest one if the queue is full."""
        self._dropped += len(self._events) == self._events.maxlen
        self._events.append(event)

    def take(self) -> ConnectionEvent | None:
        """Remove and return the oldest event; first an ``EventsDropped`` if there were older ones. ``None`` if it is empty."""
        if self._dropped:
            event, self._dropped = EventsDropped(self._dropped), 0
            return event
        return self._events.popleft() if self._events else None

    def clear(self) -> None:
        """Forget all events."""
        self._events.clear()
        self._dropped = 0


class ConnectionEventStream:
    """An asynchronous iterator of the events from its creation until the client is stopped."""

    def __init__(self, max_events: int, *, ended: bool) -> None:
        """Create a stream.

        Args:
            max_events: The number of events that may wait in it.
            ended: Whether there will be none.
        """
        self._queue = EventQueue(max_events)
        self._changed = asyncio.Event()
        self._ended = ended

    def put(self, event: ConnectionEvent) -> None:
        """Add an event."""
        self._queue.put(event)
        self._changed.set()

    def end(self) -> None:
        """End the stream after the events that are in it."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConnectionEvent:
        while (event := self._queue.take()) is None:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return event


class _Listener:
    """One callback: it gets one event after the other, in a task that exists while there are any."""

    def __init__(self, callback: EventCallback, tasks: Tasks, report: InboundReport) -> None:
        self._callback = callback
        self._tasks = tasks
        self._report = report
        self._queue = EventQueue(MAX_EVENTS)
        self._task: asyncio.Task[None] | None = None
        # An event may come in the middle of a send or a callback, whose context is not the listener's.
        self._context = copy_context()

    def put(self, event: ConnectionEvent) -> None:
        self._queue.put(event)
        if self._task is None or self._task.done():
            self._task = self._context.run(self._tasks.start, self._run(), "connection event listener")

    def clear(self) -> None:
        self._queue.clear()

    async def _run(self) -> None:
        while (event := self._queue.take()) is not None:
            await call_reporting(self._report, "connection events", self._callback, event)


class ConnectionEvents:
    """The events of one client, and the consumers that the program has registered."""

    def __init__(self, tasks: Tasks, report: InboundReport) -> None:
        """Create the events of a client, without a consumer.

        Args:
            tasks: Owns the tasks of listeners.
            report: Counts and logs the exceptions of listeners.
        """
        self._tasks = tasks
        self._report = report
        self._listeners: dict[object, _Listener] = {}
        # The program holds a stream for as long as it iterates over it.
        self._streams: WeakSet[ConnectionEventStream] = WeakSet()
        self._attempt = 1
        """The number of the running attempt, or of the next one; 0 while a session is set up."""
        self.last_failure: str = ""
        """Why the last attempt to connect failed; empty if none has failed since the last session or the start of the client."""

    # The consumers.

    def listen(self, callback: EventCallback) -> Callable[[], None]:
        """Call ``callback`` with each event. Return a function that ends this, which may be called more than once.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        require_callable("callback", callback)
        key = object()
        self._listeners[key] = _Listener(callback, self._tasks, self._report)
        return partial(self._remove, key)

    def _remove(self, key: object) -> None:
        listener = self._listeners.pop(key, None)
        if listener is not None:
            listener.clear()

    def stream(self, max_events: int, *, ended: bool) -> ConnectionEventStream:
        """Return a stream of the events from now on, see ``ConnectionEventStream``.

        Raises:
            ValueError: ``max_events`` is not a positive number.
        """
        if max_events < 1:
            raise ValueError(f"max_events must be at least 1, not {max_events!r}")
        stream = ConnectionEventStream(max_events, ended=ended)
        if not ended:
            self._streams.add(stream)
        return stream

    def stopped(self) -> None:
        """End the streams: the client is stopped. Listeners stay, for the next start, but get none of the events before it."""
        for stream in list(self._streams):
            stream.end()
        self._streams.clear()
        for listener in self._listeners.values():
            listener.clear()

    def _emit(self, event: ConnectionEvent) -> None:
        for stream in list(self._streams):
            stream.put(event)
        for listener in list(self._listeners.values()):
            listener.put(event)

    # What happens in the client.

    def started(self) -> None:
        """Count attempts from one again: a connection is wanted from now on."""
        self._attempt = 1
        self.last_failure = ""

    def connecting(self, server: ServerAddress) -> None:
        """Report that the client tries to connect to a server."""
        self._emit(Connecting(server.host, server.port, self._attempt))

    def connected(self, server: ServerAddress, mqtt_version: int, limits: dict[str, Any], connections: int) -> None:
        """Report that a session is set up."""
        self._attempt = 0
        self.last_failure = ""
        self._emit(Connected(server.host, server.port, mqtt_version, limits, connections))

    def failed(self, error: BaseException, retry_in: float | None) -> None:
        """Report that an attempt failed, see ``SessionObserver``."""
        reason = _reason(error)
        self.last_failure = reason
        if not self._attempt:
            # Queued data was published already, while a subscription still waited for the limits.
            self._emit(ConnectionLost(reason, None))
        elif isinstance(error, ConnectionRefusedByServer):
            self._emit(ConnectRefused(reason, error.reason_code, not is_transient(error), retry_in))
        else:
            self._emit(ConnectFailed(reason, retry_in, error))
        self._attempt += 1

    def lost(self, end: SessionEnd) -> None:
        """Report that a session ended, see ``SessionObserver``."""
        self._attempt = 1
        self._emit(ConnectionLost(str(end), end.reason_code))

    def client_failed(self, reason: str) -> None:
        """Report that a task of the client ended that must not."""
        self._emit(ClientFailed(reason))

    def paused(self, seconds: float, reason: str, limit: str) -> None:
        """Report that publishing pauses, see ``BackpressureController``."""
        self._emit(PublishingPaused(seconds, reason, limit))

    def fill_changed(self, capacity: QueueCapacity) -> None:
        """Report that the queue became nearly full, or low again."""
        kind = QueueHigh if capacity.is_high else QueueLow
        self._emit(kind(capacity.sends, capacity.max_sends, capacity.nbytes, capacity.max_bytes))


def _reason(error: BaseException) -> str:
    """Return the text of an error, without the number that ``str`` writes before that of an ``OSError``."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
