"""Sends that are encoded straight into a native queue are accepted, counted and ordered as all other sends are."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, QueueFullError
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.constants.option_values import Priority, QueuePolicy
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.delays import AcceptTimes
from tb_mqtt_client.service.delivery.expiry import Expiry
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.lanes import BatchBounds, LaneQueue
from tb_mqtt_client.service.delivery.plain_sends import PlainSends
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.terms import send_terms
from tb_mqtt_client.service.delivery.work_item import ENCODED, FUTURE, NUMBER

POLICIES = [QueuePolicy.RAISE, QueuePolicy.DROP_NEWEST]
TURN = 4


class Queues:
    """The device uplink queue with its intake. Receipts are compared by the numbers of their sends."""

    def __init__(self, policy, max_sends, max_bytes, *, has_plain):
        self.counter, self.capacity = DeliveryCounter(), QueueCapacity(max_sends, max_bytes)
        self.fills = []
        self.capacity.on_fill_changed = lambda: self.fills.append((self.capacity.is_high, self.capacity.sends))
        plain = PlainSends(self.capacity, self.counter, round_floats=True) if has_plain else None
        self.queue = LaneQueue(plain)
        self.plain = plain
        self.receipts = Receipts(FutureMap(), self.counter, self.capacity)
        parts = AsyncDeque(), self.queue, self.capacity, self.counter, self.receipts, policy, TURN
        self.intake = Intake(*parts, lambda: None, Expiry(lambda: 0, self.leave), AcceptTimes(lambda: None), plain)
        self.intake.open()
        self.numbers = {}
        self.gathered = 0

    def leave(self, uplinks):
        for uplink in uplinks:
            self.intake.drop(uplink)

    async def gather(self, data, *, is_light=False):
        """Do what `Engine.gather_delivery`, or `Engine.gather` and `Engine.gather_in_turn` do."""
        intake = self.intake
        for _ in range(2):
            if is_light:
                may_push = intake.gathers or intake.begin_gathering()
            else:
                may_push = intake.gathers_in_turn or await intake.begin_gathering_in_turn()
            if not may_push:
                return None
            receipt = intake.create_delivery() if is_light else intake.create_future()
            if queued := intake.push(data, 0, receipt):
                if queued == 1:
                    intake.wake_worker()
                return receipt
            intake.stop_gathering()
        return None

    async def send(self, number, data, terms):
        """Send as `send_timeseries` and `enqueue_timeseries` do; return whether it was accepted."""
        is_light = number % 2
        receipt = None
        if terms is None:
            receipt = await self.gather(data, is_light=is_light)
            self.gathered += receipt is not None
        try:
            if receipt is None:
                encoded = EncodedUplink.timeseries(data, 0, None, True)
                if is_light:
                    receipt = self.intake.enqueue(encoded, terms)
                else:
                    receipt = self.intake.try_accept(encoded, terms) or await self.intake.accept(encoded, terms)
        except QueueFullError:
            return False
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


data = st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**6) | st.text("xyz", max_size=40), min_size=1)
bounds = st.tuples(st.integers(1, 6), st.integers(1, 80), st.integers(1, 8))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), data),
        st.tuples(st.just("send"), data),
        st.tuples(st.just("send"), data),
        st.tuples(st.just("low"), data),
        st.tuples(st.just("attributes"), st.integers(0, 9)),
        st.tuples(st.just("take"), bounds),
        st.tuples(st.just("return"), bounds),
        st.tuples(st.just("withdraw"), st.integers(0, 40)),
        st.tuples(st.just("look"), st.none()),
    ),
    max_size=40,
)


async def step(queues, number, kind, argument):
    """Do a step of a test; return what can be seen of it."""
    if kind == "send":
        return await queues.send(number, argument, None)
    if kind == "low":
        return await queues.send(number, argument, send_terms(Priority.LOW, None, lambda: 0))
    if kind == "attributes":
        try:
            receipt = queues.intake.enqueue(EncodedUplink.attributes({"a": argument}, None, True))
        except QueueFullError:
            return "full"
        queues.numbers[receipt] = number
        return receipt.done()
    if kind == "take":
        return queues.take(argument)
    if kind == "return":
        # As after an error while packing: the sends go back to the front.
        uplinks = queues.queue.pop_now(argument[0])
        queues.queue.prepend_all(uplinks)
        return queues.of(uplinks)
    if kind == "withdraw":
        return queues.withdraw(argument)
    return queues.of(queues.queue.items_now())


@pytest.fixture(scope="module")
def runner():
    """Run the examples of a test in one event loop, which saves most of the time."""
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=200, deadline=None)
@given(
    steps=steps,
    policy=st.sampled_from(POLICIES),
    max_sends=st.integers(1, 12),
    max_bytes=st.integers(20, 400),
    uses_terms=st.booleans(),
)
def test_nothing_differs_from_a_queue_of_objects(runner, steps, policy, max_sends, max_bytes, uses_terms):
    async def compare():
        both = [Queues(policy, max_sends, max_bytes, has_plain=has_plain) for has_plain in (True, False)]
        for number, (kind, argument) in enumerate(steps):
            used = "send" if kind == "low" and not uses_terms else kind
            seen = [await step(queues, number, used, argument) for queues in both]
            assert seen[0] == seen[1]
            assert both[0].state() == both[1].state()
            assert both[0].capacity.sends <= max_sends
        assert both[0].of(both[0].queue.items_now()) == both[1].of(both[1].queue.items_now())

    runner.run(compare())


async def queues_with(count, **options):
    """Return queues with sends that were gathered."""
    queues = Queues(**({"policy": QueuePolicy.RAISE, "max_sends": 1000, "max_bytes": 10**6, "has_plain": True} | options))
    for number in range(count):
        await queues.send(number, {"a": number}, None)
    return queues


async def test_sends_are_gathered():
    queues = await queues_with(40)
    assert queues.gathered == len(queues.plain.gathering) == 40
    assert queues.take((1, 10**6, 10**6)) == [0]
    assert queues.take((1000, 10**6, 10**6)) == list(range(1, 40))


async def test_other_sends_find_the_capacity_that_was_lent():
    queues = await queues_with(2, max_sends=10)
    assert queues.intake.gathers
    attributes = EncodedUplink.attributes({"a": 1}, None, True)
    for _ in range(8):
        queues.intake.enqueue(attributes)
    with pytest.raises(QueueFullError, match="10 sends"):
        queues.intake.enqueue(attributes)
    assert queues.fills == [(True, 8)]


@pytest.mark.parametrize(
    "options",
    [{"queue_policy": "drop_oldest"}, {"timestamps": "server"}, {"clock": "wait"}],
    ids=lambda options: next(iter(options)),
)
async def test_sends_about_which_something_is_decided_are_not_gathered(options):
    service = engine_of(DeviceClient({"host": "localhost", "access_token": "TOKEN"} | options)).message_service
    service.open()
    for _ in range(3):
        assert not service.intake.gathers
        await service.intake.accept(EncodedUplink.timeseries({"a": 1}, 0, None, True))
    assert not service.intake.gathers


async def test_closed_queues_gather_nothing():
    queues = await queues_with(3)
    queues.intake.close()
    assert await queues.gather({"a": 1}, is_light=True) is None
    assert not queues.intake.gathers
    assert queues.counter.accepted == queues.capacity.sends == 3


@pytest.mark.parametrize("takes", ["packing", "looking"])
async def test_each_send_has_the_number_of_a_mark_before_it(takes):
    queues = await queues_with(0)
    marked, number = [], 0
    for sends in (3, 1, 0, 5):
        queues.intake._mark_next()
        marked += [number + 1] * sends
        for _ in range(sends):
            await queues.send(number, {"a": number}, None)
            number += 1
    if takes == "looking":
        assert [uplink[NUMBER] for uplink in queues.queue.items_now()] == marked
        return
    numbers = []
    while not queues.queue.is_empty():
        numbers.append(queues.queue.first_plain_number)
        assert queues.queue.oldest()[0][1] == numbers[-1]
        queues.take((1, 10**6, 10**6))
    assert numbers == marked
    assert queues.queue.first_plain_number is None


@pytest.mark.parametrize("has_plain", [True, False])
async def test_closed_queues_still_make_receipts(has_plain):
    """A send that was waiting when the client was stopped gets one, for its result."""
    queues = await queues_with(0, has_plain=has_plain)
    queues.intake.close()
    assert not queues.intake.create_future().done()
    assert not queues.intake.create_delivery().done()
