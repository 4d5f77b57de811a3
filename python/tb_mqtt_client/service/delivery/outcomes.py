"""Handles the outcomes of messages: acknowledged, refused, unacknowledged when the connection ended, or too large to send.

The rule: each outcome is counted once, and then the message is resolved or queued again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tb_mqtt_client._native import Payload
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.logging_utils import ExtendedLogger, OccasionalLog, get_logger
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.constants.reason_codes import (
    DATA_REFUSALS,
    LIMITING_DISCONNECTS,
    QUOTA_REFUSALS,
    ReasonCode,
    reason_name,
)
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.delivery.delays import Delays
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.sub_devices import SubDeviceFilter
from tb_mqtt_client.service.delivery.suspects import CLEAR_BLAME, Suspects, is_suspicious
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.delivery.workers import RetryQueueWorker

logger: ExtendedLogger = get_logger(__name__)

SUSPICIOUS_LOSSES = 2
"""A message becomes a suspect when this many connections have ended while it was in flight."""
CLOSES_SECONDS = 60.0
"""Two connections that are closed without a reason code within this many seconds may have exceeded a limit."""
ANNOUNCEMENT_LOSSES = 3
"""An announcement counts as refused when this many connections have ended while it was in flight. The announcer repeats it later,
while no other announcement is in flight, see ``ends_connections``."""


class Outcomes:
    """Decides whether a message is resolved, published again, or published in parts."""

    def __init__(
        self,
        receipts: Receipts,
        futures: FutureMap,
        counter: DeliveryCounter,
        admission: Admission,
        retry: RetryQueueWorker,
        publish_service_again: Callable[[WorkItem], None],
        delays: Delays,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the object of one client.

        Args:
            receipts: Resolves the futures of messages.
            futures: Ties the futures of sends to those of messages.
            counter: Counts the datapoints by state.
            admission: Learns limits from refusals.
            retry: Publishes messages with datapoints again.
            publish_service_again: Queues a message without datapoints before all others of its queue.
            delays: Counts how long acknowledged messages took.
            clock: Returns monotonic seconds.
        """
        self._receipts = receipts
        self._futures = futures
        self._counter = counter
        self._admission = admission
        self._retry = retry
        self._publish_service_again = publish_service_again
        self._delays = delays
        self.sub_devices: SubDeviceFilter | None = None
        """The component of a gateway that holds data of sub-devices back; None for a plain device."""
        self._log = OccasionalLog(logger)
        self.suspects: Suspects = Suspects(self._halve, lambda: counter.messages_acknowledged)
        """Messages that may have ended a connection."""
        self._refused_for_now = False
        """Whether the server refused a message of this session for a quota or for a failure of its own, after which it ends the
        connection."""
        self._quota_notice = False
        """Whether the server sent a notice about a quota. Servers before 4.2.1 do that instead of refusing a message."""
        self._clock = clock
        self._closed_at: float | None = None
        """When a server closed a connection with messages in flight without a reason code, last."""
        self._last_of_qos_0: WorkItem | None = None
        """The last message of this session with QoS 0, which counts as acknowledged when it is written."""

    def acknowledged(self, item: WorkItem, reason_code: int) -> None:
        """Resolve a message by the reason code of its PUBACK, or publish it again if the refusal may be temporary."""
        if self.suspects.current is not None:
            self.suspects.settled(item)
        if not item.message.qos:
            self._last_of_qos_0 = item
        if reason_code == 0:
            if item.has_datapoints:
                self._counter.acknowledge(item.datapoints)
                self._delays.acknowledged(item)
            if self._admission.backpressure.has_paused:
                self._admission.backpressure.notify_acknowledged()
            self._receipts.resolve(item, reason_code)
            if item.of_sub_devices and self.sub_devices is not None:
                self.sub_devices.acknowledged(item)
        elif item.is_announcement:
            # The announcer repeats it. Here 0x97 means that the tenant has reached its limit of devices: for a limit of messages
            # the platform would end the connection (docs/platform_contract.md, section 4).
            self._receipts.resolve(item, reason_code)
        elif reason_code in QUOTA_REFUSALS:
            self._over_quota(item, reason_code)
        elif self._send_refused_in_parts(item, reason_code):
            self._counter.take_back(item.datapoints, item.superseded)
            logger.debug("%r was refused (%s): its data is sent again in parts", item, reason_name(reason_code))
        elif item.has_datapoints and reason_code == ReasonCode.UNSPECIFIED_ERROR:
            self._failed(item, reason_code)
        else:
            self._refused(item, reason_code)

    def noticed_quota(self) -> None:
        """Note that the server is about to end this session because sub-devices exceed a quota."""
        self._quota_notice = True
        self._admission.backpressure.notify_quota_exceeded()

    def _send_refused_in_parts(self, item: WorkItem, reason_code: int) -> bool:
        """Replace a refused message by one for each device, or that of one device by its halves, as far as that may help.

        Otherwise bad data of one send would also cost the sends whose data is in the same message.
        """
        item.note_refused()
        if item.devices > 1 or reason_code not in DATA_REFUSALS:
            return self.send_in_parts(item)
        halves = self._halve(item, False)
        if halves:
            self._retry.put(halves)
        return bool(halves)

    def _over_quota(self, item: WorkItem, reason_code: int) -> None:
        self._refused_for_now = True
        item.note_refused()
        self._admission.refused(item, f"PUBACK {reason_name(reason_code)}")
        limit = self._admission.likely_limit(item)
        text = "The platform refused %r for a quota, and it is sent again: %s. The limit: %s"
        self._log.warn_of(("for now", reason_code), text, item, reason_name(reason_code), limit)
        self._admission.backpressure.notify_quota_exceeded(limit=limit)
        if item.has_datapoints:
            self._counter.take_back(item.datapoints, item.superseded)
            self._retry.put([item])
        elif item.resend:
            self._publish_service_again(item)
        else:
            self._receipts.resolve(item, reason_code)

    def _failed(self, item: WorkItem, reason_code: int) -> None:
        self.suspects.count_failure(item)
        if self.suspects.is_to_blame(item):
            self._refused(item, reason_code)
            return
        self._refused_for_now = True
        item.note_failed()
        text = "The platform failed to take %r, and it is sent again: %s"
        self._log.warn_of(("failed", reason_code), text, item, reason_name(reason_code))
        self._admission.backpressure.notify_failure()
        self._counter.take_back(item.datapoints, item.superseded)
        if item.strikes and self.suspects.free_places():
            # The platform also ends the connection of a gateway: the message must not hold up the others again and again.
            self.suspects.add([item], self.suspects.interval)
        else:
            self._retry.put([item])

    def _refused(self, item: WorkItem, reason_code: int) -> None:
        text = "The platform rejected %r: %s"
        self._log.warn_of(("rejected", reason_code), text, item, reason_name(reason_code))
        if item.has_datapoints:
            self._counter.refuse(item.datapoints, item.superseded, reason_code)
        self._receipts.resolve(item, reason_code)

    def lost(self, items: list[WorkItem], end: SessionEnd) -> list[WorkItem]:
        """Handle the end of a connection; return the unacknowledged messages to be published again, in their old order."""
        items = [item for item in items if item.resend]
        for item in items:
            item.note_lost()
            if item.has_datapoints:
                self._counter.take_back(item.datapoints, item.superseded)
        in_flight, in_trial = items, self.suspects.current.items if self.suspects.current is not None else []
        items = [item for item in in_flight if item not in in_trial]
        if self._is_for_known_announcement(in_flight, end):
            self.suspects.end()
            items = self._without_announcements(items)
        elif self._is_for_limit(in_flight, end):
            self.suspects.end()
            if self._may_be_for_announcement(in_flight, end):
                items = self._without_announcements(items)
        else:
            if not self._may_be_for_limit(items, end):
                self._admission.connection_lost()
            self._reject(self.suspects.failed(end), end)
            if is_suspicious(end):
                items = self._without_suspects(items, end)
        self._refused_for_now = self._quota_notice = False
        self._last_of_qos_0 = None
        uplinks = [item for item in items if item.has_datapoints]
        if uplinks:
            datapoints = sum(item.datapoints for item in uplinks)
            logger.info("Sending %d datapoints in %d messages again: queued=%d", datapoints, len(uplinks), self._counter.queued)
        return items

    def _is_for_limit(self, items: list[WorkItem], end: SessionEnd) -> bool:
        """Return whether the connection ended because a limit was exceeded; if so, learn that limit."""
        if self._refused_for_now:
            return True
        if end.expected:
            return False
        if self._quota_notice:
            of_sub_devices = [item for item in items if item.of_sub_devices]
            self._learn_from(of_sub_devices, "notice of the platform about sub-devices")
            return True
        over_limit = over_limit_candidates(items, end.reason_code)
        if over_limit or end.reason_code in LIMITING_DISCONNECTS:
            assert end.reason_code is not None
            self._learn_from(over_limit, f"DISCONNECT {reason_name(end.reason_code)}")
            self._admission.backpressure.notify_disconnect()
            return True
        return False

    def _learn_from(self, items: list[WorkItem], source: str, *, is_guess: bool = False) -> None:
        """Learn a limit from messages in flight, or, if there are none, from messages with QoS 0, which are never in flight."""
        if items:
            self._admission.disconnected_for_limit(items, source, is_guess=is_guess)
        elif self._last_of_qos_0 is not None:
            self._admission.disconnected_for_limit_at_qos_0(self._last_of_qos_0, source, is_guess=is_guess)

    def _may_be_for_limit(self, items: list[WorkItem], end: SessionEnd) -> bool:
        """Return whether a limit may be why a server closes connections without a reason code; if so, publish more slowly.

        When a limit is exceeded, the platform closes an MQTT 3.1.1 connection without a packet (docs/platform_contract.md,
        section 0). It also does that for a message that it cannot read, and when it shuts down, so the first time proves nothing.

        Args:
            items: The messages in flight that are not suspects.
            end: The end of the connection.
        """
        if end.tells_reasons or not end.by_server or not (items or self._last_of_qos_0):
            return False
        last, self._closed_at = self._closed_at, self._clock()
        if last is None or self._closed_at - last > CLOSES_SECONDS:
            self._admission.retract(items)
            return False
        self._learn_from(items, "connections closed without a reason", is_guess=True)
        self._admission.backpressure.notify_disconnect()
        return True

    def _is_for_known_announcement(self, items: list[WorkItem], end: SessionEnd) -> bool:
        """Return whether an announcement that ended connections before was in flight, and is the likeliest cause of this end."""
        if self._refused_for_now or self._quota_notice or end.expected or isinstance(end.error, TimeoutError):
            return False
        return any(map(ends_connections, items)) and (is_suspicious(end) or end.reason_code in LIMITING_DISCONNECTS)

    def _may_be_for_announcement(self, items: list[WorkItem], end: SessionEnd) -> bool:
        """Return whether announcements are as likely as a limit to be the reason for the end of the connection."""
        if self._refused_for_now or self._quota_notice or end.expected:
            return False
        over_limit = over_limit_candidates(items, end.reason_code)
        return not over_limit or over_limit[0].is_announcement

    def _without_suspects(self, items: list[WorkItem], end: SessionEnd) -> list[WorkItem]:
        """Make suspects of the messages that may have caused the end of the connection; return the other messages.

        Without a clear reason code, one ended connection does not make a message a suspect: connections end for many reasons.
        """
        allowed = 1 if end.reason_code in CLEAR_BLAME else SUSPICIOUS_LOSSES
        kept: list[WorkItem] = []
        suspects: list[WorkItem] = []
        # After a timeout, only the oldest message is known to lack its PUBACK: those of the others may have been due later.
        silent = isinstance(end.error, TimeoutError)
        free_places = self.suspects.free_places()
        for item in items:
            if silent and item is not items[0]:
                kept.append(item)
                continue
            if item.is_announcement:
                kept += self._without_announcements([item])
            else:
                item.losses += 1
                is_suspect = item.losses >= allowed and len(suspects) < free_places
                (suspects if is_suspect else kept).append(item)
        self.suspects.add(suspects)
        return kept

    def _without_announcements(self, items: list[WorkItem]) -> list[WorkItem]:
        """Resolve announcements that reached ``ANNOUNCEMENT_LOSSES``; return the other messages.

        They get a reason code for which the announcer tries again, since another announcement may have ended the connections.
        """
        kept: list[WorkItem] = []
        for item in items:
            item.losses += item.is_announcement
            if ends_connections(item):
                self._receipts.resolve(item, ReasonCode.UNSPECIFIED_ERROR)
            else:
                kept.append(item)
        return kept

    def _reject(self, items: list[WorkItem], end: SessionEnd) -> None:
        """Reject messages for which the server ends every connection."""
        for item in items:
            self._given_up(item, _code_of(end), f"the server ends the connection whenever it is published ({end.cause})")

    def _halve(self, item: WorkItem, tears_sends: bool) -> list[WorkItem]:
        """Split a message in half, one of a single send only if ``tears_sends``; return the halves, or an empty list."""
        if item.packed is None or (len(item.packed.sources) < 2 and not tears_sends):
            return []
        if item.devices > 1:
            return self._cut(item, item.message.payload_size, 0, (item.devices + 1) // 2)
        return self._cut(item, item.message.payload_size, (item.packed.datapoints + 1) // 2, 0)

    def fits(self, item: WorkItem) -> bool:
        """Return whether a message is within the limits of this session; if not, send it in parts or reject it.

        A message that was packed in an earlier session may be too large, because the limits may have been wider.
        """
        changes = self._admission.changes
        limits = self._admission.payload_limits(of_sub_devices=item.of_sub_devices)
        max_size = limits.payload_size(item.message.topic)
        small_enough = item.message.payload_size <= max_size
        if small_enough and self._admission.is_within(item):
            item.checked = changes
            return True
        if not self._replace_by_parts(item, max_size, limits.max_datapoints, limits.max_devices):
            reason_code = ReasonCode.QUOTA_EXCEEDED if small_enough else ReasonCode.PACKET_TOO_LARGE
            self._given_up(item, reason_code, reason_name(reason_code))
        return False

    def _given_up(self, item: WorkItem, reason_code: int, why: str) -> None:
        text = "Giving up on %r (counted as rejected): %s"
        self._log.warn_of(("given up", reason_code), text, item, why)
        if item.has_datapoints:
            self._counter.refuse_queued(item.datapoints, reason_code)
        self._receipts.resolve(item, reason_code)

    def send_in_parts(self, item: WorkItem) -> bool:
        """Replace a message of several devices by one for each, so that only bad data is refused; return False for one device."""
        return item.devices > 1 and self._replace_by_parts(item, item.message.payload_size, 0, 1)

    def _replace_by_parts(self, item: WorkItem, max_size: int, max_datapoints: int, max_devices: int) -> bool:
        """Queue smaller messages in place of a message; return False if it cannot be split."""
        parts = self._cut(item, max_size, max_datapoints, max_devices)
        if parts:
            self._retry.put(parts)
        return bool(parts)

    def _cut(self, item: WorkItem, max_size: int, max_datapoints: int, max_devices: int) -> list[WorkItem]:
        """Split a message, and make its sends wait for the parts; return the parts, or an empty list if it cannot be split."""
        if item.packed is None:
            return []
        # The name of a renamed device may be longer than the one that is packed.
        growth = max(0, item.message.payload_size - len(item.packed.data))
        payloads = item.packed.split(max_size - growth, max_datapoints, max_devices)
        if len(payloads) < 2:
            return []
        parts = [part_of(item, payload, self.sub_devices) for payload in payloads]
        sources = [(part.futures[0], payload.sources) for part, payload in zip(parts, payloads, strict=True)]
        self._futures.replace_child(item.futures[0], sources)
        return parts


def part_of(item: WorkItem, payload: Payload, sub_devices: SubDeviceFilter | None) -> WorkItem:
    """Return a message with one of the payloads into which the payload of `item` was split."""
    # With the datapoints that a later value in the payload replaces.
    total = sum(datapoints for _, datapoints in payload.sources)
    whole = item.message
    message = MqttPublishMessage(whole.topic, payload.data, whole.qos, datapoints=total, route=whole.route)
    part = WorkItem(message, [asyncio.get_running_loop().create_future()], total)
    part.packed, part.devices, part.superseded = payload, payload.devices, total - payload.datapoints
    part.payload_limit, part.losses, part.certainty = item.payload_limit, item.losses, item.certainty
    part.accepted_at = item.accepted_at
    if item.device is not None:
        assert sub_devices is not None
        [packed_for] = payload.device_identities()
        sub_devices.rename(part, packed_for, item.device)
    return part


def ends_connections(item: WorkItem) -> bool:
    """Return whether an announcement has been in flight at the end of so many connections that it may be their cause."""
    return item.is_announcement and item.losses >= ANNOUNCEMENT_LOSSES


def _code_of(end: SessionEnd) -> int:
    return end.reason_code if end.reason_code is not None else ReasonCode.UNSPECIFIED_ERROR


def over_limit_candidates(items: list[WorkItem], reason_code: int | None) -> list[WorkItem]:
    """Return the messages in flight that may have exceeded a limit, if the DISCONNECT has a reason code for exceeded limits.

    The platform sends 0x83 for a limit of the device's own traffic, and 0x8B for a limit that is exceeded while it creates the
    session of a sub-device (docs/platform_contract.md, sections 0 and 4).
    """
    if reason_code == ReasonCode.SERVER_SHUTTING_DOWN:
        return [item for item in items if item.is_announcement]
    if reason_code not in LIMITING_DISCONNECTS:
        return []
    if reason_code == ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR:
        return [item for item in items if not item.of_sub_devices]
    return items
