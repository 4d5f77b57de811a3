"""Remote calls from the server to devices (docs/platform_contract.md, sections 2 and 4).

Each device has ids from 0. A call waits for a subscription, and is sent again with the same id when the device subscribes again.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tb_mqtt_client.emulator.devices import Device, RpcCall, RpcResponse
from tb_mqtt_client.emulator.payloads import encode_json


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
        """Return the parsed answer (text if it is not JSON), None for a one-way call. Raises `TimeoutError`."""
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


def _parsed(payload: bytes | None) -> Any:
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")
