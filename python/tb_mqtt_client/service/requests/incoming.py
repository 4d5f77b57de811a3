"""Processes a device's incoming messages: attribute updates, server-side RPC, and responses to requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_RESPONSE_TOPIC,
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION,
    DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION,
    request_id_of,
)
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RESPOND_LATER, RPCResponse
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.requests.callbacks import Callback, call, call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.handlers import Handlers, no_handler
from tb_mqtt_client.service.requests.outgoing import PendingRequests
from tb_mqtt_client.service.requests.server_rpc import ServerSideRPC, error_of
from tb_mqtt_client.service.session.protocol import HandlerOptions, Session


class MessageHandler:
    """Reads messages in a payload format, and reports unreadable ones. ``handle`` raises nothing."""

    def __init__(self, payload_format: DeviceFormat, report: InboundReport) -> None:
        self._format = payload_format
        self._report = report


AttributeUpdateCallback = Callback[None]
"""Called with an ``AttributeUpdate``."""


class AttributeUpdatesHandler(MessageHandler):
    """Passes attribute updates to the callback, and to the handlers of their attributes. Ignores them without any."""

    def __init__(self, payload_format: DeviceFormat, report: InboundReport, handlers: Handlers | None = None) -> None:
        super().__init__(payload_format, report)
        self._handlers = handlers
        self._callback: AttributeUpdateCallback | None = None
        self.listeners: list[Callable[[AttributeUpdate], None]] = []
        """Parts of the client that are called before the callback. They do not wait."""

    def set_callback(self, callback: AttributeUpdateCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an update, and wait until the callback and the handlers have processed it, one after the other."""
        handlers = self._handlers
        if self._callback is None and not self.listeners and not (handlers is not None and handlers.has_attributes):
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
        if handlers is not None:
            context = {AttributeUpdate: update}
            for handler in handlers.of_update(update):
                await handler.process(self._report, update, context)


RPCRequestCallback = Callback[Any]
"""Called with an ``RPCRequest``. Returns an ``RPCResponse``, or a JSON value as the result; ``None`` is a success without a
result."""

NoticeHandler = Callable[[RPCRequest], Awaitable[None]]


