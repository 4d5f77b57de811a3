"""From queued calls to the publishes that carry them: what a device and a gateway share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, PackedUplinks, pack_attributes, pack_timeseries
from tb_mqtt_client.common.async_utils import Delivery, FutureMap
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.entities.data.lazy_delivery import new_delivery
from tb_mqtt_client.service.base_message_splitter import BaseMessageSplitter


@dataclass(frozen=True, slots=True)
class MessageBounds:
    """Bounds that rate limits set: a message with more than a limit's capacity could never be admitted. 0 stands for no bound."""

    datapoints: int = 0
    devices: int = 0


NO_BOUNDS = MessageBounds()


def smallest_bound(*bounds: int) -> int:
    """Return the smallest of bounds in which 0 stands for no bound."""
    return min((bound for bound in bounds if bound), default=0)


QueuedUplink: TypeAlias = tuple[EncodedUplink, Delivery, int]
"""One accepted call: its datapoints, the future that its caller waits for, and how many calls came before, where somebody has to
know. A plain tuple: there may be a million of them."""
Queued: TypeAlias = QueuedUplink | MqttPublishMessage
"""A send whose data is not packed yet, or a message."""
ENCODED: Final = 0
DELIVERY: Final = 1
NUMBER: Final = 2


Packing = Callable[..., PackedUplinks]


class Oversized(NamedTuple):
    """A datapoint that fits in no payload."""

    key: str
    result: PublishResult
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """What a batch of calls became."""

    messages: list[MqttPublishMessage]
    oversized: list[Oversized]
    conversions: list[tuple[int, int]]
    """Values that were rounded, and values of which the platform makes text; to be added up."""
    suspicious_ts: list[int]
    """Timestamps that are not likely to be in milliseconds: the first of each kind of datapoints."""


class UplinkPacker:
    """Packs calls into payloads for one pair of topics, and ties each call's future to the publishes that carry it."""

    def __init__(
        self,
        timeseries_topic: str,
        attributes_topic: str,
        splitter: BaseMessageSplitter,
        future_map: FutureMap,
        *,
        gateway: bool,
    ) -> None:
        self._topics = timeseries_topic, attributes_topic
        self._splitter = splitter
        self.future_map = future_map
        self.gateway = gateway
        self.max_devices = 1

    @property
    def payload_budget(self) -> int:
        """Bytes of one payload."""
        return self._splitter.payload_budget

    @property
    def max_datapoints(self) -> int:
        """Datapoints of one payload, 0 for no limit."""
        return self._splitter.max_datapoints

    def pack(self, uplinks: Sequence[QueuedUplink], qos: int, bounds: MessageBounds = NO_BOUNDS) -> PackedBatch:
        """Write timeseries, then attributes, into as few payloads as ``bounds`` and the splitter's limits allow."""
        encoded = [encoded for encoded, _, _ in uplinks]
        deliveries = [delivery for _, delivery, _ in uplinks]
        splitter = self._splitter
        max_datapoints = smallest_bound(splitter.max_datapoints, bounds.datapoints)
        max_devices = smallest_bound(self.max_devices, bounds.devices)
        # Telemetry with metadata says when it is published: now is as near to that as a payload's size allows.
        packings: tuple[Packing, ...] = partial(pack_timeseries, now_ms=now_ms()), pack_attributes
        max_size = splitter.payload_budget
        # All payloads first: an error there must not leave calls tied to messages that are never sent.
        packed = [
            pack(encoded, gateway=self.gateway, max_size=max_size, max_datapoints=max_datapoints, max_devices=max_devices)
            for pack in packings
        ]
        batch = PackedBatch([], [], [], [])
        for topic, payloads in zip(self._topics, packed, strict=True):
            self._collect(payloads, deliveries, topic, qos, max_size, batch)
        # Last, when every call is tied to all its parts: an answer now is an answer for the whole call.
        for oversized in batch.oversized:
            self.future_map.child_resolved(oversized.delivery)
        return batch

    def _collect(
        self,
        packed: PackedUplinks,
        deliveries: Sequence[Delivery],
        topic: str,
        qos: int,
        max_size: int,
        batch: PackedBatch,
    ) -> None:
        batch.conversions.append(packed.conversions)
        if packed.suspicious_ts is not None:
            batch.suspicious_ts.append(packed.suspicious_ts)
        create_future = _future_maker()
        for payload in packed.payloads:
            delivery: Delivery = create_future()
            owners = [(deliveries[index], datapoints) for index, datapoints in payload.sources]
            self.future_map.register_owners(delivery, owners)
            answered_for = sum([datapoints for _, datapoints in owners])
            message = MqttPublishMessage(topic, payload.data, qos, datapoints=answered_for, delivery_futures=[delivery])
            message.devices = payload.devices
            message.superseded = answered_for - payload.datapoints
            message.payload_limit = max_size
            message.packed = payload
            batch.messages.append(message)
        for index, key, size in packed.oversized:
            delivery = create_future()
            self.future_map.register_owners(delivery, [(deliveries[index], 1)])
            result = PublishResult(topic, qos, -1, size, ReasonCode.PACKET_TOO_LARGE, 1)
            delivery.set_result(result)
            batch.oversized.append(Oversized(key, result, delivery))


def devices_of(message: MqttPublishMessage) -> list[DeviceIdentity]:
    """Return the sub-devices that a message is of."""
    if message.device is not None:
        return [message.device]
    return message.packed.device_identities() if message.packed is not None else []


def _future_maker() -> Callable[[], Delivery]:
    """Return what makes futures; programs use adapters where no event loop runs, too."""
    try:
        return asyncio.get_running_loop().create_future
    except RuntimeError:
        return new_delivery


def queued_uplink(message: MqttPublishMessage, encoded: EncodedUplink) -> QueuedUplink:
    """The datapoints of an uplink message, with the message's time for those that have none."""
    if encoded.main_ts is None and message.main_ts is not None:
        encoded = encoded.with_main_ts(message.main_ts)
    return encoded, message.delivery_futures[0], 0
