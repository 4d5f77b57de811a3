"""The functions that a program registers for methods of server-side RPC and for shared attributes, by name.

They stand on top of the callbacks: a request goes to the handler of its method, or else to the callback for all requests, and an
update goes to the callback and to all handlers of its attributes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from tb_mqtt_client.common.exceptions import RPCRefusal
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.service.requests.binding import AttributeFunction, BadValueError, Context, RPCFunction, name_of
from tb_mqtt_client.service.requests.callbacks import call, call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport

F = TypeVar("F", bound=Callable[..., Any])


class RPCHandler:
    """The function for the RPC requests with some methods."""

    def __init__(self, function: RPCFunction) -> None:
        self.function: RPCFunction = function

    def respond(self, request: RPCRequest | GatewayRPCRequest, context: Context) -> Any:
        """Call the function with the parameters of a request.

        Returns:
            What the function returns: a coroutine, or a result.

        Raises:
            RPCRefusal: The parameters of the request do not fit the function.
            Exception: The exception of the function.
        """
        try:
            function = self.function.with_params(request.params, context)
        except BadValueError as error:
            raise RPCRefusal(f"{request.method}: {error}") from error
        return function()


class AttributeHandler:
    """The function for changes of some attributes."""

    def __init__(self, function: AttributeFunction) -> None:
        self.function: AttributeFunction = function

    def concerns(self, update: AttributeUpdate) -> bool:
        """Return True if an update changes or deletes one of the attributes."""
        return any(entry.key in self.function.keys for entry in update.entries) or any(
            key in self.function.keys for key in update.deleted_keys
        )

    async def process(
        self, report: InboundReport, update: AttributeUpdate, context: Context, run: Callable[..., Any] = call
    ) -> None:
        """Call the function with the attributes of an update, and wait for it. Count and log a failure.

        Args:
            report: Counts and logs failures.
            update: The update, which concerns this handler.
            context: What the function may get besides the attributes.
            run: Calls a function where callbacks run, and awaits its result.
        """
        try:
            function = self.function.with_attributes(update.as_dict(), update.deleted_keys, context)
        except BadValueError as error:
            report.attribute_refused(self.function.name, error)
            return
        await call_reporting(report, f"attributes ({self.function.name})", run, function)


def no_handler(method: str, known: Iterable[str]) -> str:
    """Return the text of the error response to an RPC request without a handler and a callback.

    Args:
        method: The method of the request.
        known: The methods with a handler.
    """
    known = sorted(known)
    if not known:
        return "The device has no callback for RPC requests"
    return f"There is no method {method!r}; the methods are {', '.join(known)}"


class Handlers:
    """The handlers of one device, or of some sub-devices of a gateway."""

    def __init__(self, request: type, update: type, *more: type) -> None:
        """Start without handlers.

        Args:
            request: The class of RPC requests, which parameters of functions may be annotated with.
            update: The class of attribute updates.
            more: Further classes that parameters may be annotated with, such as the session of a sub-device.
        """
        self._request, self._update, self._more = request, update, more
        self._methods: dict[str, RPCHandler] = {}
        self._attributes: list[AttributeHandler] = []

    @property
    def methods(self) -> Iterable[str]:
        """The methods that have a handler."""
        return tuple(self._methods)

    @property
    def has_attributes(self) -> bool:
        """Whether there is a handler of attributes."""
        return bool(self._attributes)

    def of_method(self, method: str) -> RPCHandler | None:
        """Return the handler of a method, or ``None``."""
        return self._methods.get(method)

    def of_update(self, update: AttributeUpdate) -> list[AttributeHandler]:
        """Return the handlers of the attributes of an update, in the order in which they were added."""
        return [handler for handler in self._attributes if handler.concerns(update)]

    def rpc(self, methods: tuple[str, ...]) -> Callable[[F], F]:
        """Return a decorator that adds a function for methods; without methods, for the method with the function's name.

        Raises:
            TypeError: A method is not a ``str``.
            ValueError: A method is empty.
        """
        _require_names("methods", methods)
        return partial(self._add_rpc, methods)

    def on_attribute(self, keys: tuple[str, ...]) -> Callable[[F], F]:
        """Return a decorator that adds a function for changes of attributes.

        Raises:
            TypeError: A key is not a ``str``.
            ValueError: There is no key, or one is empty.
        """
        _require_names("keys", keys)
        if not keys:
            raise ValueError('keys must name at least one attribute: on_attribute("interval")')
        return partial(self._add_attributes, keys)

    def remove(self, function: Callable[..., Any]) -> bool:
        """Remove a function. Return whether it was there."""
        methods = {name: one for name, one in self._methods.items() if not _is_same(one.function.function, function)}
        attributes = [one for one in self._attributes if not _is_same(one.function.function, function)]
        removed = len(methods) < len(self._methods) or len(attributes) < len(self._attributes)
        self._methods, self._attributes = methods, attributes
        return removed

    def _add_rpc(self, methods: tuple[str, ...], function: F) -> F:
        bound = RPCFunction(function, (self._request, *self._more))
        methods = methods or (_own_name(function),)
        for method in methods:
            if method in self._methods:
                raise ValueError(f"the method {method!r} has a handler: {self._methods[method].function.name}")
        # Replaced, not changed: with a synchronous client, another thread may be reading.
        self._methods = self._methods | dict.fromkeys(methods, RPCHandler(bound))
        return function

    def _add_attributes(self, keys: tuple[str, ...], function: F) -> F:
        handler = AttributeHandler(AttributeFunction(function, (self._update, *self._more), keys))
        self._attributes = [*self._attributes, handler]
        return function


def _own_name(function: Any) -> str:
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f'{name_of(function)} has no name that could be a method: name it, as in rpc("setValue")')
    return name


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other or inspect.unwrap(one) == inspect.unwrap(other))


def _require_names(argument: str, names: tuple[Any, ...]) -> None:
    for name in names:
        if callable(name):
            raise TypeError(f"{argument} must be names, not a function: write the decorator with parentheses")
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be names of type str, not {name!r}")
        if not name:
            raise ValueError(f"{argument} must not be empty names")
