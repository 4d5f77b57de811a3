"""One sub-device of a gateway, as the program sees it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from tb_mqtt_client._native import DeviceIdentity
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.json_typing import JSONCompatibleType
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway_event import BaseGatewayEvent, GatewayEventType
from tb_mqtt_client.service.gateway.handlers import SubDeviceHandlers
from tb_mqtt_client.service.requests.binding import Context
from tb_mqtt_client.service.requests.handlers import AttributeHandler, F, Handlers, RPCHandler

StateChangeCallback: TypeAlias = Callable[["DeviceSession"], None]
AttributeUpdateCallback: TypeAlias = Callable[["DeviceSession", AttributeUpdate], Awaitable[None] | None]
AttributeResponseCallback: TypeAlias = Callable[["DeviceSession", RequestedAttributeResponse], Awaitable[None] | None]
RPCRequestCallback: TypeAlias = Callable[
    ["DeviceSession", GatewayRPCRequest],
    Awaitable[RPCResponse | JSONCompatibleType] | RPCResponse | JSONCompatibleType,
]


@dataclass(eq=False)
class DeviceSession:
    """One sub-device of a gateway, returned by ``GatewayClient.connect_device``. Sessions are compared and hashed by the device's
    id.

    Callbacks are functions or coroutine functions, except the one for state changes, which must be a plain function.
    """

    device_info: DeviceInfo
    _state_change_callback: StateChangeCallback | None = None
    connected_at: int = field(default_factory=now_ms)
    """When the platform last acknowledged the device: milliseconds since the epoch."""
    last_seen_at: int = field(default_factory=now_ms)
    """When a message for the device was last sent or received: milliseconds since the epoch."""
    claimed: bool = False
    provisioned: bool = False
    state: DeviceSessionState = DeviceSessionState.CONNECTED
    attribute_update_callback: AttributeUpdateCallback | None = None
    attribute_response_callback: AttributeResponseCallback | None = None
    rpc_request_callback: RPCRequestCallback | None = None
    manager: object | None = field(default=None, init=False, repr=False)
    """The ``DeviceManager`` of the session; ``None`` once the device was disconnected or deleted."""
    _identity: DeviceIdentity | None = field(default=None, init=False, repr=False)
    _identity_name: str | None = field(default=None, init=False, repr=False)
    shared_handlers: SubDeviceHandlers | None = field(default=None, init=False, repr=False)
    """The gateway's handlers for its sub-devices; ``None`` without a ``DeviceManager``."""
    _own_handlers: Handlers | None = field(default=None, init=False, repr=False)

    @property
    def identity(self) -> DeviceIdentity:
        """Name and profile in encoded form: created once, and again after a rename."""
        info = self.device_info
        if self._identity is None or self._identity_name is not info.device_name:
            self._identity = DeviceIdentity(info.device_name, info.device_profile)
            self._identity_name = info.device_name
        return self._identity

    def update_state(self, new_state: DeviceSessionState) -> None:
        """Change the state, and call the callback for state changes.

        Args:
            new_state: The new state.

        Raises:
            Exception: The exception of the callback. The state is changed nevertheless.
        """
        self.state = new_state
        if self._state_change_callback is not None:
            self._state_change_callback(self)

    def update_last_seen(self) -> None:
        """Set ``last_seen_at`` to the current time."""
        self.last_seen_at = now_ms()

    def set_state_change_callback(self, cb: StateChangeCallback | None) -> None:
        """Set the callback for changes of ``state``.

        Args:
            cb: A plain function that gets the session after each change; ``None`` for no callback.

        Raises:
            TypeError: ``cb`` is a coroutine function, or cannot be called.
        """
        if inspect.iscoroutinefunction(cb):
            raise TypeError("cb must be a plain function, not a coroutine function: it is called synchronously")
        self._state_change_callback = _checked(cb)

    def set_attribute_update_callback(self, cb: AttributeUpdateCallback | None) -> None:
        """Set the callback for changed shared attributes of the device.

        Args:
            cb: A function or coroutine function that gets the session and an ``AttributeUpdate``; ``None`` for no callback.

        Raises:
            TypeError: ``cb`` cannot be called.
        """
        self.attribute_update_callback = _checked(cb)

    def set_attribute_response_callback(self, cb: AttributeResponseCallback | None) -> None:
        """Set the callback for responses to ``send_device_attributes_request``.

        Args:
            cb: A function or coroutine function that gets the session and a ``RequestedAttributeResponse``; ``None`` for no
                callback.

        Raises:
            TypeError: ``cb`` cannot be called.
        """
        self.attribute_response_callback = _checked(cb)

    def set_rpc_request_callback(self, cb: RPCRequestCallback | None) -> None:
        """Set the callback for server-side RPC to the device.

        Args:
            cb: A function or coroutine function that gets the session and a ``GatewayRPCRequest``, and returns a
                ``GatewayRPCResponse``, an ``RPCResponse``, or the result as any JSON value; ``None`` for no callback.

        Raises:
            TypeError: ``cb`` cannot be called.
        """
        self.rpc_request_callback = _checked(cb)

    def rpc(self, *methods: str) -> Callable[[F], F]:
        """Return a decorator: the function handles server-side RPC to the device with these methods.

        See ``DeviceClient.rpc``. The function may also have a parameter that is annotated with ``DeviceSession`` or
        ``GatewayRPCRequest``.

        Args:
            methods: The methods. Without any, the function's name is the method.

        Raises:
            TypeError: A method is not a ``str``; in the decorator: the signature of the function is not possible.
            ValueError: A method is empty; in the decorator: the method has a handler.
        """
        return self._handlers().rpc(methods)

    def on_attribute(self, *keys: str) -> Callable[[F], F]:
        """Return a decorator: the function is called when one of these shared attributes of the device is changed or deleted.

        See ``DeviceClient.on_attribute``. The function may also have a parameter that is annotated with ``DeviceSession``.

        Args:
            keys: The attributes.

        Raises:
            TypeError: A key is not a ``str``; in the decorator: the signature of the function is not possible.
            ValueError: There is no key, or one is empty.
        """
        return self._handlers().on_attribute(keys)

    def remove_handler(self, function: Callable[..., Any]) -> None:
        """Remove a function that was registered with ``rpc`` or ``on_attribute``, for all its methods and attributes.

        Args:
            function: The function.

        Raises:
            ValueError: The function is not registered.
        """
        if self._own_handlers is None or not self._own_handlers.remove(function):
            raise ValueError(f"function: {function!r} is not a handler of this session")

    def _handlers(self) -> Handlers:
        if self._own_handlers is None:
            self._own_handlers = sub_device_handlers()
        return self._own_handlers

    def _all_handlers(self) -> list[Handlers]:
        own = [] if self._own_handlers is None else [self._own_handlers]
        if self.shared_handlers is None:
            return own
        return own + self.shared_handlers.matching({self.device_info.device_name, self.device_info.original_name})

    def handler_of(self, method: str) -> RPCHandler | None:
        """Return the handler of an RPC method: of this session, or else of the gateway; ``None`` without one."""
        found = (handlers.of_method(method) for handlers in self._all_handlers())
        return next((handler for handler in found if handler is not None), None)

    @property
    def methods(self) -> set[str]:
        """The RPC methods that have a handler."""
        return {method for handlers in self._all_handlers() for method in handlers.methods}

    def handlers_of(self, update: AttributeUpdate) -> list[AttributeHandler]:
        """Return the handlers of the attributes of an update: those of this session, then those of the gateway."""
        return [handler for handlers in self._all_handlers() for handler in handlers.of_update(update)]

    def context_of(self, event: BaseGatewayEvent) -> Context:
        """Return what a handler may get besides values: the event and this session."""
        return {type(event): event, DeviceSession: self}

    async def call(self, callback: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the program where callbacks of the session run, and await its result if that is awaitable.

        Raises:
            Exception: The exception of the function.
        """
        result = callback(*arguments)
        return await result if inspect.isawaitable(result) else result

    async def handle_event_to_device(self, event: BaseGatewayEvent) -> Any:
        """Call the callback for the type and class of an event.

        Args:
            event: The event.

        Returns:
            The result of the callback; ``None`` without a callback.

        Raises:
            Exception: The exception of the callback.
        """
        callback = self._callback_for(event)
        return None if callback is None else await self.call(callback, self, event)

    def _callback_for(self, event: BaseGatewayEvent) -> Callable[..., Any] | None:
        if event.event_type is GatewayEventType.DEVICE_ATTRIBUTE_UPDATE and isinstance(event, AttributeUpdate):
            return self.attribute_update_callback
        is_response = isinstance(event, RequestedAttributeResponse)
        if event.event_type is GatewayEventType.DEVICE_REQUESTED_ATTRIBUTE_RESPONSE and is_response:
            return self.attribute_response_callback
        if event.event_type is GatewayEventType.DEVICE_RPC_REQUEST and isinstance(event, GatewayRPCRequest):
            handler = self.handler_of(event.method)
            return self.rpc_request_callback if handler is None else partial(_respond, handler)
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeviceSession):
            return NotImplemented
        return self.device_info.id_number == other.device_info.id_number

    def __hash__(self) -> int:
        return hash(self.device_info)


def _respond(handler: RPCHandler, session: DeviceSession, request: GatewayRPCRequest) -> Any:
    return handler.respond(request, session.context_of(request))


def sub_device_handlers() -> Handlers:
    """Make an empty group of handlers for sub-devices."""
    return Handlers(GatewayRPCRequest, AttributeUpdate, DeviceSession)


def _checked(cb: Any) -> Any:
    if cb is not None and not callable(cb):
        raise TypeError(f"cb must be a function or None, not {cb!r}")
    return cb
