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
    """Given by ``GatewayClient.connect_device``. Equal and hashed by the device's id.

    Callbacks are plain functions or coroutine functions, except the one for changes of the state, which is a plain function.
    """

    device_info: DeviceInfo
    _state_change_callback: StateChangeCallback | None = None
    connected_at: int = field(default_factory=now_ms)
    """When the platform last acknowledged that the device is there: milliseconds since the epoch."""
    last_seen_at: int = field(default_factory=now_ms)
    """When something was last sent for the device, or came for it: milliseconds since the epoch."""
    claimed: bool = False
    provisioned: bool = False
    state: DeviceSessionState = DeviceSessionState.CONNECTED
    attribute_update_callback: AttributeUpdateCallback | None = None
    attribute_response_callback: AttributeResponseCallback | None = None
    rpc_request_callback: RPCRequestCallback | None = None
    manager: object | None = field(default=None, init=False, repr=False)
    """The ``DeviceManager`` that knows the session; ``None`` once the device was disconnected or deleted."""
    _identity: DeviceIdentity | None = field(default=None, init=False, repr=False)
    _identity_name: str | None = field(default=None, init=False, repr=False)

    @property
    def identity(self) -> DeviceIdentity:
        """Name and profile as they are encoded: made once, and again after a rename."""
        info = self.device_info
        if self._identity is None or self._identity_name is not info.device_name:
            self._identity = DeviceIdentity(info.device_name, info.device_profile)
            self._identity_name = info.device_name
        return self._identity

    def update_state(self, new_state: DeviceSessionState) -> None:
        """Change the state, and tell who asked to be told. What that callback raises is raised, when the state is changed."""
        self.state = new_state
        if self._state_change_callback is not None:
            self._state_change_callback(self)

    def update_last_seen(self) -> None:
        """The device was heard of just now."""
        self.last_seen_at = now_ms()

    def set_state_change_callback(self, cb: StateChangeCallback | None) -> None:
        """``cb(session)`` is called after each change of ``state``; a plain function. ``None`` for none."""
        if inspect.iscoroutinefunction(cb):
            raise TypeError("cb must be a plain function: states change at once")
        self._state_change_callback = _checked(cb)

    def set_attribute_update_callback(self, cb: AttributeUpdateCallback | None) -> None:
        """``cb(session, update)`` is called when shared attributes of the device have changed. ``None`` for none."""
        self.attribute_update_callback = _checked(cb)

    def set_attribute_response_callback(self, cb: AttributeResponseCallback | None) -> None:
        """``cb(session, response)`` is called with answers to ``send_device_attributes_request``. ``None`` for none."""
        self.attribute_response_callback = _checked(cb)

    def set_rpc_request_callback(self, cb: RPCRequestCallback | None) -> None:
        """``cb(session, request)`` answers calls of the platform with a ``GatewayRPCResponse`` or a result. ``None`` for none."""
        self.rpc_request_callback = _checked(cb)

    async def handle_event_to_device(self, event: BaseGatewayEvent) -> Any:
        """Give an event to the callback for its type and class, and return the result. Without one it is ``None``."""
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
