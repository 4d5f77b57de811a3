"""Server-side RPC (docs/platform_contract.md, sections 2 and 4).

Request ids of each device start at 0. A request waits until the device subscribes, and is sent again with the same id when the
device subscribes again.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tb_mqtt_client.emulator.devices import Device, PendingRpc, RpcResponse
from tb_mqtt_client.emulator.payloads import encode_json


@dataclass(eq=False)
class _DeviceRpc:
    """The next request id of a device and its pending requests by id."""

    ids: count[int] = field(default_factory=count)
    pending: dict[int, PendingRpc] = field(default_factory=dict)


class ServerRpc:
    """Sends server-side RPC requests and matches the replies."""

    def __init__(self) -> None:
        self._states: dict[Device, _DeviceRpc] = {}

    async def call(self, device: Device, method: str, params: Any, *, oneway: bool, timeout: float) -> Any:
        """Send a request and return the reply.

        Args:
            device: The device that the request is for.
            method: The method name.
            params: The parameters, a value that JSON can represent.
            oneway: Whether the request expects no reply.
            timeout: Seconds to wait for the reply, or for a one-way request until it is sent.

        Returns:
            The parsed reply, or its text if it is not JSON; None for a one-way request.

        Raises:
            TimeoutError: The device did not reply in time or did not acknowledge the request.
            TypeError: JSON cannot represent `params`.
        """
        # Raises in the caller's task if the parameters cannot be encoded.
        encode_json(params)
        rpc = self._begin(device, method, params, oneway=oneway)
        try:
            done, _ = await asyncio.wait({rpc.reply}, timeout=timeout)
            if not done:
                failure = "did not reply to" if rpc.sent else "is not subscribed to RPC requests and did not receive"
                raise TimeoutError(f"device {device.name!r} {failure} {rpc.describe()} within {timeout:g} s")
            if rpc.reply.cancelled():
                raise TimeoutError(f"device {device.name!r} did not acknowledge {rpc.describe()}")
            return _parsed(rpc.reply.result())
        finally:
            self._end(device, rpc)

    def notify(self, device: Device, method: str, params: Any) -> None:
        """Send a persisted one-way request, the form of the platform's notices to a gateway."""
        self._begin(device, method, params, oneway=True, persisted=True)

    def subscribed(self, device: Device) -> None:
        """Send the pending requests in the order of their ids."""
        if device in self._states:
            for rpc in list(self._states[device].pending.values()):
                self._send(device, rpc)

    def responded(self, device: Device, request_id: int, payload: bytes) -> None:
        """Record a reply and complete the request that it belongs to, if there is one."""
        rpc = self._of(device).pending.get(request_id)
        device.rpc_responses.append(RpcResponse(request_id, payload))
        if rpc is not None and not rpc.oneway:
            rpc.end(payload)
            self._end(device, rpc)

    def acknowledged(self, device: Device, rpc: PendingRpc) -> None:
        """End a persisted request; others wait for the reply."""
        if rpc.persisted:
            self._end(device, rpc)

    def unacknowledged(self, device: Device, rpc: PendingRpc) -> None:
        """Give a request up because its PUBACK did not arrive in time."""
        if self._of(device).pending.get(rpc.id) is rpc:
            rpc.reply.cancel()
            self._end(device, rpc)

    def restart(self, device: Device) -> None:
        """Restart the ids at 0 and forget pending requests other than notices, as a restart of the server does."""
        state = self._states.pop(device, None)
        if state is not None:
            for rpc in state.pending.values():
                if rpc.persisted:
                    self._begin(device, rpc.method, rpc.params, oneway=True, persisted=True)

    def forget(self, device: Device) -> None:
        """Forget the requests of a deleted device."""
        self._states.pop(device, None)

    def _of(self, device: Device) -> _DeviceRpc:
        return self._states.setdefault(device, _DeviceRpc())

    def _begin(self, device: Device, method: str, params: Any, *, oneway: bool, persisted: bool = False) -> PendingRpc:
        state = self._of(device)
        rpc = PendingRpc(next(state.ids), method, params, oneway, persisted=persisted)
        state.pending[rpc.id] = rpc
        self._send(device, rpc)
        return rpc

    def _send(self, device: Device, rpc: PendingRpc) -> None:
        session = device.session
        if session is None or not session.send_rpc(device, rpc):
            return
        rpc.sent = True
        if rpc.oneway and not rpc.persisted:
            rpc.end(None)
            self._end(device, rpc)

    def _end(self, device: Device, rpc: PendingRpc) -> None:
        pending = self._of(device).pending
        if pending.get(rpc.id) is rpc:
            del pending[rpc.id]


def _parsed(payload: bytes | None) -> Any:
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")
