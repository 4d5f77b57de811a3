"""Attribute requests of sub-devices to the platform."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from tb_mqtt_client.common.async_utils import Delivery, FutureMap, seconds_or_none
from tb_mqtt_client.common.exceptions import ConnectionLostError, NotConnectedError, RequestRefusedError, TBMQTTError
from tb_mqtt_client.common.logging_utils import get_logger
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
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.callbacks import call_reporting
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.outgoing import Requests, Send, Withdraw

logger = get_logger(__name__)

Answer = asyncio.Future[GatewayRequestedAttributeResponse]


@dataclass(slots=True)
class _Question:
    """One scope of a request: the platform takes no more in a message."""

    wire_request: GatewayAttributeRequest
    delivery: Delivery
    """What became of the publish that the platform took, or refused."""
    answer: Answer | None = None


class GatewayRequests(Requests):
    """Sends requests under numbers of this client's own, a message for each scope, and merges the answers."""

    def __init__(
        self,
        payload_format: GatewayFormat,
        responses: GatewayRequestedAttributeResponseHandler,
        futures: FutureMap,
        manager: MQTTManager,
        report: InboundReport,
        tasks: Tasks,
        send: Send,
        withdraw: Withdraw,
    ) -> None:
        super().__init__(manager, tasks, send, withdraw, responses.pending)
        self._format = payload_format
        self._responses = responses
        self._futures = futures
        self._report = report
        self._ids = RequestIds()
        self._asked: dict[RequestKey, list[_Question]] = {}

    def attributes(
        self, request: GatewayAttributeRequest, timeout: float | None
    ) -> tuple[Delivery, asyncio.Task[GatewayRequestedAttributeResponse]]:
        """Ask a session's platform: what becomes of the publish (of both, when it takes two), and the answer.

        The task raises ``TimeoutError``, ``NotConnectedError`` or ``RequestRefusedError``. Raises ``ValueError`` without a key
        and for a request that is too large, ``NotConnectedError`` before ``connect()``, and ``RuntimeError`` for a request that is
        being asked already.
        """
        limit = seconds_or_none(timeout)
        key = key_of(request)
        if key in self._asked:
            raise RuntimeError(f"Request ID {request.request_id} is already registered.")
        questions = self._asked[key] = self._begin(request)
        task = self._start(self._answered(request, questions, limit))
        task.add_done_callback(partial(self._ended, key, questions))
        return self._joint_delivery([question.delivery for question in questions]), task

    def _begin(self, request: GatewayAttributeRequest) -> list[_Question]:
        scopes = request.scopes()
        if not scopes:
            raise ValueError(
                "attribute_request must name at least one key: the platform does not give all attributes of a sub-device"
            )
        loop = asyncio.get_running_loop()
        questions: list[_Question] = []
        try:
            for client, keys in scopes:
                distinct = list(dict.fromkeys(keys))
                scope = {"shared_keys": None, "client_keys": distinct} if client else {"shared_keys": distinct, "client_keys": None}
                wire_request = GatewayAttributeRequest.of(self._ids.next(), **scope)
                wire_request = wire_request.with_fields(device_session=request.device_session)
                question = _Question(wire_request, loop.create_future())
                questions.append(question)
                self._put(question)
        except BaseException:
            for question in questions:
                if question.answer is not None:
                    question.answer.cancel()
            raise
        return questions

    def _put(self, question: _Question) -> None:
        """Publish a question, or publish it again, under the device's name of now."""
        session: DeviceSession = question.wire_request.device_session
        message = self._format.build_attribute_request(question.wire_request)
        # Not before the platform knows the device.
        message.device = session.identity
        answer = self._ask(self._responses.pending, key_of(question.wire_request), message)
        self._responses.remember(question.wire_request, answer)
        message.delivery_futures[0].add_done_callback(partial(_note_delivery, question.delivery))
        question.answer = answer

    def _put_again(self, question: _Question) -> None:
        session: DeviceSession = question.wire_request.device_session
        if session.manager is None:
            raise _gone(session)
        try:
            self._put(question)
        except ValueError as error:
            # The new session's limits are narrower.
            raise RequestRefusedError(GATEWAY_ATTRIBUTES_REQUEST_TOPIC, ReasonCode.PACKET_TOO_LARGE) from error

    def forget(self, session: DeviceSession) -> None:
        """The device is gone: no request of it will be answered."""
        for (device_id, _), questions in list(self._asked.items()):
            for question in questions:
                answer = question.answer
                if device_id == session.device_info.device_id and answer is not None and not answer.done():
                    answer.set_exception(_gone(session))

    async def _answered(
        self, request: GatewayAttributeRequest, questions: list[_Question], limit: float | None
    ) -> GatewayRequestedAttributeResponse:
        session: DeviceSession = request.device_session
        try:
            async with asyncio.timeout(limit):
                answers = [await self._until_answered(question) for question in questions]
        except TimeoutError:
            name = session.device_info.device_name
            raise TimeoutError(f"Timed out waiting for attributes of {name} (requestId={request.request_id})") from None
        response = GatewayRequestedAttributeResponse(
            request.request_id,
            [entry for answer in answers for entry in answer.shared],
            [entry for answer in answers for entry in answer.client],
            session.device_info.device_name,
        )
        response.set_device_session(session)
        return response

    async def _until_answered(self, question: _Question) -> GatewayRequestedAttributeResponse:
        """Ask again when the connection was lost: asking changes nothing."""
        while question.answer is not None:
            try:
                return await question.answer
            except ConnectionLostError:
                logger.debug("%s is sent again on the next connection", question.wire_request)
            self._put_again(question)
        raise AssertionError("a question was put before it is waited for")

    def _ended(self, key: RequestKey, questions: list[_Question], task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        del self._asked[key]
        for question in questions:
            answer = question.answer
            if answer is not None and not answer.cancel() and not answer.cancelled():
                # When one failed, nobody waits for the other.
                answer.exception()
            if not question.delivery.done():
                question.delivery.set_result(
                    PublishResult(GATEWAY_ATTRIBUTES_REQUEST_TOPIC, 1, -1, -1, LocalReasonCode.NOT_DELIVERED)
                )

    def _joint_delivery(self, deliveries: list[Delivery]) -> Delivery:
        """Of all publishes; the caller's own, and cancelling it changes nothing here."""
        joint: Delivery = asyncio.get_running_loop().create_future()
        self._futures.register(joint, deliveries)
        for delivery in deliveries:
            delivery.add_done_callback(self._futures.child_resolved)
        return joint

    def tell(self, request: GatewayAttributeRequest, answer: asyncio.Task[GatewayRequestedAttributeResponse]) -> None:
        """Give an answer to the callback of its session; the log is told why none will come."""
        self._hold(self._tell(request, answer), answer)

    async def _tell(self, request: GatewayAttributeRequest, answer: asyncio.Task[GatewayRequestedAttributeResponse]) -> None:
        try:
            response = await answer
        except (TimeoutError, TBMQTTError) as error:
            self._report.request_unanswered(request, error)
            return
        session: DeviceSession = request.device_session
        what = f"requested attributes of {response.device_name}"
        await call_reporting(self._report, what, session.handle_event_to_device, response)


def _gone(session: DeviceSession) -> NotConnectedError:
    return NotConnectedError(f"the device {session.device_info.device_name!r} was disconnected or deleted")


def _note_delivery(delivery: Delivery, publish: Delivery) -> None:
    """What was not delivered because its connection ended is published again: that is no result so far."""
    result = publish.result()
    if result.reason_code != LocalReasonCode.NOT_DELIVERED and not delivery.done():
        delivery.set_result(result)
