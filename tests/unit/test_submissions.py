"""Sends of other threads are accepted in their order, or their caller gets an error."""

import asyncio
import threading

import pytest

from engine_parts import own_tasks
from tb_mqtt_client import BackpressureException, NotConnectedError
from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.constants.option_values import QueuePolicy
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.delays import AcceptTimes
from tb_mqtt_client.service.delivery.intake import Intake
from tb_mqtt_client.service.delivery.lanes import LaneQueue
from tb_mqtt_client.service.delivery.receipts import Receipts
from tb_mqtt_client.service.delivery.statistics import DeliveryCounter
from tb_mqtt_client.service.delivery.submissions import MAX_CROSSING, Submissions
from tb_mqtt_client.service.delivery.terms import Lane, SendTerms


class Receiver:
    def __init__(self):
        self.results = []

    def done(self):
        return bool(self.results)

    def cancelled(self):
        return False

    def set_result(self, result):
        self.results.append(result)


class SubDevices:
    """What the intake asks the component for sub-devices."""

    is_share_used_up = False

    def watch_share(self, on_change):
        self.on_change = on_change


class Queues:
    """An intake with its queue, as a client has them."""

    def __init__(self, policy=QueuePolicy.WAIT, max_sends=1000, max_bytes=1_000_000):
        self.queue = LaneQueue()
        self.counter = DeliveryCounter()
        self.capacity = QueueCapacity(max_sends, max_bytes)
        receipts = Receipts(FutureMap(), self.counter, self.capacity)
        self.initial_queue = AsyncDeque()
        parts = self.initial_queue, self.queue, self.capacity, self.counter, receipts, policy, 500, self._take_oldest, None
        self.intake = Intake(*parts, AcceptTimes(lambda: None))
        self.submissions = Submissions(self.intake, self.capacity, policy, own_tasks())
        self.intake.open()
        self.submissions.open()

    def _take_oldest(self):
        return None if self.queue.is_empty() else self.queue.take_now()

    def publish(self, count):
        """Take sends out of the queue, as a worker does."""
        for encoded, _, _, _ in self.queue.pop_now(count):
            self.capacity.give_back(1, encoded.nbytes)

    @property
    def values(self):
        return [encoded.timeseries_entries()[0].value for encoded, _, _, _ in self.queue.items_now()]


def send(value, device=None):
    return EncodedUplink.timeseries({"a": value}, 0, device, True)


async def put(queues, value, timeout=None):
    """Put a send in another thread."""
    receiver = Receiver()
    await asyncio.to_thread(queues.submissions.put, send(value), receiver, timeout)
    return receiver


async def until(condition):
    """Let other tasks and threads run until a condition is true."""
    while not condition():  # noqa: ASYNC110  # nothing signals it
        await asyncio.sleep(0)


async def test_one_wake_up_accepts_a_batch_in_its_order(monkeypatch):
    queues = Queues()
    wake_ups = []
    loop = asyncio.get_running_loop()
    queues.submissions._wake_loop = lambda work: (wake_ups.append(work), loop.call_soon_threadsafe(work))

    def many():
        for value in range(100):
            queues.submissions.put(send(value), Receiver())

    # In this thread, so that the loop cannot run meanwhile.
    many()
    assert (len(wake_ups), queues.values) == (1, [])
    await asyncio.sleep(0)
    assert queues.values == list(range(100))
    assert queues.submissions.is_empty
    await put(queues, 100)
    assert len(wake_ups) == 2


async def test_threads_keep_their_order():
    queues = Queues(max_sends=10_000)

    def many(first):
        for value in range(first, first + 500):
            queues.submissions.put(send(value), Receiver())

    await asyncio.gather(*(asyncio.to_thread(many, first) for first in (0, 1000, 2000, 3000)))
    await asyncio.sleep(0)
    values = queues.values
    assert len(values) == 2000
    for first in (0, 1000, 2000, 3000):
        assert [value for value in values if first <= value < first + 1000] == list(range(first, first + 500))


def marks(queues):
    """Note the sends about which something is decided one by one."""
    decided = []
    accept = queues.intake.accept_for
    queues.intake.accept_for = lambda *entry: (decided.append(entry[0].timeseries_entries()[0].value), accept(*entry))[1]
    return decided


