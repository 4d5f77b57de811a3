"""Remote procedure calls of the platform.

The rule: whatever the callback does, the platform gets an answer, as long as it can be told to which call.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tb_mqtt_client.common.async_utils import end_tasks
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.callbacks import Callback, call
from tb_mqtt_client.service.device.handlers.message_handler import MessageHandler
from tb_mqtt_client.service.device.message_adapter import MessageAdapter, request_id_of
from tb_mqtt_client.service.inbound_report import InboundReport

DEFAULT_CALLBACK_TIMEOUT = 60.0
"""Seconds that a callback may take."""

RPCRequestCallback = Callback[Any]
"""Called with an ``RPCRequest``. Gives an ``RPCResponse`` or what JSON can carry, which is the result then; ``None`` is a success
without a result."""


class RPCRequestsHandler(MessageHandler):
    """Gives calls to the callback, and its answers back."""

    def __init__(
        self,
        message_adapter: MessageAdapter | None = None,
        report: InboundReport | None = None,
        callback_timeout: float = DEFAULT_CALLBACK_TIMEOUT,
    ) -> None:
        super().__init__(message_adapter, report)
        self._callback: RPCRequestCallback | None = None
        self._callback_timeout = callback_timeout
        self._running: set[tuple[str, bytes]] = set()
        self._overdue: set[asyncio.Future[Any]] = set()

    def set_callback(self, callback: RPCRequestCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    async def handle(self, topic: str, payload: bytes) -> RPCResponse | None:
        """The answer: the callback's, or an error when it raises, takes too long, gives nonsense, or is not there.

        ``None`` when nothing must be answered: the topic has no number, and the server disconnects who answers under
        another (platform_contract.md, section 8); or the same call is running, of which the server sent a copy (section 2).
        """
        try:
            request: RPCRequest = self._message_adapter.parse_rpc_request(topic, payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            request_id = request_id_of(topic)
            return None if request_id is None else RPCResponse.build(request_id, error=str(error))
        if self._callback is None:
            return RPCResponse.build(request.request_id, error="The device has no callback for RPC calls")
        copy = topic, payload
        if copy in self._running:
            self._report.message_unexpected(topic, "the same call is running, which will be answered once")
            return None
        self._running.add(copy)
        try:
            return await self._answer(self._callback, request)
        finally:
            self._running.discard(copy)

    async def _answer(self, callback: RPCRequestCallback, request: RPCRequest) -> RPCResponse:
        task = asyncio.create_task(call(callback, request), name=f"tb-mqtt-client callback for RPC {request.request_id}")
        try:
            await asyncio.wait({task}, timeout=self._callback_timeout)
        except asyncio.CancelledError:
            await end_tasks({task})
            raise
        if not task.done():
            self._overdue.add(task)
            task.add_done_callback(self._overdue_ended)
            task.cancel()
            return self._failure(request, TimeoutError(f"the device did not answer within {self._callback_timeout:g} s"))
        try:
            return _as_response(request, task.result())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever the user's code raises
            return self._failure(request, error)

    def _failure(self, request: RPCRequest, error: BaseException) -> RPCResponse:
        self._report.callback_failed(f"the RPC call {request.method!r}", error)
        return RPCResponse.build(request.request_id, error=error)

    def _overdue_ended(self, task: asyncio.Future[Any]) -> None:
        self._overdue.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report.callback_failed("an RPC call that was given up", error)


def _as_response(request: RPCRequest, returned: Any) -> RPCResponse:
    """The answer to just this call. Raises ``ValueError`` for what JSON cannot carry."""
    if isinstance(returned, RPCResponse):
        return returned if returned.request_id == request.request_id else returned.with_fields(request_id=request.request_id)
    return RPCResponse.build(request.request_id, returned)
