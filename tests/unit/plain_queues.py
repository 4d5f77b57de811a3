"""The uplink queues of a device and of a gateway, with their intake, for tests of plain sends."""

from threading import get_ident

from tb_mqtt_client import QueueFullError
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.service.call_guard import CallGuard
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.delays import AcceptTimes
from tb_mqtt_client.service.delivery.expiry import Expiry
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.lanes import BatchBounds, LaneQueue
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.work_item import ENCODED, FUTURE
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.gateway.gate import DeviceGate, RefusedShare
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic
from tb_mqtt_client.service.life_cycle import ClientState, LifeCycle
from tb_mqtt_client.service.sends import Sends

TURN = 4


class Queues:
    """The device uplink queue with its intake. Receipts are compared by the numbers of their sends."""

    # What a client does with plain sends.
    begin_gathering, begin_gathering_now = Sends.begin_gathering, Sends.begin_gathering_now
    stamp = staticmethod(now_ms)

    def __init__(self, policy, max_sends, max_bytes, *, has_plain):
        self.counter, self.capacity = DeliveryCounter(), QueueCapacity(max_sends, max_bytes)
        self.fills = []
        self.capacity.on_fill_changed = lambda: self.fills.append((self.capacity.is_high, self.capacity.sends))
        self.has_plain = has_plain
        own = self.new_queue()
        self.initial = AsyncDeque()
        self.receipts = Receipts(FutureMap(), self.counter, self.capacity)
        parts = self.initial, own, self.capacity, self.counter, self.receipts, policy, TURN
        self.intake = Intake(*parts, lambda: None, Expiry(lambda: 0, self.leave), AcceptTimes(lambda: None), own.plain)
        self.queue, self.plain = own, own.plain
        self.intake.open()
        self.numbers = {}
        self.gathered = 0
        self._guard = CallGuard(LifeCycle())
        self._guard.thread, self._guard.is_loop_running = get_ident(), lambda: True
        self._guard.life.change(ClientState.CONNECTING)

    def new_queue(self):
        return LaneQueue(PlainSends(self.capacity, self.counter, round_floats=True) if self.has_plain else None)

    def leave(self, uplinks):
        for uplink in uplinks:
            self.intake.drop(uplink)

    async def send_plain(self, data, device, *, is_light):
        """Send as `send_timeseries` and `enqueue_timeseries` do; return the receipt of a gathered send."""
        plain = self.plain
        if plain is None:
            return None
        if is_light:
            delivery = plain.gather_delivery(data, 0, device)
            if delivery is None and self.begin_gathering_now(plain):
                delivery = plain.gather_delivery(data, 0, device)
            return delivery
        future = plain.gather(data, 0, device)
        if future is None and not plain.gathers_in_turn and await self.begin_gathering(plain):
            future = plain.gather(data, 0, device)
        return future

    def is_free(self, _device):
        return True

    async def send(self, number, data, terms, device=None):
        """Send timeseries; return whether the outcome is known at once, which is False for a send that was refused."""
        is_light = number % 2
        receipt = None
        if terms is None and self.is_free(device):
            receipt = await self.send_plain(data, device, is_light=is_light)
            self.gathered += receipt is not None
        try:
            if receipt is None:
                encoded = EncodedUplink.timeseries(data, 0, device, True)
                if is_light:
                    receipt = self.intake.enqueue(encoded, terms)
                else:
                    receipt = self.intake.try_accept(encoded, terms) or await self.intake.accept(encoded, terms)
        except QueueFullError:
            return False
        self.numbers[receipt] = number
        return receipt.done()

    def send_attributes(self, number, value, device=None):
        """Send an attribute; return whether the outcome is known at once."""
        try:
            receipt = self.intake.enqueue(EncodedUplink.attributes({"a": value}, device, True))
        except QueueFullError:
            return "full"
        self.numbers[receipt] = number
        return receipt.done()

    def take(self, bounds):
        """Take a batch, as a worker does; return the numbers of its sends."""
        if self.queue.has_lanes:
            taken = self.queue.take_batch(BatchBounds(bounds[1], bounds[2], sends=bounds[0]), 0)
            uplinks, nbytes = taken.uplinks, taken.nbytes
        elif (plain := self.queue.take_plain(*bounds)) is not None:
            taken, _ = plain
            self.capacity.give_back(len(taken), taken.nbytes)
            return [self.numbers[receipt] for receipt in taken.receipts]
        else:
            self.queue.take_in_plain()
            uplinks, sums = [], (0, 0, 0)
            while not self.queue.is_empty() and all(one < bound for one, bound in zip(sums, bounds, strict=True)):
                uplinks.append(self.queue.take_now())
                encoded = [uplink[ENCODED] for uplink in uplinks]
                sums = len(uplinks), sum([one.nbytes for one in encoded]), sum([one.datapoints for one in encoded])
            nbytes = sums[1]
        self.capacity.give_back(len(uplinks), nbytes)
        return self.of(uplinks)

    def of(self, uplinks):
        return [self.numbers[uplink[FUTURE]] for uplink in uplinks]

    def withdraw(self, number):
        uplink = self.queue.remove_first(lambda uplink: self.numbers[uplink[FUTURE]] == number)
        if uplink is not None:
            self.intake.drop(uplink)
        return uplink is not None

    def state(self):
        self.intake.count_gathered()
        counts = self.counter.snapshot()
        sums = counts.accepted, counts.queued, counts.dropped, self.capacity.sends, self.capacity.nbytes, self.capacity.is_high
        return (*sums, len(self.queue), self.queue.is_empty(), self.queue.filled.is_set(), self.fills)


class GatewayQueues(Queues):
    """The gateway uplink queue, with the component that holds data of sub-devices back; the device uplink queue is there, too."""

    def __init__(self, policy, max_sends, max_bytes, *, has_plain):
        super().__init__(policy, max_sends, max_bytes, has_plain=has_plain)
        self.queue = self.new_queue()
        self.plain = self.queue.plain
        self.rejections = []
        share = RefusedShare(max_sends, max_bytes, TURN)
        self.traffic = SubDeviceTraffic(self, DeviceGate(share), JsonGatewayFormat(), lambda _: None)
        if not has_plain:
            # All sends are routed.
            self.traffic.is_free = lambda _: False
        self.intake.plug_in(self.traffic, self.queue)
        self.intake.open()
        self.queue_uplinks = self.queue.append_all

    def is_free(self, device):
        return self.traffic.gate.is_free(device)

    def route(self):
        """Do what the loop of the initial queue does."""
        self.traffic.put_uplinks(self.initial.pop_now(len(self.initial)))

    def held(self):
        return self.of(self.traffic.held())

    def state(self):
        gate = self.traffic.gate
        return (*super().state(), self.held(), gate.share.messages, gate.share.bytes, self.rejections)

    # The pipeline of the component.

    def take_queued_uplinks(self):
        return self.queue.pop_now(len(self.queue))

    def take_queued_messages(self):
        return []

    def undelivered(self, uplink):
        self.rejections.append(self.numbers[uplink[FUTURE]])
        self.receipts.undelivered(uplink)

    def rejected(self, uplink, announcement):
        self.rejections.append(self.numbers[uplink[FUTURE]])
        self.receipts.rejected(uplink, announcement)

    def check_packed_again(self):
        """Do nothing: no worker has packed anything."""

    def note_removed(self):
        """Nothing waits for empty queues."""
