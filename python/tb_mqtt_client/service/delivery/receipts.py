"""Resolves the futures of sends and messages that leave the delivery pipeline, and counts their datapoints by outcome."""

from __future__ import annotations

from collections.abc import Callable

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import FutureMap, SendReceipt
from tb_mqtt_client.common.publish_result import Certainty, PublishResult
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.work_item import ENCODED, FUTURE, TERMS, Queued, QueuedUplink, WorkItem


class Receipts:
    """Resolves the futures of queued sends, and those of messages, which carry the data of several sends."""

    def __init__(self, futures: FutureMap, counter: DeliveryCounter, capacity: QueueCapacity) -> None:
        """Create the receipts of one client.

        Args:
            futures: Ties the futures of sends to those of the messages that carry their data.
            counter: Counts the datapoints by outcome.
            capacity: The capacity that queued sends take.
        """
        self._futures = futures
        self._counter = counter
        self._capacity = capacity

    def resolve(self, item: WorkItem, reason_code: int) -> None:
        """Resolve the sends of a message whose datapoints have been counted."""
        result = item.result(reason_code)
        for future in item.futures:
            if not future.done():
                future.set_result(result)
            self._futures.child_resolved(future)

    def undelivered(self, item: Queued) -> None:
        """Resolve a send or message as undelivered, because the client is stopped or its device was deleted."""
        if isinstance(item, WorkItem):
            if item.has_datapoints:
                self._counter.leave_undelivered(item.datapoints)
            self.resolve(item, LocalReasonCode.NOT_DELIVERED)
            return
        encoded, receipt, _, _ = item
        if not self._leave(item):
            return
        self._counter.leave_undelivered(encoded.datapoints)
        _resolve(receipt, _unsent(encoded, LocalReasonCode.NOT_DELIVERED))

    def rejected(self, item: Queued, announcement: PublishResult) -> None:
        """Resolve a send or message of a sub-device as rejected, with the reason code with which its announcement was refused."""
        if isinstance(item, WorkItem):
            if item.has_datapoints:
                self._counter.refuse_queued(item.datapoints, announcement.reason_code)
            self.resolve(item, announcement.reason_code)
            return
        encoded, receipt, _, _ = item
        if not self._leave(item):
            return
        self._counter.refuse_queued(encoded.datapoints, announcement.reason_code)
        # The certainty of an announcement says nothing about data that waited for it.
        certainty = Certainty.REFUSED if announcement.reason_code > 0 else Certainty.NEVER_SENT
        _resolve(receipt, announcement.with_datapoints(encoded.datapoints).with_certainty(certainty))

    def kept(self, item: Queued, is_on_disk: Callable[[SendReceipt], bool]) -> None:
        """Resolve a send or message as kept in the store, because the client is stopped.

        Args:
            item: The send or message.
            is_on_disk: Returns whether the send of a receipt is in the store. If it is not, because the disk failed, the send is
                undelivered; its receipt makes that of the result.
        """
        if not isinstance(item, WorkItem):
            encoded, receipt, _, _ = item
            if not is_on_disk(receipt):
                self.undelivered(item)
            elif self._leave(item):
                self._counter.keep(encoded.datapoints)
                _resolve(receipt, _unsent(encoded, LocalReasonCode.KEPT, Certainty.KEPT))
            return
        if not item.has_datapoints:
            self.undelivered(item)
            return
        for receipt, datapoints in self._futures.shares_of(item.futures[0]):
            count = self._counter.keep if is_on_disk(receipt) else self._counter.leave_undelivered
            count(item.datapoints if datapoints is None else datapoints)
        self.resolve(item, LocalReasonCode.KEPT)

    def never_queued(self, encoded: EncodedUplink, receipt: SendReceipt) -> None:
        """Resolve a send as undelivered that has no capacity, because the client was stopped before it was queued."""
        self._counter.leave_undelivered(encoded.datapoints)
        _resolve(receipt, _unsent(encoded, LocalReasonCode.NOT_DELIVERED))

    def dropped(self, encoded: EncodedUplink, receipt: SendReceipt, reason_code: LocalReasonCode = LocalReasonCode.DROPPED) -> None:
        """Resolve a send that is in no queue as dropped."""
        self._counter.drop(encoded.datapoints)
        _resolve(receipt, _unsent(encoded, reason_code))

    def drop(self, uplink: QueuedUplink, reason_code: LocalReasonCode) -> None:
        """Resolve a queued send as dropped."""
        if self._leave(uplink):
            self.dropped(uplink[ENCODED], uplink[FUTURE], reason_code)

    def _leave(self, uplink: QueuedUplink) -> bool:
        """Give back the capacity of a send that leaves the queues; return False if its outcome is decided already."""
        terms = uplink[TERMS]
        if terms is not None and not terms.end():
            return False
        self._capacity.give_back(1, uplink[ENCODED].nbytes)
        return True


def resolve_futures(item: WorkItem, reason_code: int) -> None:
    """Resolve the futures of a message that was published without a ``MessageService``."""
    result = item.result(reason_code)
    for future in item.futures:
        _resolve(future, result)


def resolve_undelivered(items: list[WorkItem], _: SessionEnd) -> None:
    """Resolve unacknowledged messages that were published without a ``MessageService``, which would publish them again."""
    for item in items:
        resolve_futures(item, LocalReasonCode.NOT_DELIVERED)


def _unsent(encoded: EncodedUplink, reason_code: LocalReasonCode, certainty: Certainty = Certainty.NEVER_SENT) -> PublishResult:
    result = PublishResult("", 1, -1, encoded.nbytes, reason_code, encoded.datapoints)
    return result.with_certainty(certainty)


def _resolve(receipt: SendReceipt, result: PublishResult) -> None:
    # The future of a cancelled caller is done.
    if not receipt.done():
        receipt.set_result(result)
