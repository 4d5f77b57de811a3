"""One sub-device of a gateway, as the program sees it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
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
        if callback is None:
            return None
        result = callback(self, event)
        return await result if inspect.isawaitable(result) else result

    def _callback_for(self, event: BaseGatewayEvent) -> Callable[..., Any] | None:
        if event.event_type is GatewayEventType.DEVICE_ATTRIBUTE_UPDATE and isinstance(event, AttributeUpdate):
            return self.attribute_update_callback
        is_response = isinstance(event, RequestedAttributeResponse)
        if event.event_type is GatewayEventType.DEVICE_REQUESTED_ATTRIBUTE_RESPONSE and is_response:
            return self.attribute_response_callback
        if event.event_type is GatewayEventType.DEVICE_RPC_REQUEST and isinstance(event, GatewayRPCRequest):
            return self.rpc_request_callback
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeviceSession):
            return NotImplemented
        return self.device_info.device_id == other.device_info.device_id

    def __hash__(self) -> int:
        return hash(self.device_info)


def _checked(cb: Any) -> Any:
    if cb is not None and not callable(cb):
        raise TypeError(f"cb must be a function or None, not {cb!r}")
    return cb
