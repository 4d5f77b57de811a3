"""The connection events of a client as an iterator that blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from tb_mqtt_client.entities.connection_event import ConnectionEvent
from tb_mqtt_client.sync.runtime import Runtime


class ConnectionEventIterator:
    """Waits for one event after the other, until the client is stopped."""

    def __init__(self, stream: AsyncIterator[ConnectionEvent], runtime: Runtime) -> None:
        self._stream = stream
        self._runtime = runtime

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ConnectionEvent:
        """Wait for the next event, and return it.

        Raises:
            StopIteration: The client is stopped.
            RuntimeError: This thread runs an event loop.
        """
        event = self._runtime.run(self._next)
        if event is None:
            raise StopIteration
        return event

    async def _next(self) -> ConnectionEvent | None:
        return await anext(self._stream, None)
