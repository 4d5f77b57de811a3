"""Remote procedure calls of the platform.

The rule: whatever the callback does, the platform gets an answer, as long as it can be told to which call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.callbacks import Callback, call
from tb_mqtt_client.service.device.handlers.message_handler import MessageHandler
from tb_mqtt_client.service.device.message_adapter import MessageAdapter, request_id_of
from tb_mqtt_client.service.inbound_report import InboundReport
from tb_mqtt_client.service.platform_calls import DEFAULT_CALLBACK_TIMEOUT, PlatformCalls

RPCRequestCallback = Callback[Any]
"""Called with an ``RPCRequest``. Gives an ``RPCResponse`` or what JSON can carry, which is the result then; ``None`` is a success
without a result."""

NoticeHandler = Callable[[RPCRequest], Awaitable[None]]


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
        self._notices: dict[str, NoticeHandler] = {}
        self.calls = PlatformCalls(self._report, callback_timeout)

    def set_callback(self, callback: RPCRequestCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    def take_notices(self, method: str, handler: NoticeHandler) -> None:
        """Give calls of a method, which are notices of the platform to the client itself, to ``handler`` instead of the callback.

        It raises ``ValueError`` for what is no such notice. The platform waits for no answer.
        """
        self._notices[method] = handler

    async def handle(self, topic: str, payload: bytes) -> RPCResponse | None:
        """The answer: the callback's, or an error when it raises, takes too long, gives nonsense, or is not there.

        ``None`` when nothing must be answered: the topic has no number, and the server disconnects who answers under
        another (platform_contract.md, section 8); the same call is running, of which the server sent a copy (section 2); or it is
        a notice to the client.
        """
        try:
            request: RPCRequest = self._message_adapter.parse_rpc_request(topic, payload)
            if request.method in self._notices:
                await self._notices[request.method](request)
                return None
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            request_id = request_id_of(topic)
            return None if request_id is None else RPCResponse.build(request_id, error=str(error))
        callback = self._callback
        if callback is None:
            return RPCResponse.build(request.request_id, error="The device has no callback for RPC calls")

        async def answer() -> RPCResponse:
            return _as_response(request, await call(callback, request))

        def failed(error: BaseException) -> RPCResponse:
            return RPCResponse.build(request.request_id, error=error)

        return await self.calls.run(topic, payload, f"the RPC call {request.method!r}", answer, failed)


def _as_response(request: RPCRequest, returned: Any) -> RPCResponse:
    """The answer to just this call. Raises ``ValueError`` for what JSON cannot carry."""
    if isinstance(returned, RPCResponse):
        return returned if returned.request_id == request.request_id else returned.with_fields(request_id=request.request_id)
    return RPCResponse.build(request.request_id, returned)
