"""Calls callbacks of the user, which are plain functions or coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tb_mqtt_client.common.async_utils import is_cancelled
from tb_mqtt_client.service.requests.dispatch import InboundReport

T = TypeVar("T")
Callback = Callable[..., Awaitable[T] | T]
"""A plain function must not block: the whole client waits for it."""

ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that are re-raised instead of being reported as the failure of a callback.

``GeneratorExit`` occurs when the event loop is discarded. All other exceptions are failures, also the ones that do not derive from
``Exception``, such as the outcomes of test frameworks.
"""


def require_callable(name: str, callback: object) -> None:
    """Raise ``TypeError`` if a callback cannot be called. ``name`` is its argument."""
    if not callable(callback):
        raise TypeError(f"{name} must be a function or a coroutine function, not {callback!r}")


async def call(callback: Callback[Any], *arguments: Any) -> Any:
    """Call a callback, and await its result if that is awaitable."""
    result = callback(*arguments)
    return await result if inspect.isawaitable(result) else result


async def call_reporting(report: InboundReport, what: str, callback: Callback[Any], *arguments: Any) -> None:
    """Call a callback and discard its result. Count and log its exception, with ``what`` as the name of the callback."""
    try:
        await call(callback, *arguments)
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        # A task or future that the callback awaited was cancelled, not the callback.
        report.callback_failed(what, error)
    except ENDS_THE_PROGRAM:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
        report.callback_failed(what, error)
