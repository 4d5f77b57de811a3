"""Sends requests of a device to the platform: attribute requests and client-side RPC."""

from __future__ import annotations

import asyncio
from typing import Any

from tb_mqtt_client.common.async_utils import seconds_or_none
from tb_mqtt_client.common.exceptions import ConnectionLostError, TBMQTTError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.request_ids import RequestIds
from tb_mqtt_client.entities.data.requested_attribute_response import RequestedAttributeResponse
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.requests.callbacks import Callback, call
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.incoming import DeviceDownlink
from tb_mqtt_client.service.requests.outgoing import Requests, Send, Withdraw
from tb_mqtt_client.service.session.protocol import Session

logger: ExtendedLogger = get_logger(__name__)

FIRST_RESPONSE_SECONDS = 3.0
"""Seconds to wait for the response to the first attribute request of a session, until it is sent again: the server may have dropped
that response (docs/platform_contract.md, section 2)."""


class DeviceRequests(Requests):
    """Sends requests with ids of this client's own, and returns responses with the callers' ids."""

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
        self._pending_rpc = downlink.rpc_responses.pending
        self._pending_attributes = downlink.attribute_responses.pending
        super().__init__(manager, report, tasks, send, withdraw, self._pending_rpc, self._pending_attributes)
        self._rpc_ids = RequestIds()
        self._attribute_ids = RequestIds()
        self._requested: set[int] = set()
        self._session_with_response = 0
        self.first_response_seconds = FIRST_RESPONSE_SECONDS
        """Seconds until the first attribute request of a session is sent again."""

    def next_rpc_id(self) -> int:
        """Return an id for an RPC request that this client has not used for a minute."""
        return self._rpc_ids.next(self._pending_rpc)

    # Client-side RPC.

    def rpc(self, request: RPCRequest, timeout: float | None) -> asyncio.Task[RPCResponse]:
        """Send an RPC request.

        Args:
            request: The request.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            A task that returns the response, or raises ``TimeoutError``, ``ConnectionLostError``, ``NotConnectedError`` or
            ``RequestRefusedError``.

        Raises:
            ValueError: The request is too large.
            NotConnectedError: ``connect()`` was not called.
        """
        limit = seconds_or_none(timeout)
        wire_id = self.next_rpc_id()
        message = self._format.build_rpc_request(request.with_fields(request_id=wire_id))
        response = self._request(self._pending_rpc, wire_id, message)
        return self._start_waiting(self._wait_rpc_response(request, response, limit), response)

    async def _wait_rpc_response(
        self, request: RPCRequest, pending: asyncio.Future[RPCResponse], limit: float | None
    ) -> RPCResponse:
        try:
            async with asyncio.timeout(limit):
                response = await pending
        except TimeoutError:
            raise TimeoutError(f"Timed out waiting for RPC response (requestId={request.request_id})") from None
        return response.with_fields(request_id=request.request_id)

    def pass_rpc_response(
        self, request: RPCRequest, response: asyncio.Task[RPCResponse], callback: Callback[Any], *, awaited: bool
    ) -> asyncio.Task[RPCResponse | None]:
        """Wait for a response in a task of its own, and call a callback with it, or with an error response if there is none.

        Args:
            request: The request.
            response: The task that waits for the response.
            callback: Called with an ``RPCResponse``.
            awaited: Whether the caller awaits the returned task. Otherwise an exception of the callback is counted and logged.

        Returns:
            A task that returns the response, or ``None`` without one. It raises the exception of the callback.
        """
        task = self._start_waiting(self._pass_rpc_response(request, response, callback), response)
        if not awaited:
            task.add_done_callback(self._report_failure)
        return task

    async def _pass_rpc_response(
        self, request: RPCRequest, pending: asyncio.Task[RPCResponse], callback: Callback[Any]
    ) -> RPCResponse | None:
        response = None
        try:
            outcome = response = await pending
        except TimeoutError as error:
            outcome = RPCResponse.timed_out(request.request_id, error)
        except TBMQTTError as error:
            outcome = RPCResponse.build(request.request_id, error=error)
        await call(callback, outcome)
        return response

    def _report_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report.callback_failed("an RPC response", error)

    # Attributes.

    def attributes(self, request: AttributeRequest, timeout: float | None) -> asyncio.Task[RequestedAttributeResponse]:
        """Send an attribute request. After a lost connection it is sent again.

        Args:
            request: The request.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            A task that returns the response, or raises ``TimeoutError``, ``NotConnectedError`` or ``RequestRefusedError``.

        Raises:
            ValueError: The request is too large.
            NotConnectedError: ``connect()`` was not called.
            RuntimeError: The request is pending.
        """
        limit = seconds_or_none(timeout)
        if request.request_id in self._requested:
            raise RuntimeError(f"Request ID {request.request_id} is already registered.")
        wire_request = request.with_fields(request_id=self._attribute_ids.next(self._pending_attributes))
        response = self._request_attributes(wire_request)
        self._requested.add(request.request_id)
        task = self._start_waiting(self._wait_attributes(request, wire_request, response, limit), response)
        task.add_done_callback(lambda _: self._requested.discard(request.request_id))
        return task

    def _request_attributes(self, request: AttributeRequest) -> asyncio.Future[RequestedAttributeResponse]:
        return self._request(self._pending_attributes, request.request_id, self._format.build_attribute_request(request))

    async def _wait_attributes(
        self,
        request: AttributeRequest,
        wire_request: AttributeRequest,
        pending: asyncio.Future[RequestedAttributeResponse],
        limit: float | None,
    ) -> RequestedAttributeResponse:
        try:
            async with asyncio.timeout(limit):
                response = await self._response_to(wire_request, pending)
        except TimeoutError:
            raise TimeoutError(f"Timed out waiting for attributes (requestId={request.request_id})") from None
        return RequestedAttributeResponse(request.request_id, response.shared, response.client)

    async def _response_to(
        self, request: AttributeRequest, pending: asyncio.Future[RequestedAttributeResponse]
    ) -> RequestedAttributeResponse:
        """Wait for a response. Send the request again after a lost connection, and once if it may be the first one of a session.

        A repeated request does no harm: it only reads attributes.
        """
        repeated_in_session = 0
        while True:
            may_be_dropped = self._manager.connections not in {self._session_with_response, repeated_in_session}
            try:
                async with asyncio.timeout(self.first_response_seconds if may_be_dropped else None):
                    response = await pending
            except TimeoutError:
                repeated_in_session = self._manager.connections
                logger.debug("%s is sent again: this session had no response yet", request)
            except ConnectionLostError:
                logger.debug("%s is sent again on the next connection", request)
            else:
                self._session_with_response = self._manager.connections
                return response
            pending = self._request_attributes(request)
