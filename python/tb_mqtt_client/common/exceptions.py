"""Errors that the clients raise.

TBMQTTError
+-- NotConnectedError (also AttributeError, which SDK 2.0 raised)
+-- ConnectionLostError (also ConnectionError)
+-- ConnectionRefusedByServer (also ConnectionError)
+-- ProxyRefusedError (also ConnectionError)
+-- SubscriptionRefusedError
+-- RequestRefusedError
+-- NoDeviceSessionError (also TypeError, and AttributeError, which SDK 2.0 raised)
+-- DeviceNotConnectedError (also ValueError)
+-- BackpressureException

Bad input is a ``ValueError`` or a ``TypeError`` that names the argument. Where JSON cannot carry it, it is both:

UnsupportedValueError (ValueError and TypeError, each of which SDK 2.0 raised in places)
"""

import asyncio
from collections.abc import Callable
from typing import Any, Optional

from tb_mqtt_client.constants.json_typing import UnsupportedValueError
from tb_mqtt_client.constants.reason_codes import connect_return_name, reason_name

__all__ = [
    "BackpressureException",
    "ConnectionLostError",
    "ConnectionRefusedByServer",
    "DeviceNotConnectedError",
    "ExceptionCallback",
    "ExceptionHandler",
    "NoDeviceSessionError",
    "NotConnectedError",
    "ProxyRefusedError",
    "RequestRefusedError",
    "SubscriptionRefusedError",
    "TBMQTTError",
    "UnsupportedValueError",
    "exception_handler",
]


class TBMQTTError(Exception):
    """Base of the errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles by what it holds: what ``__init__`` takes is not what an exception keeps in ``args``."""
        return _made_again, (type(self), self.args), vars(self)


def _made_again(error_class: type[TBMQTTError], args: tuple[Any, ...]) -> TBMQTTError:
    error = error_class.__new__(error_class, *args)
    # An OSError leaves them to an __init__ that is not called here.
    error.args = args
    return error


class NotConnectedError(TBMQTTError, AttributeError):
    """Something was sent before ``connect()``, or after ``stop()``."""


class ConnectionLostError(TBMQTTError, ConnectionError):
    """The connection ended while something was awaited on it."""


class ConnectionRefusedByServer(TBMQTTError, ConnectionError):  # named after what happened, as ConnectionRefusedError is
    """The server answered CONNECT with a refusal."""

    def __init__(self, reason_code: int, protocol_version: int, text: str | None = None) -> None:
        """``protocol_version``: 5, or 4 for MQTT 3.1.1, by which ``reason_code`` is meant. ``text`` replaces the default one."""
        super().__init__(text or f"The server refused the connection: {connect_return_name(reason_code, protocol_version)}")
        self.reason_code = reason_code
        self.protocol_version = protocol_version


class ProxyRefusedError(TBMQTTError, ConnectionError):
    """The proxy answered, and does not connect to the server."""

    def __init__(self, text: str, reply_code: int | None = None) -> None:
        """``reply_code``: of the proxy's protocol: 407 of an HTTP proxy that wants credentials, for example."""
        super().__init__(text)
        self.reply_code = reply_code


class SubscriptionRefusedError(TBMQTTError):
    """The server does not send messages of a topic."""

    def __init__(self, topic: str, reason_code: int) -> None:
        super().__init__(f"The server refused the subscription to {topic}: {reason_name(reason_code)}")
        self.topic = topic
        self.reason_code = reason_code


class RequestRefusedError(TBMQTTError):
    """The server did not take a request, so that no answer will come."""

    def __init__(self, topic: str, reason_code: int) -> None:
        super().__init__(f"The platform did not take the request on {topic}: {reason_name(reason_code)}")
        self.topic = topic
        self.reason_code = reason_code


class NoDeviceSessionError(TBMQTTError, TypeError, AttributeError):
    """Something is no session of a sub-device."""


class DeviceNotConnectedError(TBMQTTError, ValueError):
    """A session is not one of this gateway, or not any more."""


class BackpressureException(TBMQTTError):  # SDK 2.0's name
    """The queue is full, and the queue policy is to raise; or all 65,535 packet ids are in flight."""

    def __init__(self, message: str = "Client is under backpressure. Please retry later.") -> None:
        super().__init__(message)


ExceptionCallback = Callable[[BaseException, Optional[dict[str, Any]]], None]  # noqa: UP045  # evaluated: the published alias
"""Called with an exception and the context that asyncio gives with it."""


class ExceptionHandler:
    """For programs that want to hear of exceptions of background tasks. The clients install nothing by themselves."""

    def __init__(self) -> None:
        self._callbacks: dict[type[BaseException] | None, list[ExceptionCallback]] = {}

    def register(self, exc_type: type[BaseException] | None, callback: ExceptionCallback) -> None:
        """Call ``callback`` for exceptions of a type; with ``None`` for those of which no type is registered."""
        self._callbacks.setdefault(exc_type, []).append(callback)

    def handle(self, exc: BaseException, context: dict[str, Any] | None = None) -> None:
        """Call every callback that is registered for a type of ``exc``."""
        for callback in self._matching(exc):
            callback(exc, context)

    def install_asyncio_handler(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Handle what goes wrong in a loop's tasks; the loop's own handler gets what nothing is registered for.

        ``loop``: the running one. Raises ``RuntimeError`` when there is none.
        """
        (loop or asyncio.get_running_loop()).set_exception_handler(self._handle_context)

    def _matching(self, exc: BaseException) -> list[ExceptionCallback]:
        matching = [
            callback
            for exc_type, callbacks in self._callbacks.items()
            if exc_type is not None and isinstance(exc, exc_type)
            for callback in callbacks
        ]
        return matching or self._callbacks.get(None, [])

    def _handle_context(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if exc is None or not self._matching(exc):
            loop.default_exception_handler(context)
        else:
            self.handle(exc, context)


exception_handler = ExceptionHandler()
"""One for the whole program."""