async def test_only_sends_about_which_something_has_to_be_decided_are_accepted_one_by_one():
    queues = Queues(max_sends=10)
    decided = marks(queues)
    for value in range(9):
        queues.submissions.put(send(value), Receiver(), terms=SendTerms(Lane.HIGH) if value == 1 else None)
    await asyncio.sleep(0)
    # From the one with a priority on, the queue has lanes.
    assert queues.values == [1, 0, *range(2, 9)]
    assert decided == list(range(1, 9))
    assert (queues.counter.accepted, queues.counter.queued, queues.capacity.sends) == (9, 9, 9)
    assert queues.capacity.nbytes == sum(encoded.nbytes for encoded, _, _, _ in queues.queue.items_now())


async def test_sends_are_accepted_together_below_the_marks_of_the_capacity():
    queues = Queues(max_sends=10)
    decided = marks(queues)
    for value in range(10):
        queues.submissions.put(send(value), Receiver())
    await asyncio.sleep(0)
    assert (queues.values, decided) == (list(range(10)), [8])
    assert queues.capacity.is_high


async def test_bytes_bound_what_is_accepted_together():
    nbytes = send(0).nbytes
    queues = Queues(max_bytes=10 * nbytes)
    decided = marks(queues)
    for value in range(9):
        queues.submissions.put(send(value), Receiver())
    await asyncio.sleep(0)
    assert (queues.values, decided) == (list(range(9)), [8])
    assert queues.capacity.nbytes == 9 * nbytes


@pytest.mark.parametrize("are_free", [False, True], ids=["undecided", "free"])
async def test_sends_of_sub_devices_are_routed_if_something_has_to_be_decided(are_free):
    queues, queue = Queues(), LaneQueue()
    sub_devices = SubDevices()
    sub_devices.are_all_free = are_free
    queues.intake.plug_in(sub_devices, queue)
    device = DeviceIdentity("A")
    for value in range(4):
        queues.submissions.put(send(value, device if value % 2 else None), Receiver())
    await asyncio.sleep(0)
    placed = [[one[0].timeseries_entries()[0].value for one in place.items_now()] for place in (queues.initial_queue, queue)]
    assert queues.values == [0, 2]
    assert placed == ([[], [1, 3]] if are_free else [[1, 3], []])


async def test_an_entry_may_be_taken_back_while_others_are_accepted():
    queues = Queues()
    entries = queues.submissions._entries
    for value in range(3):
        queues.submissions.put(send(value), Receiver())
    taken = queues.submissions._take_entries()
    next(taken)
    entries.pop()
    assert [entry[0].timeseries_entries()[0].value for entry in taken] == [1]


async def test_a_caller_waits_while_the_queue_is_full():
    queues = Queues(max_sends=2)
    for value in range(2):
        await put(queues, value)
    waiting = asyncio.ensure_future(put(queues, 2))
    younger = asyncio.ensure_future(put(queues, 3))
    await until(lambda: len(queues.submissions))
    assert not waiting.done()
    assert queues.capacity.sends == 2
    queues.publish(2)
    await asyncio.gather(waiting, younger)
    assert sorted(queues.values) == [2, 3]
    assert queues.submissions.is_empty


async def test_a_send_that_has_waited_too_long_is_not_sent():
    queues = Queues(max_sends=1)
    await put(queues, 0)
    # This one waits for capacity in the event loop, and the next one behind it.
    first = asyncio.ensure_future(put(queues, 1))
    await until(lambda: not queues.submissions.is_empty)
    with pytest.raises(TimeoutError, match=r"full after 0\.01 s"):
        await put(queues, 2, 0.01)
    queues.publish(1)
    await first
    queues.publish(1)
    await asyncio.sleep(0)
    assert queues.counter.accepted == 2
    assert queues.submissions.is_empty


async def test_the_policy_raise_raises_in_the_callers_thread():
    queues = Queues(QueuePolicy.RAISE, max_sends=1)
    await put(queues, 0)
    with pytest.raises(BackpressureException):
        await put(queues, 1)
    assert queues.values == [0]


