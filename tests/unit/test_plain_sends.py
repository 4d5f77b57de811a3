"""Sends that are encoded straight into a native queue are accepted, counted and ordered as all other sends are."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_queues import Queues

from engine_parts import engine_of
from tb_mqtt_client import DeviceClient, QueueFullError
from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.constants.option_values import Priority, QueuePolicy
from tb_mqtt_client.service.delivery.terms import send_terms
from tb_mqtt_client.service.delivery.work_item import NUMBER

POLICIES = [QueuePolicy.RAISE, QueuePolicy.DROP_NEWEST]


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
        return queues.send_attributes(number, argument)
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
    assert queues.plain.gathers
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
    assert service.intake.plain is None


async def test_closed_queues_gather_nothing():
    queues = await queues_with(3)
    queues.intake.close()
    assert await queues.send_plain({"a": 1}, None, is_light=True) is None
    assert not queues.plain.gathers
    assert queues.counter.accepted == queues.capacity.sends == 3


@pytest.mark.parametrize("takes", ["packing", "looking"])
async def test_each_send_has_the_number_of_a_mark_before_it(takes):
    queues = await queues_with(0)
    # No further mark, however slow the test is.
    queues.intake._accept_times.interval = 3600
    queues.intake._stop_marking()
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


@pytest.mark.parametrize("is_light", [True, False])
def test_nothing_is_gathered_while_the_loop_does_not_run(is_light):
    loop = asyncio.new_event_loop()
    queues = loop.run_until_complete(queues_with(2))
    gather = queues.plain.gather_delivery if is_light else queues.plain.gather
    assert gather({"a": 1}, 0) is None
    loop.close()


@pytest.mark.parametrize("is_light", [True, False])
async def test_another_thread_gathers_nothing(is_light):
    queues = await queues_with(2)
    gather = queues.plain.gather_delivery if is_light else queues.plain.gather
    assert await asyncio.to_thread(gather, {"a": 1}, 0) is None
    assert len(queues.plain.gathering) == 2
    assert gather({"a": 1}, 0) is not None
