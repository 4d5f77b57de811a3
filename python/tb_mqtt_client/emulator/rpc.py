"""Remote calls in both directions (contract sections 2 and 4).

From the server: ids per device, from 0; a call waits for a subscription, and is sent again with the same id to who subscribes
while it waits. To the server: one answer, or `{"error": "timeout"}` when the time of the request's id is over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from tb_mqtt_client.emulator.devices import Device, RpcResponse
from tb_mqtt_client.emulator.payloads import encode_json

if TYPE_CHECKING:
    from tb_mqtt_client.emulator.session import Session

# (device, method, params) -> the reply, which JSON must be able to carry.
OnClientRpc: TypeAlias = Callable[[Device, str, Any], Any | Awaitable[Any]]


class ClientRpcError(Exception):
    """Raised by a handler of client-side RPC: the device gets ``{"error": text}``."""


@dataclass(eq=False)
class RpcCall:
    """An RPC of the server that has not ended."""

    id: int
    method: str
    params: Any
    oneway: bool
    # what the device answered; None for a one-way call
    answer: asyncio.Future[bytes | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    # a notice of the platform waits in its database until it is acknowledged
    persisted: bool = False
    sent: bool = False

    def end(self, payload: bytes | None) -> None:
        if not self.answer.done():
            self.answer.set_result(payload)

    def describe(self) -> str:
        return f"{self.method!r} (id {self.id})"


@dataclass(eq=False)
class _Calls:
    """What the platform keeps of a device's calls."""

    ids: count[int] = field(default_factory=count)
    pending: dict[int, RpcCall] = field(default_factory=dict)


class ServerRpc:
    """Calls of the server to devices."""

    def __init__(self) -> None:
        self._calls: dict[Device, _Calls] = {}

    async def call(self, device: Device, method: str, params: Any, *, oneway: bool, timeout: float) -> Any:
        """Return the parsed answer (text if it is no JSON), None for a one-way call. Raises `TimeoutError`."""
        # What JSON cannot carry raises here, at the caller.
        encode_json(params)
        call = self._begin(device, method, params, oneway=oneway)
        try:
            done, _ = await asyncio.wait({call.answer}, timeout=timeout)
            if not done:
                missing = "did not answer" if call.sent else "is not subscribed to RPC, so it did not get"
                raise TimeoutError(f"device {device.name!r} {missing} {call.describe()} within {timeout:g} s")
            if call.answer.cancelled():
                raise TimeoutError(f"device {device.name!r} did not acknowledge {call.describe()}")
            return _parsed(call.answer.result())
        finally:
            self._end(device, call)

    def notify(self, device: Device, method: str, params: Any) -> None:
        """Begin a one-way persisted call, as the platform's notices to a gateway are."""
        self._begin(device, method, params, oneway=True, persisted=True)

    def subscribed(self, device: Device) -> None:
        """Send what waits, in the order of the calls."""
        if device in self._calls:
            for call in list(self._calls[device].pending.values()):
                self._send(device, call)

    def answered(self, device: Device, call_id: int, payload: bytes) -> None:
        call = self._of(device).pending.get(call_id)
        device.rpc_responses.append(RpcResponse(call_id, payload))
        if call is not None and not call.oneway:
            call.end(payload)
            self._end(device, call)

    def acknowledged(self, device: Device, call: RpcCall) -> None:
        if call.persisted:
            self._end(device, call)

    def unacknowledged(self, device: Device, call: RpcCall) -> None:
        """No PUBACK came in time: the platform gives the call up."""
        if self._of(device).pending.get(call.id) is call:
            call.answer.cancel()
            self._end(device, call)

    def restart(self, device: Device) -> None:
        """Count from 0 again and forget what was not answered, as after a restart of the server; notices are kept."""
        calls = self._calls.pop(device, None)
        if calls is not None:
            for call in calls.pending.values():
                if call.persisted:
                    self._begin(device, call.method, call.params, oneway=True, persisted=True)

    def forget(self, device: Device) -> None:
        self._calls.pop(device, None)

    def _of(self, device: Device) -> _Calls:
        return self._calls.setdefault(device, _Calls())

    def _begin(self, device: Device, method: str, params: Any, *, oneway: bool, persisted: bool = False) -> RpcCall:
        calls = self._of(device)
        call = RpcCall(next(calls.ids), method, params, oneway, persisted=persisted)
        calls.pending[call.id] = call
        self._send(device, call)
        return call

    def _send(self, device: Device, call: RpcCall) -> None:
        session = device.session
        if session is None or not session.send_rpc(device, call):
            return
        call.sent = True
        if call.oneway and not call.persisted:
            call.end(None)
            self._end(device, call)

    def _end(self, device: Device, call: RpcCall) -> None:
        pending = self._of(device).pending
        if pending.get(call.id) is call:
            del pending[call.id]


class ClientRpc:
    """Calls of one session to the server."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pending: set[int] = set()
        # The family of the latest request serves all replies (contract section 2).
        self._response_prefix = ""

    def begin(self, device: Device, call_id: int, method: str, params: Any, response_prefix: str) -> None:
        platform = self._session.platform
        self._response_prefix = response_prefix
        self._pending.add(call_id)
        # An id used again meets the timer of its first use: the platform has one entry an id (contract section 2).
        self._session.timers.after(platform.client_rpc_timeout, self._expire, call_id)
        handler = self._session.hooks.on_client_rpc
        if handler is not None:
            self._session.background.start(self._handle(handler, device, call_id, method, params))

    async def _handle(self, handler: OnClientRpc, device: Device, call_id: int, method: str, params: Any) -> None:
        try:
            reply = handler(device, method, params)
            if isawaitable(reply):
                reply = await reply
        except ClientRpcError as error:
            reply = {"error": str(error)}
        # A handler that took longer than the timeout still has its answer sent: the platform passes it on.
        self._pending.discard(call_id)
        self._answer(call_id, reply)

    def _expire(self, call_id: int) -> None:
        if call_id in self._pending:
            self._pending.discard(call_id)
            self._answer(call_id, {"error": "timeout"})

    def _answer(self, call_id: int, reply: Any) -> None:
        self._session.send(f"{self._response_prefix}{call_id}", encode_json(reply))


def _parsed(payload: bytes | None) -> Any:
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")
