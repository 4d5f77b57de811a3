"""What a gateway receives for its sub-devices: attribute updates, responses to attribute requests, and server-side RPC.

The rule: the platform gets a response to each RPC request of which device and number can be read, whatever a callback does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import (
    GATEWAY_ATTRIBUTES_RESPONSE_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_RPC_TOPIC,
)
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
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
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.callbacks import call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.pending import PendingRequests
from tb_mqtt_client.service.requests.server_rpc import DEFAULT_CALLBACK_TIMEOUT, PlatformCalls

MAX_WAITING = 100
"""Updates of one device that may wait for its callback; the others are refused."""


class GatewayAttributeUpdatesHandler:
    """Gives updates to the sessions of their devices: one after the other to each, and to several side by side."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        report: InboundReport | None = None,
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._format = payload_format
        self._device_manager = device_manager
        self._report = report or InboundReport()
        self._turns: WeakKeyDictionary[DeviceSession, asyncio.Lock] = WeakKeyDictionary()
        self._waiting: Counter[DeviceSession] = Counter()

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an update and wait until the session's callback has taken it. Raises nothing."""
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
        if self._waiting[session] >= MAX_WAITING:
            self._report.message_refused(topic, MAX_WAITING)
            return
        self._waiting[session] += 1
        try:
            await self._give(session, update)
        finally:
            self._waiting[session] -= 1
            if not self._waiting[session]:
                del self._waiting[session]

    async def _give(self, session: DeviceSession, update: GatewayAttributeUpdate) -> None:
        event = update.attribute_update
        event.set_device_session(session)
        give = partial(self._event_dispatcher.dispatch, device_session=session)
        # A lock lets those who wait through in the order in which they came.
        async with self._turns.setdefault(session, asyncio.Lock()):
            await call_reporting(self._report, f"attribute updates of {update.device_name}", give, event)


AttributeResponseCallback: TypeAlias = Callable[[GatewayRequestedAttributeResponse], Coroutine[Any, Any, None]]

RequestKey: TypeAlias = tuple[UUID, int]
"""A device, whatever it is called, and the number of a request."""


class GatewayRequestedAttributeResponseHandler:
    """Finds the request that an answer belongs to, which alone knows the scope and the keys. ``pending`` has the requests."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        report: InboundReport | None = None,
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._format = payload_format
        self._device_manager = device_manager
        self._report = report or InboundReport()
        self.pending: PendingRequests[RequestKey, GatewayRequestedAttributeResponse] = PendingRequests()
        self._requests: dict[RequestKey, GatewayAttributeRequest] = {}

    def remember(self, request: GatewayAttributeRequest, answer: asyncio.Future[GatewayRequestedAttributeResponse]) -> None:
        """Read the answer as one to this request, which is pending."""
        key = key_of(request)
        self._requests[key] = request
        answer.add_done_callback(lambda _: self._requests.pop(key, None))

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an answer. Raises nothing."""
        try:
            self._answer(topic, self._format.parse_attribute_response(payload))
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)

    def _answer(self, topic: str, response: SubDeviceAttributes) -> None:
        device_name, request_id = response.device_name, response.request_id
        session = self._device_manager.resolve(device_name)
        key = (session.device_info.device_id, request_id) if session is not None else None
        if session is None or key is None or key not in self._requests:
            self._report.message_unexpected(topic, f"no request {request_id} of {device_name!r} waits for this answer")
            return
        session.update_last_seen()
        self.pending.answer(key, self._format.attributes_of(self._requests[key], response))


def key_of(request: GatewayAttributeRequest) -> RequestKey:
    """What its answer is found by."""
    return request.device_session.device_info.device_id, request.request_id


