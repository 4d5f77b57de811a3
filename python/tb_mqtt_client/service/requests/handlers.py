"""Handlers of a device's incoming messages: attribute updates, server-side RPC, and responses to requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import request_id_of
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.requests.callbacks import Callback, call, call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.pending import PendingRequests
from tb_mqtt_client.service.requests.server_rpc import DEFAULT_CALLBACK_TIMEOUT, PlatformCalls


class MessageHandler:
    """Read messages in a payload format, and report those that cannot be read. ``handle`` raises nothing."""

    def __init__(self, payload_format: DeviceFormat, report: InboundReport) -> None:
        self._format = payload_format
        self._report = report


AttributeUpdateCallback = Callback[None]
"""Called with an ``AttributeUpdate``."""


class AttributeUpdatesHandler(MessageHandler):
    """Gives updates to the callback. Without one they are of no interest."""

    def __init__(self, payload_format: DeviceFormat, report: InboundReport) -> None:
        super().__init__(payload_format, report)
        self._callback: AttributeUpdateCallback | None = None
        self.listeners: list[Callable[[AttributeUpdate], None]] = []
        """Parts of the client that are told before the callback is, and do not wait."""

    def set_callback(self, callback: AttributeUpdateCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an update and wait until the callback has taken it."""
        if self._callback is None and not self.listeners:
            return
        try:
            update: AttributeUpdate = self._format.parse_attribute_update(payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        for listener in self.listeners:
            listener(update)
        if self._callback is not None:
            await call_reporting(self._report, "attribute updates", self._callback, update)


RPCRequestCallback = Callback[Any]
"""Called with an ``RPCRequest``. Gives an ``RPCResponse`` or what JSON can carry, which is the result then; ``None`` is a success
without a result."""

NoticeHandler = Callable[[RPCRequest], Awaitable[None]]


class RPCRequestsHandler(MessageHandler):
    """Gives calls to the callback, and its answers back."""

    def __init__(
        self,
        payload_format: DeviceFormat,
        report: InboundReport,
        tasks: Tasks,
        callback_timeout: float = DEFAULT_CALLBACK_TIMEOUT,
    ) -> None:
        super().__init__(payload_format, report)
        self._callback: RPCRequestCallback | None = None
        self._notices: dict[str, NoticeHandler] = {}
        self.calls = PlatformCalls(self._report, tasks, callback_timeout)

    def set_callback(self, callback: RPCRequestCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    def register_notice(self, method: str, handler: NoticeHandler) -> None:
        """Pass RPC requests with a method to ``handler`` instead of the callback: they are notices to the client itself.

        The handler raises ``ValueError`` if a request is not such a notice. The platform does not expect a response.
        """
        self._notices[method] = handler

    async def handle(self, topic: str, payload: bytes) -> RPCResponse | None:
        """The answer: the callback's, or an error when it raises, takes too long, gives nonsense, or is not there.

        ``None`` when nothing must be answered: the topic has no number, and the server disconnects who answers under
        another (docs/platform_contract.md, section 8); the same call is running, of which the server sent a copy (section 2); or it
        is a notice to the client.
        """
        try:
            request: RPCRequest = self._format.parse_rpc_request(topic, payload)
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


class _Response(Protocol):
    @property
    def request_id(self) -> Any: ...


R = TypeVar("R", bound=_Response)


class ResponseHandler(MessageHandler, Generic[R]):
    """Resolve the pending request that a response belongs to."""

    def __init__(self, payload_format: DeviceFormat, report: InboundReport, parse: Callable[[str, bytes], R]) -> None:
        """``parse`` reads a response from a topic and a payload, and raises ``ValueError`` if it cannot."""
        super().__init__(payload_format, report)
        self._parse = parse
        self.pending: PendingRequests[int, R] = PendingRequests()

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read a response, and resolve its request."""
        try:
            response = self._parse(topic, payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        if not self.pending.answer(int(response.request_id), response):
            self._report.message_unexpected(topic, "no request waits for this response")
