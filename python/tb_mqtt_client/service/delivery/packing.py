"""From queued sends to the messages that carry their data, for a device and for a gateway's sub-devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

from tb_mqtt_client._native import EncodedUplink, GatheredSends, PackedUplinks, pack_attributes, pack_timeseries
from tb_mqtt_client.common.async_utils import DeliveryFuture, FutureMap, SendReceipt
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.mqtt_topics import (
    DEVICE_ATTRIBUTES_TOPIC,
    DEVICE_TELEMETRY_TOPIC,
    GATEWAY_ATTRIBUTES_TOPIC,
    GATEWAY_TELEMETRY_TOPIC,
    route_of,
)
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.service.delivery.payload_limits import PayloadLimits
from tb_mqtt_client.service.delivery.work_item import ENCODED, FUTURE, QueuedUplink, WorkItem

Packing = Callable[..., PackedUplinks]
_encoded_of: Callable[[QueuedUplink], EncodedUplink] = itemgetter(ENCODED)
_receipt_of: Callable[[QueuedUplink], SendReceipt] = itemgetter(FUTURE)


class Oversized(NamedTuple):
    """A datapoint that is too large for any payload."""

    key: str
    result: PublishResult
    future: DeliveryFuture


class PackedBatch(NamedTuple):
    """The result of packing a batch of sends."""

    items: list[WorkItem]
    oversized: list[Oversized]
    values_rounded: int
    """Values that were rounded, so that the platform stores numbers."""
    values_stored_as_text: int
    """Numbers that the platform stores as text."""
    suspicious_ts: list[int]
    """Timestamps that are not likely to be in milliseconds: the first of each kind of datapoints."""
    is_remarkable: bool
    """Whether there is anything to report about the batch."""


class UplinkPacker:
    """Packs sends into payloads for one pair of topics, and ties each send's future to the messages that carry its data."""

    stamped: Callable[[EncodedUplink], EncodedUplink] | None = None
    """Gives the data of a send its time, if the clock of the device may not have been set when it was sent."""

    def __init__(self, timeseries_topic: str, attributes_topic: str, future_map: FutureMap, *, of_sub_devices: bool) -> None:
        """Create a packer.

        Args:
            timeseries_topic: The topic of messages with timeseries.
            attributes_topic: The topic of messages with attributes.
            future_map: Ties the futures of sends to those of messages.
            of_sub_devices: Whether payloads name the devices.
        """
        self._topics = tuple((topic, route_of(topic)) for topic in (timeseries_topic, attributes_topic))
        self._futures = future_map
        self.of_sub_devices = of_sub_devices

    def pack(
        self, uplinks: Sequence[QueuedUplink] | GatheredSends, qos: int, limits: PayloadLimits, checked: int = -1
    ) -> PackedBatch:
        """Write timeseries, then attributes, into as few payloads as the limits allow.

        Args:
            uplinks: The sends, in their order.
            qos: The QoS of the messages.
            limits: Bounds of each message.
            checked: The state of the limits, see `WorkItem.checked`.

        Returns:
            The messages, and datapoints that fit in none.
        """
        encoded: list[EncodedUplink] | GatheredSends
        send_futures: list[SendReceipt]
        packings = self._packings()
        if isinstance(uplinks, GatheredSends):
            encoded, send_futures = uplinks, uplinks.receipts
            # These have no attributes.
            packings = packings[:1]
        else:
            encoded, send_futures = list(map(_encoded_of, uplinks)), list(map(_receipt_of, uplinks))
            if self.stamped is not None:
                encoded = list(map(self.stamped, encoded))
        packed: list[PackedUplinks] = []
        # All payloads are written first: after an error, no send may wait for a message that is never published.
        for pack in packings:
            payloads = pack(
                encoded,
                gateway=self.of_sub_devices,
                max_size=limits.max_payload_size,
                max_datapoints=limits.max_datapoints,
                max_devices=limits.max_devices,
            )
            packed.append(payloads)
        create_future = asyncio.get_running_loop().create_future
        items: list[WorkItem] = []
        all_oversized: list[Oversized] = []
        register_shares, register_whole_sends = self._futures.register_shares, self._futures.register_whole_sends
        are_whole = _are_whole(packed)
        for (topic, route), payloads in zip(self._topics, packed, strict=False):
            for payload in payloads.payloads:
                future: DeliveryFuture = create_future()
                parents, shares = payload.of_sources(send_futures)
                # With the datapoints that a later value in the payload replaces.
                if isinstance(shares, int):
                    total = shares * len(parents)
                    counts: Iterable[int] = repeat(shares)
                else:
                    total = sum(shares)
                    counts = shares
                if are_whole:
                    register_whole_sends(future, parents, shares)
                else:
                    register_shares(future, list(zip(parents, counts, strict=False)))
                message = MqttPublishMessage(topic, payload.data, qos, datapoints=total, route=route)
                item = WorkItem(message, [future], total)
                item.devices = payload.devices
                item.superseded = total - payload.datapoints
                item.payload_limit = limits.max_payload_size
                item.packed = payload
                item.checked = checked
                items.append(item)
            if payloads.oversized:
                all_oversized += self._refuse(payloads, topic, qos, send_futures)
        # Last, when the future of every send waits for all messages that carry its data.
        for oversized in all_oversized:
            self._futures.child_resolved(oversized.future)
        return _batch(items, all_oversized, packed)

    def _refuse(self, payloads: PackedUplinks, topic: str, qos: int, send_futures: list[SendReceipt]) -> list[Oversized]:
        """Return the datapoints that fit in no payload, with their results, for which their sends wait."""
        found: list[Oversized] = []
        for index, key, size in payloads.oversized:
            future: DeliveryFuture = asyncio.get_running_loop().create_future()
            self._futures.register_shares(future, [(send_futures[index], 1)])
            result = PublishResult(topic, qos, -1, size, ReasonCode.PACKET_TOO_LARGE, 1)
            future.set_result(result)
            found.append(Oversized(key, result, future))
        return found

    def _packings(self) -> tuple[Packing, ...]:
        if not self.of_sub_devices:
            return pack_timeseries, pack_attributes
        # Telemetry with metadata contains the time of its publishing, which has to be estimated when the payload is written.
        return partial(pack_timeseries, now_ms=now_ms()), pack_attributes


