"""Passes the events of a gateway to their handlers at once, without a queue.

The rule: every handler of an event is called, even if another one raises, and an exception of a handler is reported.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.requests.callbacks import ENDS_THE_PROGRAM
from tb_mqtt_client.service.requests.dispatch import InboundReport

EventCallback: TypeAlias = Callable[..., Awaitable[Any]] | Callable[..., Any]
"""A plain function or a coroutine function; gets the event, and the other arguments of ``dispatch``."""


class DirectEventDispatcher:
    """Calls the handlers that are registered for the type of an event, or the session of a device."""

    def __init__(self, report: InboundReport) -> None:
        """Create a dispatcher without handlers; ``report`` counts and logs their exceptions."""
        self._report = report
        self._handlers: dict[GatewayEventType, list[EventCallback]] = {}

    def register(self, event_type: GatewayEventType, callback: EventCallback) -> None:
        """Add a handler, unless it is registered already.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"callback must be a function or a coroutine function, not {callback!r}")
        handlers = self._handlers.setdefault(event_type, [])
        if callback not in handlers:
            handlers.append(callback)

    def unregister(self, event_type: GatewayEventType, callback: EventCallback) -> None:
        """Remove a handler, if it is registered."""
        handlers = self._handlers.get(event_type, [])
        if callback in handlers:
            handlers.remove(callback)

    async def dispatch(
        self, event: BaseGatewayEvent, *args: Any, device_session: DeviceSession | None = None, **kwargs: Any
    ) -> Any:
        """Give an event to a device's session, or else to all handlers of its type.

        A session gets the event alone; its result is returned and its error raised. Handlers are called in the order in which
        they were registered, and what coroutine functions have to wait for is waited for side by side. The result is the first in
        that order that is not ``None``.
        """
        if device_session is not None:
            return await device_session.handle_event_to_device(event)
        handlers = tuple(self._handlers.get(event.event_type, ()))
        # All are called before one is awaited, so that a handler that never returns does not delay the others.
        begun = [self._begin(callback, event, args, kwargs) for callback in handlers]
        # A cancellation of this task is passed on to the task that it waits for.
        await asyncio.gather(*(result for result in begun if isinstance(result, asyncio.Future)), return_exceptions=True)
        results = [self._result(callback, event, result) for callback, result in zip(handlers, begun, strict=True)]
        return next((result for result in results if result is not None), None)

    def _begin(self, callback: EventCallback, event: BaseGatewayEvent, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            result = callback(event, *args, **kwargs)
        except ENDS_THE_PROGRAM:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
            self._failed(event, callback, error)
            return None
        return asyncio.ensure_future(result) if inspect.isawaitable(result) else result

    def _result(self, callback: EventCallback, event: BaseGatewayEvent, result: Any) -> Any:
        if not isinstance(result, asyncio.Future):
            return result
        error = asyncio.CancelledError() if result.cancelled() else result.exception()
        if error is None:
            return result.result()
        self._failed(event, callback, error)
        return None

    def _failed(self, event: BaseGatewayEvent, callback: EventCallback, error: BaseException) -> None:
        self._report.callback_failed(f"{event.event_type} ({callback!r})", error)
