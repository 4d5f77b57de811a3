"""Requests of the device to the platform: attributes and remote procedure calls."""

from __future__ import annotations

import asyncio
from typing import Any

from tb_mqtt_client.common.async_utils import seconds_or_none
from tb_mqtt_client.common.exceptions import ConnectionLostError, TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.request_ids import RequestIds
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.requests.callbacks import Callback, call, call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.incoming import DeviceDownlink
from tb_mqtt_client.service.requests.outgoing import Requests, Send, Withdraw
from tb_mqtt_client.service.session.protocol import Session

logger = get_logger(__name__)

FIRST_ANSWER_SECONDS = 3.0
"""After so long without an answer a session's first attribute request is sent again: the server may have been unready to answer it
(docs/platform_contract.md, section 2)."""


class DeviceRequests(Requests):
    """Sends requests under numbers of this client's own, and gives the answers back under the caller's."""

    def __init__(
        self,
        payload_format: DeviceFormat,
        downlink: DeviceDownlink,
        manager: Session,
        report: InboundReport,
        tasks: Tasks,
        send: Send,
        withdraw: Withdraw,
    ) -> None:
        self._format = payload_format
        self._rpc_calls = downlink.rpc_responses.pending
        self._attribute_requests = downlink.attribute_responses.pending
        super().__init__(manager, tasks, send, withdraw, self._rpc_calls, self._attribute_requests)
        self._report = report
        self._rpc_ids = RequestIds()
        self._attribute_ids = RequestIds()
        self._asked: set[int] = set()
        self._answered_session = 0

    def next_rpc_id(self) -> int:
        """A number for a call, in this client and this minute the only one."""
        return self._rpc_ids.next(self._rpc_calls)

    # Remote procedure calls.

    def call(self, request: RPCRequest, timeout: float | None) -> asyncio.Task[RPCResponse]:
        """Call the platform.

        The task raises ``TimeoutError``, ``ConnectionLostError``, ``NotConnectedError`` or ``RequestRefusedError``. Raises
        ``ValueError`` for a request that is too large and ``NotConnectedError`` before ``connect()``.
        """
        limit = seconds_or_none(timeout)
        wire_id = self.next_rpc_id()
        answer = self._ask(self._rpc_calls, wire_id, self._format.build_rpc_request(request.with_fields(request_id=wire_id)))
        return self._hold(self._call(request, answer, limit), answer)

    async def _call(self, request: RPCRequest, answer: asyncio.Future[RPCResponse], limit: float | None) -> RPCResponse:
        try:
            async with asyncio.timeout(limit):
                response = await answer
        except TimeoutError:
            raise TimeoutError(f"Timed out waiting for RPC response (requestId={request.request_id})") from None
        return response.with_fields(request_id=request.request_id)

    def tell(
        self, request: RPCRequest, outcome: asyncio.Task[RPCResponse], callback: Callback[Any], *, awaited: bool
    ) -> asyncio.Task[RPCResponse | None]:
        """Give a call's outcome to a callback, whatever it is. The task gives the response, or ``None`` when none came.

        It raises what the callback raises, which is counted and logged too unless the task is ``awaited``.
        """
        task = self._hold(self._tell(request, outcome, callback), outcome)
        if not awaited:
            task.add_done_callback(self._report_failure)
        return task

    async def _tell(self, request: RPCRequest, outcome: asyncio.Task[RPCResponse], callback: Callback[Any]) -> RPCResponse | None:
        response = None
        try:
            response = told = await outcome
        except TimeoutError as error:
            told = RPCResponse.timed_out(request.request_id, error)
        except TBMQTTError as error:
            told = RPCResponse.build(request.request_id, error=error)
        await call(callback, told)
        return response

    def _report_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report.callback_failed("an RPC response", error)

    # Attributes.

    def attributes(self, request: AttributeRequest, timeout: float | None) -> asyncio.Task[RequestedAttributeResponse]:
        """Ask for attributes. The task raises ``TimeoutError``, ``NotConnectedError`` or ``RequestRefusedError``.

        Raises as ``call`` does, and ``RuntimeError`` for a request that is being asked already.
        """
        limit = seconds_or_none(timeout)
        if request.request_id in self._asked:
            raise RuntimeError(f"Request ID {request.request_id} is already registered.")
        wire_request = request.with_fields(request_id=self._attribute_ids.next(self._attribute_requests))
        answer = self._ask_attributes(wire_request)
        self._asked.add(request.request_id)
        task = self._hold(self._attributes(request, wire_request, answer, limit), answer)
        task.add_done_callback(lambda _: self._asked.discard(request.request_id))
        return task

    def _ask_attributes(self, request: AttributeRequest) -> asyncio.Future[RequestedAttributeResponse]:
        return self._ask(self._attribute_requests, request.request_id, self._format.build_attribute_request(request))

    async def _attributes(
        self,
        request: AttributeRequest,
        wire_request: AttributeRequest,
        answer: asyncio.Future[RequestedAttributeResponse],
        limit: float | None,
    ) -> RequestedAttributeResponse:
        try:
            async with asyncio.timeout(limit):
                response = await self._until_answered(wire_request, answer)
        except TimeoutError:
            raise TimeoutError(f"Timed out waiting for attributes (requestId={request.request_id})") from None
        return RequestedAttributeResponse(request.request_id, response.shared, response.client)

    async def _until_answered(
        self, request: AttributeRequest, answer: asyncio.Future[RequestedAttributeResponse]
    ) -> RequestedAttributeResponse:
        """Ask again when the connection was lost, and when the first answer of a session does not come: asking changes nothing."""
        asked_twice_in = 0
        while True:
            first = self._manager.connections not in {self._answered_session, asked_twice_in}
            try:
                async with asyncio.timeout(FIRST_ANSWER_SECONDS if first else None):
                    response = await answer
            except TimeoutError:
                asked_twice_in = self._manager.connections
                logger.debug("%s is sent again: there was no answer so far in this session", request)
            except ConnectionLostError:
                logger.debug("%s is sent again on the next connection", request)
            else:
                self._answered_session = self._manager.connections
                return response
            answer = self._ask_attributes(request)

    def tell_attributes(
        self,
        request: AttributeRequest,
        answer: asyncio.Task[RequestedAttributeResponse],
        callback: Callback[Any],
        on_error: Callback[Any] | None,
    ) -> None:
        """Give an answer to a callback, or to ``on_error`` why none will come."""
        self._hold(self._tell_attributes(request, answer, callback, on_error), answer)

    async def _tell_attributes(
        self,
        request: AttributeRequest,
        answer: asyncio.Task[RequestedAttributeResponse],
        callback: Callback[Any],
        on_error: Callback[Any] | None,
    ) -> None:
        try:
            response = await answer
        except (TimeoutError, TBMQTTError) as error:
            self._report.request_unanswered(request, error)
            if on_error is not None:
                await call_reporting(self._report, "an attribute request without an answer", on_error, error)
            return
        await call_reporting(self._report, "requested attributes", callback, response)
