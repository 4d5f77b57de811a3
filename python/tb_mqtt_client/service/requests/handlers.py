"""Handlers of a device's incoming messages: attribute updates, server-side RPC, and responses to requests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tb_mqtt_client.common.exceptions import RPCError
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.attribute_update import AttributeUpdate
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.formats.json_device import JsonMessageAdapter, MessageAdapter, request_id_of
from tb_mqtt_client.service.requests.callbacks import Callback, call, call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.pending import PendingRequests
from tb_mqtt_client.service.requests.server_rpc import DEFAULT_CALLBACK_TIMEOUT, PlatformCalls


class MessageHandler:
    """Reads messages with an adapter, and reports what is wrong with them. ``handle`` raises nothing."""

    def __init__(self, message_adapter: MessageAdapter | None = None, report: InboundReport | None = None) -> None:
        """Without an adapter messages are JSON; without a report of a client's own the handler has one for itself."""
        self._message_adapter = message_adapter or JsonMessageAdapter()
        self._report = report or InboundReport()

    def set_message_adapter(self, message_adapter: MessageAdapter) -> None:
        """Read messages with another adapter. Raises ``ValueError`` for what is none."""
        if not isinstance(message_adapter, MessageAdapter):
            raise ValueError("message_adapter must be an instance of MessageAdapter.")  # noqa: TRY004  # published type and text
        self._message_adapter = message_adapter


AttributeUpdateCallback = Callback[None]
"""Called with an ``AttributeUpdate``."""


class AttributeUpdatesHandler(MessageHandler):
    """Gives updates to the callback. Without one they are of no interest."""

    def __init__(self, message_adapter: MessageAdapter | None = None, report: InboundReport | None = None) -> None:
        super().__init__(message_adapter, report)
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
            update: AttributeUpdate = self._message_adapter.parse_attribute_update(payload)
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
        another (docs/platform_contract.md, section 8); the same call is running, of which the server sent a copy (section 2); or it
        is a notice to the client.
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


class _Answer(Protocol):
    @property
    def request_id(self) -> Any: ...


A = TypeVar("A", bound=_Answer)


class ResponseHandler(MessageHandler, ABC, Generic[A]):
    """Finds the request that an answer belongs to. ``pending`` has the requests; some have an outcome that waits for its answer."""

    def __init__(self, message_adapter: MessageAdapter | None = None, report: InboundReport | None = None) -> None:
        super().__init__(message_adapter, report)
        self.pending: PendingRequests[int, A] = PendingRequests()
        self._outcomes: dict[int, asyncio.Task[Any]] = {}

    def clear(self) -> None:
        """Forget all requests; what waits for them is cancelled."""
        self.pending.cancel_all()

    @abstractmethod
    def _parse(self, topic: str, payload: bytes) -> A:
        """The answer in a message. Raises ``ValueError``."""

    def _hold(self, request_id: int, outcome: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run what follows an answer; ``handle`` waits for it."""
        task = asyncio.create_task(outcome, name=f"tb-mqtt-client outcome of request {request_id}")
        self._outcomes[request_id] = task
        task.add_done_callback(partial(self._outcome_ended, request_id))
        return task

    def _outcome_ended(self, request_id: int, task: asyncio.Task[Any]) -> None:
        if self._outcomes.get(request_id) is task:
            del self._outcomes[request_id]

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an answer, and wait until the callback of its request has taken it."""
        try:
            answer = self._parse(topic, payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        request_id = int(answer.request_id)
        outcome = self._outcomes.get(request_id)
        if not self.pending.answer(request_id, answer):
            self._report.message_unexpected(topic, "no request waits for this answer")
        elif outcome is not None:
            await asyncio.wait({outcome})


AttributeResponseCallback = Callback[None]
"""Called with a ``RequestedAttributeResponse``."""


class RequestedAttributeResponseHandler(ResponseHandler[RequestedAttributeResponse]):
    """Gives each answer to the request of its number."""

    async def register_request(self, request: AttributeRequest, callback: AttributeResponseCallback) -> None:
        """Call ``callback`` with the answer. Raises ``RuntimeError`` when the request's id is pending already."""
        answer = self.pending.add(request.request_id)
        self._hold(request.request_id, self._tell(answer, callback))

    async def _tell(self, answer: asyncio.Future[RequestedAttributeResponse], callback: AttributeResponseCallback) -> None:
        await call_reporting(self._report, "requested attributes", callback, await answer)

    def unregister_request(self, request_id: int) -> None:
        """Forget a request."""
        self.pending.discard(request_id)

    def _parse(self, topic: str, payload: bytes) -> RequestedAttributeResponse:
        return self._message_adapter.parse_requested_attribute_response(topic, payload)


RPCResponseCallback = Callback[None]
"""Called with an ``RPCResponse``."""


class RPCResponseHandler(ResponseHandler[RPCResponse]):
    """Gives each answer to the call of its number."""

    def register_request(self, request_id: int, callback: RPCResponseCallback | None = None) -> asyncio.Future[RPCResponse]:
        """The future of a call's answer; the callback gets it first.

        The future raises ``RPCError`` for an answer that is an error, and what the callback raised. Raises ``RuntimeError``
        when the id is pending already.
        """
        return self._hold(request_id, _outcome(self.pending.add(request_id), callback))

    def _parse(self, topic: str, payload: bytes) -> RPCResponse:
        return self._message_adapter.parse_rpc_response(topic, payload)


async def _outcome(answer: asyncio.Future[RPCResponse], callback: RPCResponseCallback | None) -> RPCResponse:
    response = await answer
    if callback is not None:
        await call(callback, response)
    if response.error is not None:
        raise RPCError(response)
    return response
