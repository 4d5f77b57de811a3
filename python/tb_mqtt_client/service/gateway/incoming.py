"""Processes incoming messages of a gateway's sub-devices: attribute updates, responses to attribute requests, and server-side RPC.

The rule: the platform gets a response to each RPC request with a readable device and id, whatever a callback does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

from tb_mqtt_client.common.async_utils import DeliveryFuture
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_RPC_TOPIC,
)
from tb_mqtt_client.entities.data.rpc_response import RESPOND_LATER, RPCResponse
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_attribute_update import GatewayAttributeUpdate
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.entities.gateway.gateway_rpc_request import GatewayRPCRequest
from tb_mqtt_client.entities.gateway.gateway_rpc_response import GatewayRPCResponse
from tb_mqtt_client.entities.gateway_event import GatewayEventType
from tb_mqtt_client.service.formats.protocol import GatewayFormat, SubDeviceAttributes, UnreadableRPCRequestError
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.device_session import DeviceSession
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.requests.callbacks import call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.handlers import no_handler
from tb_mqtt_client.service.requests.outgoing import PendingRequests
from tb_mqtt_client.service.requests.server_rpc import ServerSideRPC, error_of
from tb_mqtt_client.service.session.protocol import HandlerOptions, Session

MAX_WAITING = 100
"""The largest number of attribute updates of one device that wait for its callback. Further ones are refused."""


class GatewayAttributeUpdatesHandler:
    """Passes attribute updates to the sessions of their devices: in order to each device, and concurrently to several."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        report: InboundReport,
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._format = payload_format
        self._device_manager = device_manager
        self._report = report
        self._turns: WeakKeyDictionary[DeviceSession, asyncio.Lock] = WeakKeyDictionary()
        self._waiting: Counter[DeviceSession] = Counter()
        self.max_waiting = MAX_WAITING
        """The largest number of updates of one device that wait for its callback."""

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an update, and wait until the session's callback has processed it. Raises nothing."""
        try:
            update = self._format.parse_attribute_update(payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return
        session = self._device_manager.resolve(update.device_name)
        if session is None:
            self._report.message_unexpected(topic, f"there is no device {update.device_name!r}")
            return
        session.update_last_seen()
        if self._waiting[session] >= self.max_waiting:
            self._report.message_refused(topic, self.max_waiting)
            return
        self._waiting[session] += 1
        try:
            await self._dispatch(session, update)
        finally:
            self._waiting[session] -= 1
            if not self._waiting[session]:
                del self._waiting[session]

    async def _dispatch(self, session: DeviceSession, update: GatewayAttributeUpdate) -> None:
        event = update.attribute_update
        event.set_device_session(session)
        dispatch = partial(self._event_dispatcher.dispatch, device_session=session)
        # A lock is acquired in the order of the requests for it, so updates stay in order.
        async with self._turns.setdefault(session, asyncio.Lock()):
            await call_reporting(self._report, f"attribute updates of {update.device_name}", dispatch, event)
            for handler in session.handlers_of(event):
                await handler.process(self._report, event, session.context_of(event), session.call)


RequestKey: TypeAlias = tuple[UUID, int]
"""The id of a device, which stays when the device is renamed, and the id of a request."""


def key_of(request: GatewayAttributeRequest) -> RequestKey:
    """Return the key that identifies the response to a request."""
    return request.device_session.device_info.device_id, request.request_id


class GatewayRequestedAttributeResponseHandler:
    """Resolves the pending request that a response belongs to. The response does not repeat the request's scope and keys."""

    def __init__(self, payload_format: GatewayFormat, device_manager: DeviceManager, report: InboundReport) -> None:
        self._format = payload_format
        self._device_manager = device_manager
        self._report = report
        self.pending: PendingRequests[RequestKey, GatewayRequestedAttributeResponse] = PendingRequests()
        self.requests: dict[RequestKey, GatewayAttributeRequest] = {}
        """The requests of ``pending``."""

    def remember(self, request: GatewayAttributeRequest, response: asyncio.Future[GatewayRequestedAttributeResponse]) -> None:
        """Keep a pending request until the future of its response is done: its scope and keys are needed to read the response."""
        key = key_of(request)
        self.requests[key] = request
        response.add_done_callback(lambda _: self.requests.pop(key, None))

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read a response, and resolve its request. Raises nothing."""
        try:
            self._resolve(topic, self._format.parse_attribute_response(payload))
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)

    def _resolve(self, topic: str, response: SubDeviceAttributes) -> None:
        device_name, request_id = response.device_name, response.request_id
        session = self._device_manager.resolve(device_name)
        key = (session.device_info.device_id, request_id) if session is not None else None
        if session is None or key is None or key not in self.requests:
            self._report.message_unexpected(topic, f"no request {request_id} of {device_name!r} is pending")
            return
        session.update_last_seen()
        self.pending.resolve(key, self._format.attributes_of(self.requests[key], response))


class GatewayRPCHandler:
    """Passes RPC requests to the sessions of their devices, and dispatches the responses as ``DEVICE_RPC_RESPONSE`` events."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        report: InboundReport,
        rpc: ServerSideRPC[GatewayRPCResponse],
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._format = payload_format
        self._device_manager = device_manager
        self._report = report
        self._rpc = rpc

    async def handle(self, topic: str, payload: bytes) -> None:
        """Process an RPC request until its response is acknowledged, so that the number of queued responses is bounded.

        The response is the callback's; ``None`` is a success without a result. It is an error if the callback raises, does not end
        in time, returns a value that JSON cannot carry, or does not exist, and if the device is unknown. A one-way RPC request
        looks like any other, and gets a response, too. Raises nothing.
        """
        response = await self._response(topic, payload)
        if response is None:
            return
        deliveries = await self._event_dispatcher.dispatch(response)
        if deliveries:
            await asyncio.wait(deliveries)

    def refusal(self, topic: str, payload: bytes) -> GatewayRPCResponse | None:
        """Return the response to an RPC request that is not processed because too many are running; ``None`` if unreadable."""
        try:
            request = self._format.parse_rpc_request(payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return None
        return _error(request.device_name, request.request_id, "The gateway is processing too many RPC requests")

    async def _response(self, topic: str, payload: bytes) -> GatewayRPCResponse | None:
        try:
            request = self._format.parse_rpc_request(payload)
        except UnreadableRPCRequestError as error:
            self._report.message_malformed(topic, payload, error)
            if error.device_name is None or error.request_id is None:
                return None
            return _error(error.device_name, error.request_id, str(error))
        session = self._device_manager.resolve(request.device_name)
        if session is None:
            self._report.message_unexpected(topic, f"there is no device {request.device_name!r}")
            return _error(request.device_name, request.request_id, "The gateway has no such device")
        session.update_last_seen()
        request.set_device_session(session)
        if session.rpc_request_callback is None and session.handler_of(request.method) is None:
            return _error(request.device_name, request.request_id, no_handler(request.method, session.methods))
        return await self._run_callback(topic, payload, session, request)

    async def _run_callback(
        self, topic: str, payload: bytes, session: DeviceSession, request: GatewayRPCRequest
    ) -> GatewayRPCResponse | None:
        async def run_callback() -> GatewayRPCResponse | None:
            return _as_response(request, await self._event_dispatcher.dispatch(request, device_session=session))

        def failed(error: BaseException) -> GatewayRPCResponse:
            return _error(request.device_name, request.request_id, error_of(error))

        what = f"the RPC request {request.method!r} to {request.device_name}"
        return await self._rpc.run(topic, payload, what, run_callback, failed)


def _as_response(request: GatewayRPCRequest, returned: Any) -> GatewayRPCResponse | None:
    """Return a callback's result as the response to this request, with the device's name in it; ``None`` if the program responds
    on its own.

    Raises:
        ValueError: JSON cannot carry the result.
    """
    if returned is RESPOND_LATER:
        return None
    if not isinstance(returned, RPCResponse):
        return GatewayRPCResponse.build(request.device_name, request.request_id, returned)
    return GatewayRPCResponse.of_device(request.device_name, returned.with_fields(request_id=request.request_id))


def _error(device_name: str, request_id: int | str, error: str | dict[str, Any] | BaseException) -> GatewayRPCResponse:
    return GatewayRPCResponse.build(device_name, request_id, error=error)


GATEWAY_DOWNLINK_TOPICS = (GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, GATEWAY_RPC_TOPIC)
"""The platform also sends these without a subscription, and does not count their subscriptions (docs/platform_contract.md,
section 4)."""


class GatewayDownlink:
    """Processes the incoming messages of sub-devices, and sends the responses to RPC requests."""

    def __init__(
        self,
        dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        report: InboundReport,
        tasks: Tasks,
        send: Callable[[MqttPublishMessage], DeliveryFuture],
        rpc_callback_timeout: float,
    ) -> None:
        """Create the handlers.

        Args:
            dispatcher: Passes messages to the sessions, and responses to RPC requests to their handlers.
            payload_format: The format of the messages.
            device_manager: Knows the sessions.
            report: Counts and logs messages that cannot be processed, and failed callbacks.
            tasks: Owns the tasks of callbacks.
            send: Queues a message.
            rpc_callback_timeout: Seconds that a callback for an RPC request may take.
        """
        self._format = payload_format
        self._send = send
        self.rpc: ServerSideRPC[GatewayRPCResponse] = ServerSideRPC(
            report, tasks, self._queue_response, _error_response, rpc_callback_timeout
        )
        """Runs the callbacks for RPC requests."""
        self.attribute_updates: GatewayAttributeUpdatesHandler = GatewayAttributeUpdatesHandler(
            dispatcher, payload_format, device_manager, report
        )
        self.attribute_responses: GatewayRequestedAttributeResponseHandler = GatewayRequestedAttributeResponseHandler(
            payload_format, device_manager, report
        )
        self.rpc_requests: GatewayRPCHandler = GatewayRPCHandler(dispatcher, payload_format, device_manager, report, self.rpc)
        dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, self._respond)

    def register_at(self, manager: Session) -> None:
        """Register the handlers of the topics."""
        manager.register_handler(GATEWAY_ATTRIBUTES_TOPIC, self.attribute_updates.handle, HandlerOptions(concurrent=True))
        manager.register_handler(GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, self.attribute_responses.handle)
        manager.register_handler(
            GATEWAY_RPC_TOPIC,
            self.rpc_requests.handle,
            HandlerOptions(concurrent=True, owes_reply=True, on_refused=self._refuse_rpc_request),
        )

    def _respond(self, response: GatewayRPCResponse) -> list[DeliveryFuture]:
        delivery = self.rpc.respond(response)
        return [] if delivery is None else [delivery]

    def _refuse_rpc_request(self, topic: str, payload: bytes) -> None:
        refusal = self.rpc_requests.refusal(topic, payload)
        if refusal is not None:
            self.rpc.refuse(refusal)

    def _queue_response(self, response: GatewayRPCResponse) -> DeliveryFuture:
        return self._send(self._format.build_rpc_response(response))


def _error_response(response: GatewayRPCResponse, error: str) -> GatewayRPCResponse:
    return _error(str(response.device_name), response.request_id, error)
