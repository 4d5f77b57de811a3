"""Plain sends of sub-devices go directly to the gateway uplink queue, and are held back, moved and ordered as all others are."""

from hypothesis import given, settings
from hypothesis import strategies as st
from plain_queues import GatewayQueues

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.constants.option_values import Priority, QueuePolicy
from tb_mqtt_client.service.delivery.terms import send_terms
from tb_mqtt_client.service.delivery.work_item import ENCODED, WorkItem

DEVICES = A, B, C = [DeviceIdentity(name) for name in "ABC"]
REFUSAL = PublishResult("v1/gateway/connect", 1, 1, 1, 0x87)

devices = st.sampled_from(DEVICES)
bounds = st.tuples(st.integers(1, 6), st.integers(1, 80), st.integers(1, 8))
data = st.dictionaries(st.sampled_from("ab"), st.integers(0, 10**6) | st.text("xyz", max_size=40), min_size=1)
steps = st.lists(
    st.one_of(
        *[st.tuples(st.just("send"), devices, data)] * 4,
        st.tuples(st.sampled_from(["low", "own"]), devices, data),
        st.tuples(st.just("attributes"), devices, st.integers(0, 9)),
        st.tuples(st.sampled_from(["hold", "release", "refuse", "fail", "abandon", "hold all", "route"]), devices, st.none()),
        st.tuples(st.just("move"), devices, devices | st.none()),
        st.tuples(st.just("take"), st.none(), bounds),
        st.tuples(st.just("withdraw"), st.none(), st.integers(0, 40)),
    ),
    max_size=40,
)


async def step(queues, number, kind, device, argument):
    """Do a step of a test; return what can be seen of it."""
    if kind == "send":
        return await queues.send(number, argument, None, device)
    if kind == "low":
        return await queues.send(number, argument, send_terms(Priority.LOW, None, lambda: 0), device)
    if kind == "own":
        # Data of the gateway itself takes of the same capacity.
        queues.numbers[receipt := queues.intake.create_delivery()] = number
        return queues.intake.accept_for(EncodedUplink.timeseries(argument, 0, None, True), receipt, None)
    if kind == "attributes":
        return queues.send_attributes(number, argument, device)
    # Everything else happens between turns of the loop that routes sends.
    queues.route()
    traffic = queues.traffic
    match kind:
        case "take":
            return queues.take(argument)
        case "withdraw":
            return queues.withdraw(argument)
        case "hold all":
            traffic.hold_all(DEVICES)
        case "move":
            traffic.move(device, argument)
        case "refuse" | "abandon":
            getattr(traffic, kind)(device, REFUSAL)
        case "hold" | "release" | "fail":
            getattr(traffic, kind)(device)
    return None


@settings(max_examples=200, deadline=None)
@given(
    steps=steps,
    policy=st.sampled_from([QueuePolicy.RAISE, QueuePolicy.DROP_NEWEST]),
    max_sends=st.integers(1, 14),
    max_bytes=st.integers(20, 600),
)
def test_nothing_differs_from_sends_that_are_routed(runner, steps, policy, max_sends, max_bytes):
    async def compare():
        both = [GatewayQueues(policy, max_sends, max_bytes, has_plain=has_plain) for has_plain in (True, False)]
        for number, (kind, device, argument) in enumerate(steps):
            seen = [await step(queues, number, kind, device, argument) for queues in both]
            assert seen[0] == seen[1]
            counts = [(queues.state()[:6], queues.fills) for queues in both]
            assert counts[0] == counts[1]
            if kind not in {"send", "low", "own", "attributes"}:
                assert both[0].state() == both[1].state()
        for queues in both:
            queues.route()
        queued = [[(queues.of([one]), one[ENCODED].device) for one in queues.queue.items_now()] for queues in both]
        assert queued[0] == queued[1]
        assert both[0].state() == both[1].state()

    runner.run(compare())


async def queues_with(*sends):
    """Return queues with sends of devices, which are numbered from 0."""
    queues = GatewayQueues(QueuePolicy.RAISE, 1000, 10**6, has_plain=True)
    for number, device in enumerate(sends):
        await queues.send(number, {"a": number}, None, device)
    return queues


async def test_sends_of_free_devices_need_no_routing():
    queues = await queues_with(A, B, A, C, A, B)
    assert queues.gathered == len(queues.plain.gathering) == 6
    assert queues.initial.is_empty()
    assert queues.take((4, 10**6, 10**6)) == [0, 1, 2, 3]


async def test_a_send_does_not_overtake_one_that_is_not_routed_yet():
    queues = await queues_with(A)
    queues.traffic.hold(B)
    queues.send_attributes(1, 5, B)
    await queues.send(2, {"a": 2}, None, A)
    assert len(queues.initial) == 2
    queues.route()
    await queues.send(3, {"a": 3}, None, A)
    assert queues.gathered == 2
    assert queues.of(queues.queue.items_now()) == [0, 2, 3]
    assert queues.held() == [1]


async def test_a_message_that_is_not_routed_yet_leaves_no_send_to_routing():
    """A gateway that responds to RPC requests all the time has such messages all the time."""
    queues = await queues_with(A)
    queues.initial.append(WorkItem.of(MqttPublishMessage("v1/gateway/rpc", b"{}")))
    await queues.send(1, {"a": 1}, None, B)
    queues.send_attributes(2, 5, B)
    assert (queues.gathered, len(queues.initial)) == (2, 1)
    assert queues.of(queues.queue.items_now()) == [0, 1, 2]


async def test_data_of_one_held_device_does_not_stop_the_others():
    queues = await queues_with(A)
    queues.traffic.hold(B)
    await queues.send(1, {"a": 1}, None, B)
    queues.route()
    await queues.send(2, {"a": 2}, None, A)
    assert (queues.gathered, queues.held()) == (2, [1])
    queues.traffic.release(B)
    await queues.send(3, {"a": 3}, None, B)
    assert queues.of(queues.queue.items_now()) == [0, 2, 1, 3]