@pytest.mark.parametrize(("policy", "kept"), [(QueuePolicy.DROP_OLDEST, [1]), (QueuePolicy.DROP_NEWEST, [0])])
async def test_the_policies_that_drop(policy, kept):
    queues = Queues(policy, max_sends=1)
    receivers = [await put(queues, value) for value in range(2)]
    await asyncio.sleep(0)
    assert queues.values == kept
    [dropped] = [receiver for value, receiver in enumerate(receivers) if value not in kept]
    assert [result.reason_code for result in dropped.results] == [LocalReasonCode.DROPPED]
    assert queues.counter.dropped == 1


async def test_a_thread_with_an_event_loop_is_not_blocked():
    queues = Queues(max_sends=1)
    await put(queues, 0)
    with pytest.raises(BackpressureException, match="runs an event loop"):
        queues.submissions.put(send(1), Receiver())
    assert queues.values == [0]


async def test_a_caller_waits_while_the_event_loop_is_behind():
    queues = Queues(max_sends=2 * MAX_CROSSING)
    for value in range(MAX_CROSSING):
        queues.submissions.put(send(value), Receiver())
    done = threading.Event()

    def one_more():
        queues.submissions.put(send(-1), Receiver())
        done.set()

    thread = threading.Thread(target=one_more)
    thread.start()
    try:
        assert not done.is_set()
    finally:
        await asyncio.to_thread(thread.join)
    assert done.is_set()
    assert queues.values[-1] == -1


async def test_the_end_resolves_sends_that_are_not_accepted():
    queues = Queues()
    receiver = Receiver()
    queues.submissions.put(send(0), receiver)
    queues.submissions.close()
    assert [result.reason_code for result in receiver.results] == [LocalReasonCode.NOT_DELIVERED]
    assert (queues.counter.accepted, queues.counter.undelivered, queues.counter.queued) == (1, 1, 0)
    with pytest.raises(NotConnectedError, match="stopped"):
        queues.submissions.put(send(1), Receiver())
    await asyncio.sleep(0)
    assert (queues.counter.accepted, queues.values) == (1, [])


async def test_the_end_resolves_a_send_that_waits_for_capacity():
    queues = Queues(max_sends=1)
    await put(queues, 0)
    waiting = asyncio.ensure_future(put(queues, 1))
    await until(lambda: not queues.submissions.is_empty)
    queues.intake.close()
    queues.submissions.close()
    receiver = await waiting
    await until(receiver.done)
    assert [result.reason_code for result in receiver.results] == [LocalReasonCode.NOT_DELIVERED]


async def test_an_interrupted_wake_up_leaves_no_send_behind():
    """Ctrl-C may raise at any call."""
    queues = Queues()
    wake_loop = queues.submissions._wake_loop
    interrupts = [KeyboardInterrupt]

    def interrupted(work):
        if interrupts:
            raise interrupts.pop()
        wake_loop(work)

    queues.submissions._wake_loop = interrupted
    with pytest.raises(KeyboardInterrupt):
        queues.submissions.put(send(0), Receiver())
    await asyncio.sleep(0)
    assert queues.values == [0]


async def test_data_of_a_refused_device_waits_only_for_its_share():
    queues = Queues()

    class Share:
        """What the intake asks the component for sub-devices."""

        is_share_used_up = True
        held_for_refused = 0
        changed = asyncio.Event()

        def watch_share(self, on_change):
            self.on_change = on_change

        def is_free(self, _device):
            return False

        def is_refused(self, device):
            return device.name == "refused"

        async def wait_changed(self):
            await self.changed.wait()

    share = Share()
    queues.intake.plug_in(share, LaneQueue())
    share.on_change(True)
    refused, other = DeviceIdentity("refused"), DeviceIdentity("other")
    waiting = asyncio.ensure_future(asyncio.to_thread(queues.submissions.put, send(0, refused), Receiver()))
    await asyncio.to_thread(queues.submissions.put, send(1, other), Receiver())
    await asyncio.sleep(0)
    assert queues.counter.accepted == 1
    share.is_share_used_up = False
    share.changed.set()
    await waiting
    await asyncio.sleep(0)
    assert queues.counter.accepted == 2
