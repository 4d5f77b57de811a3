"""Errors that the clients raise.

::

    TBMQTTError
    +-- NotConnectedError (also AttributeError, which SDK 2.0 raised)
    +-- ConnectionLostError (also ConnectionError)
    +-- ConnectionRefusedByServer (also ConnectionError)
    +-- ProxyRefusedError (also ConnectionError)
    +-- SubscriptionRefusedError
    +-- RequestRefusedError
    +-- RPCRefusal (raised by programs)
    +-- NoDeviceSessionError (also TypeError, and AttributeError, which SDK 2.0 raised)
    +-- DeviceNotConnectedError (also ValueError)
    +-- BackpressureException
    |   +-- QueueFullError
    |       +-- StoreFullError
    +-- StoreError (also OSError)
        +-- StoreInUseError
        +-- StoreOwnerError
        +-- StoreFormatError
        +-- NotAStoreError

Invalid arguments raise a ``ValueError`` or a ``TypeError`` that names the argument. Values that JSON cannot express raise
``UnsupportedValueError``, which is both, because SDK 2.0 raised one or the other.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Optional

from tb_mqtt_client.constants.json_typing import UnsupportedValueError, validate_json_compatibility
from tb_mqtt_client.constants.reason_codes import connect_return_name, reason_name

__all__ = [
    "BackpressureException",
    "ConnectionLostError",
    "ConnectionRefusedByServer",
    "DeviceNotConnectedError",
    "ExceptionCallback",
    "ExceptionHandler",
    "NoDeviceSessionError",
    "NotAStoreError",
    "NotConnectedError",
    "ProxyRefusedError",
    "QueueFullError",
    "RPCRefusal",
    "RequestRefusedError",
    "StoreError",
    "StoreFormatError",
    "StoreFullError",
    "StoreInUseError",
    "StoreOwnerError",
    "SubscriptionRefusedError",
    "TBMQTTError",
    "UnsupportedValueError",
    "exception_handler",
]


class TBMQTTError(Exception):
    """Base class of the errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by attributes, because the parameters of ``__init__`` differ from ``args``."""
        return _restored, (type(self), self.args), vars(self)


def _restored(error_class: type[TBMQTTError], args: tuple[Any, ...]) -> TBMQTTError:
    error = error_class.__new__(error_class, *args)
    # OSError sets its arguments in __init__, which is not called here.
    error.args = args
    return error


class NotConnectedError(TBMQTTError, AttributeError):
    """A call needs a connection, but ``connect()`` has not been called, or ``disconnect()`` or ``stop()`` has been."""


class ConnectionLostError(TBMQTTError, ConnectionError):
    """The connection ended while a response or an acknowledgement was awaited on it."""


class ConnectionRefusedByServer(TBMQTTError, ConnectionError):  # named like ConnectionRefusedError
    """The server refused the session in its CONNACK.

    Attributes:
        reason_code: The reason code of MQTT 5, or the return code of MQTT 3.1.1.
        protocol_version: 5, or 4 for MQTT 3.1.1.
    """

    def __init__(self, reason_code: int, protocol_version: int, text: str | None = None) -> None:
        """Make the error of a refused session; ``text`` replaces the default text."""
        super().__init__(text or f"The server refused the connection: {connect_return_name(reason_code, protocol_version)}")
        self.reason_code = reason_code
        self.protocol_version = protocol_version


class ProxyRefusedError(TBMQTTError, ConnectionError):
    """The proxy refused to connect to the server.

    Attributes:
        reply_code: The code in the proxy's reply, such as 407 from an HTTP proxy that requires credentials; ``None`` if the reply
            could not be read.
    """

    def __init__(self, text: str, reply_code: int | None = None) -> None:
        super().__init__(text)
        self.reply_code = reply_code


class SubscriptionRefusedError(TBMQTTError):
    """The server refused a subscription.

    Attributes:
        topic: The topic filter.
        reason_code: The reason code in the SUBACK.
    """

    def __init__(self, topic: str, reason_code: int) -> None:
        super().__init__(f"The server refused the subscription to {topic}: {reason_name(reason_code)}")
        self.topic = topic
        self.reason_code = reason_code


class RequestRefusedError(TBMQTTError):
    """The server refused the PUBLISH of a request, so no response will come.

    Attributes:
        topic: The topic of the request.
        reason_code: The reason code of the refusal.
    """

    def __init__(self, topic: str, reason_code: int) -> None:
        super().__init__(f"The server refused the request on {topic}: {reason_name(reason_code)}")
        self.topic = topic
        self.reason_code = reason_code


class RPCRefusal(TBMQTTError):  # a reply to the caller, not a failure of the program
    """Raised by a handler or callback for server-side RPC to refuse a request: ``raise RPCRefusal("out of range")``.

    The platform gets ``{"error": "out of range"}``, without a traceback, and ``callback_errors`` does not count it.

    Attributes:
        error: What the platform gets.
    """

    def __init__(self, error: str | dict[str, Any]) -> None:
        """Make a refusal.

        Args:
            error: A text, or a dict of JSON values.

        Raises:
            TypeError: ``error`` is neither a text nor a dict.
            UnsupportedValueError: JSON cannot express the dict; also a ``ValueError``.
        """
        if not isinstance(error, str | dict):
            raise TypeError(f"error must be a text or a dict of JSON values, not {error!r}")
        validate_json_compatibility(error)
        super().__init__(error)
        self.error: str | dict[str, Any] = error


class NoDeviceSessionError(TBMQTTError, TypeError, AttributeError):
    """An argument is not a ``DeviceSession``."""


class DeviceNotConnectedError(TBMQTTError, ValueError):
    """A session does not belong to this gateway, or no longer does."""


class BackpressureException(TBMQTTError):  # SDK 2.0's name
    """Nothing more can be accepted now: ``QueueFullError``, or all 65,535 packet ids are in flight."""

    def __init__(self, message: str = "Client is under backpressure. Please retry later.") -> None:
        super().__init__(message)


class QueueFullError(BackpressureException):
    """The queue is full, and the send must not wait: the queue policy is ``"raise"``, or a plain function such as
    ``enqueue_timeseries`` was called. None of the data of the call is accepted.
    """


class StoreFullError(QueueFullError):
    """The store is full, and the send must not wait: its option ``on_full`` is ``"raise"``, or a plain function such as
    ``enqueue_timeseries`` was called; or a single send is too large for the store.
    """

    def __init__(self, path: str, max_bytes: int, min_free: int) -> None:
        super().__init__(
            f"the store {path} is full: its files may take {max_bytes} bytes (max_bytes) and have to leave {min_free} bytes of "
            "the file system free (min_free)"
        )


class StoreError(TBMQTTError, OSError):
    """A store cannot be opened. Nothing in it was changed."""


class StoreInUseError(StoreError):
    """Another process, or another client of this process, has the store."""


class StoreOwnerError(StoreError):
    """The store has data for another platform or another credential."""


class StoreFormatError(StoreError):
    """Another version of this package has written the store, in another format."""


class NotAStoreError(StoreError):
    """There is something else at the path of the store, or a symbolic link in the way leads to nothing."""


ExceptionCallback = Callable[[BaseException, Optional[dict[str, Any]]], None]  # noqa: UP045  # evaluated: the published alias
"""Called with an exception and the context dict of asyncio's exception handlers, or ``None`` if there is none."""


class ExceptionHandler:
    """Reports exceptions of background tasks to callbacks. The clients never install it; programs may."""

    def __init__(self) -> None:
        self._callbacks: dict[type[BaseException] | None, list[ExceptionCallback]] = {}

    def register(self, exc_type: type[BaseException] | None, callback: ExceptionCallback) -> None:
        """Register a callback.

        Args:
            exc_type: The callback is called for exceptions of this type; if it is ``None``, for those without another callback.
            callback: Called with the exception and its context.
        """
        self._callbacks.setdefault(exc_type, []).append(callback)

    def handle(self, exc: BaseException, context: dict[str, Any] | None = None) -> None:
        """Call every callback that is registered for an exception.

        Args:
            exc: The exception.
            context: The context dict of asyncio's exception handlers.
        """
        for callback in self._matching(exc):
            callback(exc, context)

    def install_asyncio_handler(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Become the exception handler of an event loop. Exceptions without a callback go to the loop's default handler.

        Args:
            loop: The event loop; ``None`` for the running one.

        Raises:
            RuntimeError: No event loop is running, and ``loop`` is ``None``.
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


exception_handler: ExceptionHandler = ExceptionHandler()
"""A handler that the whole program may share."""
