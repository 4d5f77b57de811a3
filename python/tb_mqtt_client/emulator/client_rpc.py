"""Remote calls from a client to the server: one answer, or `{"error": "timeout"}` when the time of the request's id is over.

Source: contract section 2.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

from tb_mqtt_client.emulator.devices import Device
from tb_mqtt_client.emulator.hooks import OnClientRpc
from tb_mqtt_client.emulator.payloads import encode_json
from tb_mqtt_client.emulator.session_view import SessionView


class ClientRpcError(Exception):
    """Raised by a handler of client-side RPC: the device gets ``{"error": text}``."""


class ClientRpc:
    """Calls of one session to the server."""

    def __init__(self, session: SessionView) -> None:
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
