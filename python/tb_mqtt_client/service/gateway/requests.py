"""Sends attribute requests of sub-devices to the platform."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from tb_mqtt_client.common.async_utils import DeliveryFuture, FutureMap, seconds_or_none
from tb_mqtt_client.common.exceptions import ConnectionLostError, NotConnectedError, RequestRefusedError
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import GATEWAY_ATTRIBUTES_REQUEST_TOPIC
from tb_mqtt_client.constants.reason_codes import LocalReasonCode, ReasonCode
from tb_mqtt_client.entities.data.request_ids import RequestIds
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.service.formats.protocol import GatewayFormat
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.incoming import (
    GatewayRequestedAttributeResponseHandler,
    RequestKey,
    key_of,
)
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.outgoing import Requests, Send, Withdraw
from tb_mqtt_client.service.session.protocol import Session

logger: ExtendedLogger = get_logger(__name__)


@dataclass(slots=True)
class _ScopeRequest:
    """One scope of a request. The platform accepts only one scope in a message (docs/platform_contract.md, section 4)."""

    wire_request: GatewayAttributeRequest
    delivery: DeliveryFuture
    """The result of the publish that the platform acknowledged or refused."""
    response: asyncio.Future[GatewayRequestedAttributeResponse] | None = None


class GatewayRequests(Requests):
    """Sends a message for each scope of a request, with ids of this client's own, and merges the responses."""

    def __init__(
        self,
        payload_format: GatewayFormat,
        responses: GatewayRequestedAttributeResponseHandler,
        futures: FutureMap,
        manager: Session,
        report: InboundReport,
        tasks: Tasks,
        send: Send,
        withdraw: Withdraw,
    ) -> None:
        super().__init__(manager, report, tasks, send, withdraw, responses.pending)
        self._format = payload_format
        self._responses = responses
        self._futures = futures
        self._ids = RequestIds()
        self._requested: dict[RequestKey, list[_ScopeRequest]] = {}

    def attributes(
        self, request: GatewayAttributeRequest, timeout: float | None
    ) -> tuple[DeliveryFuture, asyncio.Task[GatewayRequestedAttributeResponse]]:
        """Send an attribute request of a device. After a lost connection it is sent again.

        Args:
            request: The request, and the session of its device.
            timeout: Seconds to wait for the response; ``None`` for no limit.

        Returns:
            A future of the merged result of its one or two publishes, and a task. The task returns the response, or raises
            ``TimeoutError``, ``NotConnectedError`` or ``RequestRefusedError``.

        Raises:
            ValueError: The request has no key, or is too large.
            NotConnectedError: ``connect()`` was not called.
            RuntimeError: The request is pending.
        """
        limit = seconds_or_none(timeout)
        key = key_of(request)
        if key in self._requested:
            raise RuntimeError(f"Request ID {request.request_id} is already registered.")
        scope_requests = self._requested[key] = self._begin(request)
        task = self._start(self._wait_attributes(request, scope_requests, limit))
        task.add_done_callback(partial(self._ended, key, scope_requests))
        return self._joint_delivery([scope_request.delivery for scope_request in scope_requests]), task

    def _begin(self, request: GatewayAttributeRequest) -> list[_ScopeRequest]:
        scopes = request.scopes()
        if not scopes:
            raise ValueError(
                "attribute_request must name at least one key: the platform does not send all attributes of a sub-device at once"
            )
        loop = asyncio.get_running_loop()
        scope_requests: list[_ScopeRequest] = []
        try:
            for client, keys in scopes:
                distinct = list(dict.fromkeys(keys))
                scope = {"shared_keys": None, "client_keys": distinct} if client else {"shared_keys": distinct, "client_keys": None}
                wire_request = GatewayAttributeRequest.of(self._ids.next(), **scope)
                wire_request = wire_request.with_fields(device_session=request.device_session)
                scope_request = _ScopeRequest(wire_request, loop.create_future())
                scope_requests.append(scope_request)
                self._publish(scope_request)
        except BaseException:
            for scope_request in scope_requests:
                if scope_request.response is not None:
                    scope_request.response.cancel()
            raise
        return scope_requests

    def _publish(self, scope_request: _ScopeRequest) -> None:
        """Queue a message, or queue it again, with the current name of the device."""
        session: DeviceSession = scope_request.wire_request.device_session
        message = self._format.build_attribute_request(scope_request.wire_request)
        # The message waits until the platform has acknowledged the announcement of the device.
        message.device = session.identity
        response = self._request(self._responses.pending, key_of(scope_request.wire_request), message)
        self._responses.remember(scope_request.wire_request, response)
        message.delivery_futures[0].add_done_callback(partial(_note_delivery, scope_request.delivery))
        scope_request.response = response

    def _publish_again(self, scope_request: _ScopeRequest) -> None:
        session: DeviceSession = scope_request.wire_request.device_session
        if session.manager is None:
            raise _device_gone(session)
        try:
            self._publish(scope_request)
        except ValueError as error:
            # The payload limit of the new session is smaller.
            raise RequestRefusedError(GATEWAY_ATTRIBUTES_REQUEST_TOPIC, ReasonCode.PACKET_TOO_LARGE) from error

    def forget(self, session: DeviceSession) -> None:
        """End the requests of a device that was disconnected or deleted."""
        for (device_id, _), scope_requests in list(self._requested.items()):
            for scope_request in scope_requests:
                response = scope_request.response
                if device_id == session.device_info.device_id and response is not None and not response.done():
                    response.set_exception(_device_gone(session))

    async def _wait_attributes(
        self, request: GatewayAttributeRequest, scope_requests: list[_ScopeRequest], limit: float | None
    ) -> GatewayRequestedAttributeResponse:
        session: DeviceSession = request.device_session
        try:
            async with asyncio.timeout(limit):
                responses = [await self._response_to(scope_request) for scope_request in scope_requests]
        except TimeoutError:
            name = session.device_info.device_name
            raise TimeoutError(f"Timed out waiting for attributes of {name} (requestId={request.request_id})") from None
        merged = GatewayRequestedAttributeResponse(
            request.request_id,
            [entry for response in responses for entry in response.shared],
            [entry for response in responses for entry in response.client],
            session.device_info.device_name,
        )
        merged.set_device_session(session)
        return merged

    async def _response_to(self, scope_request: _ScopeRequest) -> GatewayRequestedAttributeResponse:
        """Wait for a response. Send the request again after a lost connection, which does no harm: it only reads attributes."""
        while scope_request.response is not None:
            try:
                return await scope_request.response
            except ConnectionLostError:
                logger.debug("%s is sent again on the next connection", scope_request.wire_request)
            self._publish_again(scope_request)
        raise AssertionError("a request is published before its response is awaited")

    def _ended(self, key: RequestKey, scope_requests: list[_ScopeRequest], _task: asyncio.Task[object]) -> None:
        del self._requested[key]
        for scope_request in scope_requests:
            response = scope_request.response
            if response is not None and not response.cancel() and not response.cancelled():
                # If one scope failed, the exception of the other one is not awaited, and asyncio would log it.
                response.exception()
            if not scope_request.delivery.done():
                scope_request.delivery.set_result(
                    PublishResult(GATEWAY_ATTRIBUTES_REQUEST_TOPIC, 1, -1, -1, LocalReasonCode.NOT_DELIVERED)
                )

    def _joint_delivery(self, deliveries: list[DeliveryFuture]) -> DeliveryFuture:
        """Return a future of the merged result. The caller may cancel it, which changes nothing here."""
        joint: DeliveryFuture = asyncio.get_running_loop().create_future()
        self._futures.register(joint, deliveries)
        for delivery in deliveries:
            delivery.add_done_callback(self._futures.child_resolved)
        return joint

    def pass_to_session(self, request: GatewayAttributeRequest, response: asyncio.Task[GatewayRequestedAttributeResponse]) -> None:
        """Wait for a response in a task of its own, and call the callback of the request's session with it."""
        session: DeviceSession = request.device_session
        what = f"requested attributes of {session.device_info.device_name}"
        self.pass_to_callback(request, response, what, session.handle_event_to_device)


def _device_gone(session: DeviceSession) -> NotConnectedError:
    return NotConnectedError(f"the device {session.device_info.device_name!r} was disconnected or deleted")


def _note_delivery(delivery: DeliveryFuture, publish: DeliveryFuture) -> None:
    """Set the result of a publish, unless it was lost with its connection: then the request is published again."""
    result = publish.result()
    if result.reason_code != LocalReasonCode.NOT_DELIVERED and not delivery.done():
        delivery.set_result(result)
