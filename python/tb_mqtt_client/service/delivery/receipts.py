"""The answers of calls and messages, and the counts that go with them: what a call is told is what the statistics say."""

from __future__ import annotations

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import Delivery, FutureMap
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.queue import QueueRoom
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.gateway.traffic import Queued


class Answers:
    """Answers what leaves the road, wherever it stands: a call that is queued, or a message that calls are packed in."""

    def __init__(self, futures: FutureMap, counter: DeliveryCounter, room: QueueRoom) -> None:
        self._futures = futures
        self._counter = counter
        self._room = room

    def answer(self, message: MqttPublishMessage, reason_code: int) -> None:
        """Answer the calls of a message whose datapoints are counted already."""
        result = message.result(reason_code)
        for delivery in message.delivery_futures:
            _answer(delivery, result)
            self._futures.child_resolved(delivery)

    def undelivered(self, item: Queued) -> None:
        """What is queued will not be sent: the client is stopped, or the device is deleted."""
        if isinstance(item, MqttPublishMessage):
            if not item.is_service_message:
                self._counter.leave_undelivered(item.datapoints)
            self.answer(item, LocalReasonCode.NOT_DELIVERED)
            return
        encoded, delivery, _ = item
        self._room.give_back(1, encoded.nbytes)
        self._counter.leave_undelivered(encoded.datapoints)
        _answer(delivery, _unsent(encoded, LocalReasonCode.NOT_DELIVERED))

    def refused(self, item: Queued, announcement: PublishResult) -> None:
        """What is queued is of a device whose announcement was refused: it gets the same reason."""
        if isinstance(item, MqttPublishMessage):
            if not item.is_service_message:
                self._counter.refuse_queued(item.datapoints, announcement.reason_code)
            self.answer(item, announcement.reason_code)
            return
        encoded, delivery, _ = item
        self._room.give_back(1, encoded.nbytes)
        self._counter.refuse_queued(encoded.datapoints, announcement.reason_code)
        _answer(delivery, announcement.with_datapoints(encoded.datapoints))

    def dropped(self, encoded: EncodedUplink, delivery: Delivery) -> None:
        """There was no room for a call, or it had to make room."""
        self._counter.drop(encoded.datapoints)
        _answer(delivery, _unsent(encoded, LocalReasonCode.DROPPED))


def _unsent(encoded: EncodedUplink, reason_code: LocalReasonCode) -> PublishResult:
    return PublishResult("", 1, -1, encoded.nbytes, reason_code, encoded.datapoints)


def _answer(delivery: Delivery, result: PublishResult) -> None:
    # A caller who was cancelled while waiting has no use for the answer.
    if not delivery.done():
        delivery.set_result(result)