def _are_whole(packed: list[PackedUplinks]) -> bool:
    """Return True if each send of a batch is in one message, so that no send has to be counted on its own."""
    if len(packed) == 1:
        return packed[0].is_one_to_one
    return [payloads.is_one_to_one for payloads in packed if payloads.payloads or payloads.oversized] == [True]


def _batch(items: list[WorkItem], oversized: list[Oversized], packed: list[PackedUplinks]) -> PackedBatch:
    rounded = stored_as_text = 0
    suspicious_ts: list[int] = []
    for payloads in packed:
        conversions = payloads.conversions
        rounded += conversions[0]
        stored_as_text += conversions[1]
        if payloads.suspicious_ts is not None:
            suspicious_ts.append(payloads.suspicious_ts)
    is_remarkable = bool(oversized or suspicious_ts or rounded or stored_as_text)
    return PackedBatch(items, oversized, rounded, stored_as_text, suspicious_ts, is_remarkable)


def device_packer(future_map: FutureMap) -> UplinkPacker:
    """Return a packer for the connected device's own data."""
    return UplinkPacker(DEVICE_TELEMETRY_TOPIC, DEVICE_ATTRIBUTES_TOPIC, future_map, of_sub_devices=False)


def sub_device_packer(future_map: FutureMap) -> UplinkPacker:
    """Return a packer for data of a gateway's sub-devices."""
    return UplinkPacker(GATEWAY_TELEMETRY_TOPIC, GATEWAY_ATTRIBUTES_TOPIC, future_map, of_sub_devices=True)


def queued_uplink(message: MqttPublishMessage, encoded: EncodedUplink) -> EncodedUplink:
    """Return the datapoints of an uplink message; those without a time get the time of the message."""
    if encoded.main_ts is None and message.main_ts is not None:
        return encoded.with_main_ts(message.main_ts)
    return encoded
