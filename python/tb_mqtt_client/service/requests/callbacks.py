"""Callbacks of the user: plain functions and coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tb_mqtt_client.common.async_utils import is_cancelled
from tb_mqtt_client.service.requests.dispatch import InboundReport

T = TypeVar("T")
Callback = Callable[..., Awaitable[T] | T]
"""A plain function must not block: everything else of the client waits for it."""


ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What goes through a callback, the last when it is thrown away with its loop.

All else is its failure, also what is no ``Exception``, such as the outcomes of test frameworks.
"""


def require_callable(name: str, callback: object) -> None:
    """Raise ``TypeError`` for what cannot be called."""
    if not callable(callback):
        raise TypeError(f"{name} must be a function or a coroutine function, not {callback!r}")


async def call(callback: Callback[Any], *arguments: Any) -> Any:
    """Call it, and await what it gives when that can be awaited."""
    result = callback(*arguments)
    return await result if inspect.isawaitable(result) else result


async def call_reporting(report: InboundReport, what: str, callback: Callback[Any], *arguments: Any) -> None:
    """The same for a callback whose result is of no interest; what it raises is counted and logged."""
    try:
        await call(callback, *arguments)
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        # Something that the callback awaited was cancelled, not the callback.
        report.callback_failed(what, error)
    except ENDS_THE_PROGRAM:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
        report.callback_failed(what, error)
