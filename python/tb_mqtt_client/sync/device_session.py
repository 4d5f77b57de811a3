"""One sub-device of a gateway, as a program with threads sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tb_mqtt_client.constants.json_typing import JSONCompatibleType
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.device_info import DeviceInfo
from tb_mqtt_client.entities.gateway.device_session_state import DeviceSessionState
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.service.gateway import device_session as service
from tb_mqtt_client.service.requests.handlers import F
from tb_mqtt_client.sync.callback_thread import CallbackThread
from tb_mqtt_client.sync.runtime import plain_only, require_plain


class DeviceSession(service.DeviceSession):
    """One sub-device of a synchronous gateway, returned by ``GatewayClient.connect_device``.

    Its callbacks are plain functions, which are called in the gateway's thread for callbacks, and may call any method of the
    gateway.
    """

    def __init__(self, device_info: DeviceInfo, callbacks: CallbackThread) -> None:
        """Create the session of a device. Programs get sessions from ``GatewayClient.connect_device``."""
        super().__init__(device_info)
        self._callbacks = callbacks

    def update_state(self, new_state: DeviceSessionState) -> None:
        """Change the state, and call the callback for state changes later.

        Args:
            new_state: The new state.
        """
        self.state = new_state
        if self._state_change_callback is not None:
            self._callbacks.post(self._state_change_callback, self)

    def set_state_change_callback(self, cb: Callable[[Any], object] | None) -> None:
        """Set the callback for changes of ``state``.

        Args:
            cb: A plain function that gets the session after each change; ``None`` for no callback. When it is called, the state
                may have changed again.

        Raises:
            TypeError: ``cb`` is a coroutine function, or cannot be called.
        """
        super().set_state_change_callback(_checked(cb))

    def set_attribute_update_callback(self, cb: Callable[[Any, AttributeUpdate], None] | None) -> None:  # type: ignore[override]  # no coroutine functions
        """Set the callback for changed shared attributes of the device.

        Args:
            cb: A plain function that gets the session and an ``AttributeUpdate``; ``None`` for no callback.

        Raises:
            TypeError: ``cb`` is a coroutine function, or cannot be called.
        """
        super().set_attribute_update_callback(_checked(cb))

    def set_attribute_response_callback(  # type: ignore[override]  # no coroutine functions
        self, cb: Callable[[Any, RequestedAttributeResponse], None] | None
    ) -> None:
        """Set the callback for responses to ``send_device_attributes_request``.

        Args:
            cb: A plain function that gets the session and a ``RequestedAttributeResponse``; ``None`` for no callback.

        Raises:
            TypeError: ``cb`` is a coroutine function, or cannot be called.
        """
        super().set_attribute_response_callback(_checked(cb))

    def set_rpc_request_callback(  # type: ignore[override]  # no coroutine functions
        self, cb: Callable[[Any, GatewayRPCRequest], RPCResponse | JSONCompatibleType] | None
    ) -> None:
        """Set the callback for server-side RPC to the device.

        Args:
            cb: A plain function that gets the session and a ``GatewayRPCRequest``, and returns a ``GatewayRPCResponse``, an
                ``RPCResponse``, or the result as any JSON value; ``None`` for no callback.

        Raises:
            TypeError: ``cb`` is a coroutine function, or cannot be called.
        """
        super().set_rpc_request_callback(_checked(cb))

    def rpc(self, *methods: str) -> Callable[[F], F]:
        """Return a decorator: the plain function handles server-side RPC to the device with these methods.

        See ``DeviceClient.rpc``. The function may also have a parameter that is annotated with ``DeviceSession`` or
        ``GatewayRPCRequest``.

        Args:
            methods: The methods. Without any, the function's name is the method.

        Raises:
            TypeError: A method is not a ``str``; in the decorator: the function is a coroutine function, or its signature is not
                possible.
            ValueError: A method is empty; in the decorator: the method has a handler.
        """
        return plain_only(super().rpc(*methods))

    def on_attribute(self, *keys: str) -> Callable[[F], F]:
        """Return a decorator: the plain function is called when one of these shared attributes of the device changes.

        See ``DeviceClient.on_attribute``. The function may also have a parameter that is annotated with ``DeviceSession``.

        Args:
            keys: The attributes.

        Raises:
            TypeError: A key is not a ``str``; in the decorator: the function is a coroutine function, or its signature is not
                possible.
            ValueError: There is no key, or one is empty.
        """
        return plain_only(super().on_attribute(*keys))

    async def call(self, callback: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the program in the thread for callbacks. The client calls this.

        Raises:
            Exception: The exception of the function.
        """
        return await self._callbacks.run(callback, *arguments)


def _checked(cb: Any) -> Any:
    if cb is not None:
        require_plain("cb", cb)
    return cb
