"""Answers to attribute requests of sub-devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from tb_mqtt_client.common.async_utils import seconds_or_none
from tb_mqtt_client.entities.gateway.gateway_attribute_request import GatewayAttributeRequest
from tb_mqtt_client.entities.gateway.gateway_requested_attribute_response import GatewayRequestedAttributeResponse
from tb_mqtt_client.service.callbacks import call_reporting
from tb_mqtt_client.service.gateway.device_manager import DeviceManager
from tb_mqtt_client.service.gateway.direct_event_dispatcher import DirectEventDispatcher
from tb_mqtt_client.service.gateway.message_adapter import GatewayMessageAdapter
from tb_mqtt_client.service.inbound_report import InboundReport
from tb_mqtt_client.service.pending_requests import PendingRequests

AttributeResponseCallback: TypeAlias = Callable[[GatewayRequestedAttributeResponse], Coroutine[Any, Any, None]]

RequestKey: TypeAlias = tuple[UUID, int]
"""A device, whatever it is called, and the number of a request."""


class GatewayRequestedAttributeResponseHandler:
    """Finds the request that an answer belongs to, which alone knows the scope and the keys. ``pending`` has the requests."""

    def __init__(
        self,
        event_dispatcher: DirectEventDispatcher,
        message_adapter: GatewayMessageAdapter,
        device_manager: DeviceManager,
        report: InboundReport | None = None,
    ) -> None:
        self._event_dispatcher = event_dispatcher
        self._message_adapter = message_adapter
        self._device_manager = device_manager
        self._report = report or InboundReport()
        self.pending: PendingRequests[RequestKey, GatewayRequestedAttributeResponse] = PendingRequests()
        self._requests: dict[RequestKey, GatewayAttributeRequest] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def register_request(self, request: GatewayAttributeRequest, timeout: float | None = 30) -> None:
        """Give the answer to the request's session. After ``timeout`` seconds without one the log says so.

        Raises ``RuntimeError`` when the request's number is pending for its device already.
        """
        limit = seconds_or_none(timeout)
        answer = self.pending.add(key_of(request))
        self.remember(request, answer)
        task = asyncio.create_task(self._give(request, answer, limit), name="tb-mqtt-client attribute request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def remember(self, request: GatewayAttributeRequest, answer: asyncio.Future[GatewayRequestedAttributeResponse]) -> None:
        """Read the answer as one to this request, which is pending."""
        key = key_of(request)
        self._requests[key] = request
        answer.add_done_callback(lambda _: self._requests.pop(key, None))

    def unregister_request(self, device_name: str, request_id: int) -> None:
        """Forget a request; one that is not pending changes nothing."""
        session = self._device_manager.resolve(device_name)
        if session is not None:
            self.pending.discard((session.device_info.device_id, request_id))

    def clear(self) -> None:
        """Forget all requests; what waits for them is cancelled."""
        self.pending.cancel_all()

    async def handle(self, topic: str, payload: bytes) -> None:
        """Read an answer. Raises nothing."""
        try:
            self._answer(topic, self._message_adapter.deserialize_to_dict(payload))
        except ValueError as error:
            self._report.message_malformed(topic, payload, error)

    def _answer(self, topic: str, data: dict[str, Any]) -> None:
        device_name, request_id = data.get("device"), data.get("id")
        if not isinstance(device_name, str) or not isinstance(request_id, int):
            raise ValueError("an answer needs 'device' and 'id'")  # noqa: TRY004  # bad data, not a bad call
        session = self._device_manager.resolve(device_name)
        key = (session.device_info.device_id, request_id) if session is not None else None
        if session is None or key is None or key not in self._requests:
            self._report.message_unexpected(topic, f"no request {request_id} of {device_name!r} waits for this answer")
            return
        session.update_last_seen()
        self.pending.answer(key, self._message_adapter.parse_gateway_requested_attribute_response(self._requests[key], data))

    async def _give(
        self,
        request: GatewayAttributeRequest,
        answer: asyncio.Future[GatewayRequestedAttributeResponse],
        limit: float | None,
    ) -> None:
        session = request.device_session
        try:
            async with asyncio.timeout(limit):
                response = await answer
        except TimeoutError as error:
            self._report.request_unanswered(request, error)
            self.pending.discard(key_of(request))
            return
        response.set_device_session(session)
        give = partial(self._event_dispatcher.dispatch, device_session=session)
        await call_reporting(self._report, f"requested attributes of {response.device_name}", give, response)


def key_of(request: GatewayAttributeRequest) -> RequestKey:
    """What its answer is found by."""
    return request.device_session.device_info.device_id, request.request_id
