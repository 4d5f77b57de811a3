"""What the platform sends to a device: attribute updates, remote procedure calls, and answers to requests."""

from __future__ import annotations

from collections.abc import Callable

from tb_mqtt_client.common.async_utils import Delivery
from tb_mqtt_client.common.logging_utils import get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.tasks import Tasks
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_RESPONSE_TOPIC,
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION,
    DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION,
    request_id_of,
)
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.service.formats.protocol import DeviceFormat
from tb_mqtt_client.service.requests.dispatch import InboundReport
from tb_mqtt_client.service.requests.handlers import (
    AttributeUpdatesHandler,
    ResponseHandler,
    RPCRequestsHandler,
)
from tb_mqtt_client.service.session.protocol import Session

logger = get_logger(__name__)


class DeviceDownlink:
    """The handlers of a device's messages, and the answers that some of these get."""

    def __init__(
        self,
        payload_format: DeviceFormat,
        report: InboundReport,
        tasks: Tasks,
        send: Callable[[MqttPublishMessage], Delivery],
        count_call: Callable[[], None],
        rpc_callback_timeout: float,
    ) -> None:
        """``send`` queues a publish, ``count_call`` is called for each call of the platform."""
        self._format = payload_format
        self._report = report
        self._send = send
        self._count_call = count_call
        self.attribute_updates = AttributeUpdatesHandler(payload_format, report)
        self.attribute_responses = ResponseHandler(payload_format, report, payload_format.parse_attribute_response)
        self.rpc_requests = RPCRequestsHandler(payload_format, report, tasks, rpc_callback_timeout)
        self.rpc_responses = ResponseHandler(payload_format, report, payload_format.parse_rpc_response)

    def register_at(self, manager: Session) -> None:
        """Take the device's messages."""
        manager.register_handler(DEVICE_ATTRIBUTES_TOPIC, self.attribute_updates.handle)
        manager.register_handler(DEVICE_ATTRIBUTES_RESPONSE_TOPIC, self.attribute_responses.handle)
        manager.register_handler(DEVICE_RPC_RESPONSE_TOPIC_FOR_SUBSCRIPTION, self.rpc_responses.handle)
        # Calls begin in their order and do not wait for each other: the server gives each only so much time.
        manager.register_handler(
            DEVICE_RPC_REQUEST_TOPIC_FOR_SUBSCRIPTION,
            self._take_call,
            side_by_side=True,
            owes_answer=True,
            on_refused=self._refuse_call,
        )

    async def _take_call(self, topic: str, payload: bytes) -> None:
        """Answer a call. It is over when its answer is acknowledged, so that calls do not pile up as answers.

        One-way calls look the same and get an answer too, which the server drops.
        """
        self._count_call()
        answer = await self.rpc_requests.handle(topic, payload)
        if answer is None:
            return
        delivery = self._send_answer(answer)
        if delivery is not None:
            await delivery

    def _send_answer(self, answer: RPCResponse) -> Delivery | None:
        def send(response: RPCResponse) -> Delivery:
            return self._send(self._format.build_rpc_response(response))

        def failed(error: BaseException) -> RPCResponse:
            return RPCResponse.build(answer.request_id, error=str(error))

        return self.rpc_requests.calls.answer(send, answer, failed)

    def _refuse_call(self, topic: str, _payload: bytes) -> None:
        self._count_call()
        request_id = request_id_of(topic)
        if request_id is not None:
            refusal = RPCResponse.build(request_id, error="The device has too many calls to answer")
            self.rpc_requests.calls.refuse(lambda: self._send_answer(refusal))