class RPCRequestsHandler(MessageHandler):
    """Passes RPC requests to the handlers of their methods, or else to the callback, and returns the responses."""

    def __init__(
        self,
        payload_format: DeviceFormat,
        report: InboundReport,
        rpc: ServerSideRPC[RPCResponse],
        handlers: Handlers | None = None,
    ) -> None:
        super().__init__(payload_format, report)
        self._rpc = rpc
        self._handlers = handlers
        self._callback: RPCRequestCallback | None = None
        self._notices: dict[str, NoticeHandler] = {}

    def set_callback(self, callback: RPCRequestCallback | None) -> None:
        """Replace the callback."""
        self._callback = callback

    def register_notice(self, method: str, handler: NoticeHandler) -> None:
        """Pass RPC requests with a method to ``handler`` instead of the callback: they are notices to the client itself.

        The handler raises ``ValueError`` if a request is not such a notice. The platform does not expect a response.
        """
        self._notices[method] = handler

    async def handle(self, topic: str, payload: bytes) -> RPCResponse | None:
        """Process an RPC request.

        Returns:
            The response of the handler or callback. It is an error if that raises, does not end in time, returns a value that
            JSON cannot carry, or does not exist.

            ``None`` if no response must be sent: the topic has no valid id, and the server disconnects a device that responds with
            an invalid one (docs/platform_contract.md, section 8); the message is a copy of a running request (section 2); it is a
            notice; or the callback returned ``RESPOND_LATER``.
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
        handler = self._handlers.of_method(request.method) if self._handlers is not None else None
        callback = self._callback if handler is None else partial(handler.respond, context={RPCRequest: request})
        if callback is None:
            known = self._handlers.methods if self._handlers is not None else ()
            return RPCResponse.build(request.request_id, error=no_handler(request.method, known))

        async def run_callback() -> RPCResponse | None:
            return _as_response(request, await call(callback, request))

        def failed(error: BaseException) -> RPCResponse:
            return RPCResponse.build(request.request_id, error=error_of(error))

        return await self._rpc.run(topic, payload, f"the RPC request {request.method!r}", run_callback, failed)


def _as_response(request: RPCRequest, returned: Any) -> RPCResponse | None:
    """Return a callback's result as the response to this request; ``None`` if the program responds on its own.

    Raises:
        ValueError: JSON cannot carry the result.
    """
    if returned is RESPOND_LATER:
        return None
    if isinstance(returned, RPCResponse):
        return returned if returned.request_id == request.request_id else returned.with_fields(request_id=request.request_id)
    return RPCResponse.build(request.request_id, returned)


class _Response(Protocol):
    @property
    def request_id(self) -> Any: ...


R = TypeVar("R", bound=_Response)


class ResponseHandler(MessageHandler, Generic[R]):
    """Resolves the pending request that a response belongs to."""

    def __init__(self, payload_format: DeviceFormat, report: InboundReport, parse: Callable[[str, bytes], R]) -> None:
        """Start without pending requests.

        Args:
            payload_format: The format of the messages.
            report: Counts and logs unreadable and unexpected messages.
            parse: Reads a response from a topic and a payload, and raises ``ValueError`` if it cannot.
        """
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
        if not self.pending.resolve(int(response.request_id), response):
            self._report.message_unexpected(topic, "no request with this id is pending")


class DeviceDownlink:
    """Processes a device's incoming messages, and sends the responses to RPC requests."""

    def __init__(
        self,
        payload_format: DeviceFormat,
        report: InboundReport,
        tasks: Tasks,
        send: Callable[[MqttPublishMessage], DeliveryFuture],
        count_rpc_request: Callable[[], None],
        rpc_callback_timeout: float,
    ) -> None:
        """Create the handlers.

        Args:
            payload_format: The format of the messages.
            report: Counts and logs messages that cannot be processed, and failed callbacks.
            tasks: Owns the tasks of callbacks.
            send: Queues a message.
            count_rpc_request: Called for each RPC request.
            rpc_callback_timeout: Seconds that a callback for an RPC request may take.
        """
        self._format = payload_format
        self._send = send
        self._count_rpc_request = count_rpc_request
        self.rpc: ServerSideRPC[RPCResponse] = ServerSideRPC(
            report, tasks, self._queue_response, _error_response, rpc_callback_timeout
        )
        """Runs the callbacks for RPC requests."""
        self.handlers: Handlers = Handlers(RPCRequest, AttributeUpdate)
        """The functions of the program for methods and attributes."""
        self.attribute_updates: AttributeUpdatesHandler = AttributeUpdatesHandler(payload_format, report, self.handlers)
        self.attribute_responses: ResponseHandler[RequestedAttributeResponse] = ResponseHandler(
            payload_format, report, payload_format.parse_attribute_response
        )
        self.rpc_requests: RPCRequestsHandler = RPCRequestsHandler(payload_format, report, self.rpc, self.handlers)
        self.rpc_responses: ResponseHandler[RPCResponse] = ResponseHandler(
            payload_format, report, payload_format.parse_rpc_response
        )

    def register_at(self, manager: Session) -> None:
        """Register the handlers of the device's topics."""
        manager.register_handler(DEVICE_ATTRIBUTES_TOPIC, self.attribute_updates.handle)
        manager.register_handler(DEVICE_ATTRIBUTES_RESPONSE_TOPIC, self.attribute_responses.handle)
        manager.register_handler(DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION, self.rpc_responses.handle)
        # RPC requests start in their order, and do not wait for each other: the server waits only a limited time for each response.
        manager.register_handler(
            DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION,
            self._handle_rpc_request,
            HandlerOptions(concurrent=True, owes_reply=True, on_refused=self._refuse_rpc_request),
        )

    async def _handle_rpc_request(self, topic: str, payload: bytes) -> None:
        """Process an RPC request until its response is acknowledged, so that the number of queued responses is bounded.

        A one-way RPC request looks like any other. The server ignores the response to it.
        """
        self._count_rpc_request()
        response = await self.rpc_requests.handle(topic, payload)
        if response is not None and (delivery := self.rpc.respond(response)) is not None:
            await delivery

    def _refuse_rpc_request(self, topic: str, _payload: bytes) -> None:
        self._count_rpc_request()
        request_id = request_id_of(topic)
        if request_id is not None:
            self.rpc.refuse(RPCResponse.build(request_id, error="The device is processing too many RPC requests"))

    def _queue_response(self, response: RPCResponse) -> DeliveryFuture:
        return self._send(self._format.build_rpc_response(response))


def _error_response(response: RPCResponse, error: str) -> RPCResponse:
    return RPCResponse.build(response.request_id, error=error)