class GatewayRPCHandler:
    """Gives calls to the sessions of their devices, and answers as ``DEVICE_RPC_RESPONSE`` events to the dispatcher."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        tasks: Tasks,
        report: InboundReport | None = None,
        callback_timeout: float = DEFAULT_CALLBACK_TIMEOUT,
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._format = payload_format
        self._device_manager = device_manager
        self._report = report or InboundReport()
        self.calls = PlatformCalls(self._report, tasks, callback_timeout)

    async def handle(self, topic: str, payload: bytes) -> None:
        """Answer a call: it is over when its answer is acknowledged, so that calls do not pile up as answers. Raises nothing.

        The answer is the callback's, or an error when it raises, takes too long, gives nonsense or is not there, and when there
        is no such device here. ``None`` is a success without a result. One-way calls look the same and get an answer too.
        """
        response = await self._response(topic, payload)
        if response is None:
            return
        deliveries = await self._event_dispatcher.dispatch(response)
        if deliveries:
            await asyncio.wait(deliveries)

    def refusal(self, topic: str, payload: bytes) -> GatewayRPCResponse | None:
        """The answer to a call for which there is no room."""
        try:
            request = self._format.parse_rpc_request(payload)
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)
            return None
        return _error(request.device_name, request.request_id, "The gateway has too many calls to answer")

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
        if session.rpc_request_callback is None:
            return _error(request.device_name, request.request_id, "The device has no callback for RPC calls")
        return await self._called(topic, payload, session, request)

    async def _called(
        self, topic: str, payload: bytes, session: DeviceSession, request: GatewayRPCRequest
    ) -> GatewayRPCResponse | None:
        async def answer() -> GatewayRPCResponse:
            return _as_response(request, await self._event_dispatcher.dispatch(request, device_session=session))

        def failed(error: BaseException) -> GatewayRPCResponse:
            return _error(request.device_name, request.request_id, error)

        return await self.calls.run(topic, payload, f"the RPC call {request.method!r} to {request.device_name}", answer, failed)


def _as_response(request: GatewayRPCRequest, returned: Any) -> GatewayRPCResponse:
    """The answer to just this call, under the name by which the platform asked. Raises ``ValueError`` for what is no JSON."""
    if not isinstance(returned, RPCResponse):
        return GatewayRPCResponse.build(request.device_name, request.request_id, returned)
    return GatewayRPCResponse.of_device(request.device_name, returned.with_fields(request_id=request.request_id))


def _error(device_name: str, request_id: int | str, error: str | BaseException) -> GatewayRPCResponse:
    return GatewayRPCResponse.build(device_name, request_id, error=error)


GATEWAY_DOWNLINK_TOPICS = (GATEWAY_ATTRIBUTES_TOPIC, GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, GATEWAY_RPC_TOPIC)
"""The platform sends these unasked, and does not count their subscriptions (docs/platform_contract.md, section 4)."""


class GatewayDownlink:
    """The handlers of these messages, and the answers that calls get."""

    def __init__(
        self,
        dispatcher: DirectEventDispatcher,
        payload_format: GatewayFormat,
        device_manager: DeviceManager,
        report: InboundReport,
        tasks: Tasks,
        send: Callable[[MqttPublishMessage], Delivery],
        rpc_callback_timeout: float,
    ) -> None:
        """``send`` queues a publish."""
        self._format = payload_format
        self._send = send
        self.attribute_updates = GatewayAttributeUpdatesHandler(dispatcher, payload_format, device_manager, report)
        self.attribute_responses = GatewayRequestedAttributeResponseHandler(dispatcher, payload_format, device_manager, report)
        self.rpc = GatewayRPCHandler(dispatcher, payload_format, device_manager, tasks, report, rpc_callback_timeout)
        dispatcher.register(GatewayEventType.DEVICE_RPC_RESPONSE, self._take_answer)

    def register_at(self, manager: MQTTManager) -> None:
        """Take the messages."""
        manager.register_handler(GATEWAY_ATTRIBUTES_TOPIC, self.attribute_updates.handle, side_by_side=True)
        manager.register_handler(GATEWAY_ATTRIBUTES_RESPONSE_TOPIC, self.attribute_responses.handle)
        manager.register_handler(
            GATEWAY_RPC_TOPIC, self.rpc.handle, side_by_side=True, owes_answer=True, on_refused=self._refuse_call
        )

    def _take_answer(self, response: GatewayRPCResponse) -> list[Delivery]:
        delivery = self._send_answer(response)
        return [] if delivery is None else [delivery]

    def _send_answer(self, answer: GatewayRPCResponse) -> Delivery | None:
        def send(response: GatewayRPCResponse) -> Delivery:
            return self._send(self._format.build_rpc_response(response))

        def failed(error: BaseException) -> GatewayRPCResponse:
            return GatewayRPCResponse.build(str(answer.device_name), answer.request_id, error=str(error))

        return self.rpc.calls.answer(send, answer, failed)

    def _refuse_call(self, topic: str, payload: bytes) -> None:
        refusal = self.rpc.refusal(topic, payload)
        if refusal is not None:
            self.rpc.calls.refuse(lambda: self._send_answer(refusal))
