"""Connection events: what is reported for what happens, and how consumers get it. No client and no network."""

import asyncio
import contextvars
import gc
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tb_mqtt_client
from tb_mqtt_client import (
    Connected,
    ConnectFailed,
    Connecting,
    ConnectionEvent,
    ConnectionLost,
    ConnectionRefusedByServer,
    ConnectRefused,
    EventsDropped,
    PublishingPaused,
    QueueHigh,
    QueueLow,
)
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.tasks import Tasks, report_failure
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.entities import connection_event
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.connection_events import MAX_EVENTS, ConnectionEvents, EventQueue
from tb_mqtt_client.service.delivery.capacity import QueueCapacity
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.requests.dispatch import InboundReport

A, B = ServerAddress("a.example", 1883), ServerAddress("b.example", 8883)
BAD_CREDENTIALS = ConnectionRefusedByServer(ReasonCode.BAD_USER_NAME_OR_PASSWORD, 5)
BUSY = ConnectionRefusedByServer(ReasonCode.SERVER_BUSY, 5)


class Peer:
    """The events of a client, and their parts."""

    def __init__(self):
        self.tasks = Tasks(report_failure)
        self.report = InboundReport()
        self.events = ConnectionEvents(self.tasks, self.report)
        self.stream = self.events.stream(1000, ended=False)

    async def seen(self):
        """Return the events of the stream, which ends."""
        self.events.stopped()
        return [event async for event in self.stream]

    def emit(self, number=1):
        for attempt in range(number):
            self.events.lost(SessionEnd(str(attempt)))


@pytest.fixture
def peer():
    return Peer()


async def test_the_events_of_an_outage(peer):
    events, error = peer.events, OSError("no route")
    events.started()
    events.connecting(A)
    events.connecting(B)
    events.failed(error, 1.5)
    events.connecting(A)
    events.failed(BAD_CREDENTIALS, 30.0)
    events.connecting(A)
    events.failed(BUSY, 2.0)
    events.connecting(A)
    assert events.last_failure == str(BUSY)
    events.connected(A, 5, {"announced": True}, 1)
    assert events.last_failure == ""
    events.lost(SessionEnd("closed by the server", ReasonCode.SERVER_BUSY, server=A))
    events.connecting(A)
    assert await peer.seen() == [
        Connecting("a.example", 1883, 1),
        Connecting("b.example", 8883, 1),
        ConnectFailed("no route", 1.5, error),
        Connecting("a.example", 1883, 2),
        ConnectRefused(str(BAD_CREDENTIALS), ReasonCode.BAD_USER_NAME_OR_PASSWORD, True, 30.0),
        Connecting("a.example", 1883, 3),
        ConnectRefused(str(BUSY), ReasonCode.SERVER_BUSY, False, 2.0),
        Connecting("a.example", 1883, 4),
        Connected("a.example", 1883, 5, {"announced": True}, 1),
        ConnectionLost("a.example:1883: closed by the server", ReasonCode.SERVER_BUSY),
        Connecting("a.example", 1883, 1),
    ]


async def test_an_attempt_that_fails_after_the_session_was_set_up_has_lost_it(peer):
    peer.events.connecting(A)
    peer.events.connected(A, 5, {}, 1)
    peer.events.failed(OSError("lost"), 1.0)
    peer.events.connecting(A)
    assert (await peer.seen())[2:] == [ConnectionLost("lost", None), Connecting("a.example", 1883, 1)]


async def test_attempts_are_counted_from_one_after_each_start(peer):
    peer.events.connecting(A)
    peer.events.failed(TimeoutError(), None)
    assert peer.events.last_failure == "TimeoutError()"
    peer.events.started()
    assert peer.events.last_failure == ""
    peer.events.connecting(A)
    assert [event.attempt for event in await peer.seen() if isinstance(event, Connecting)] == [1, 1]


async def test_a_full_queue_and_a_pause_are_events(peer):
    capacity = QueueCapacity(10, 100)
    capacity.on_fill_changed = lambda: peer.events.fill_changed(capacity)
    for _ in range(9):
        capacity.try_take(5)
    capacity.give_back(4, 20)
    backpressure = BackpressureController(delay=2.0, on_pause=peer.events.paused)
    backpressure.notify_quota_exceeded(limit="messages")
    # The same shortage.
    backpressure.notify_quota_exceeded(limit="messages")
    assert await peer.seen() == [
        QueueHigh(8, 10, 40, 100),
        QueueLow(5, 10, 25, 100),
        PublishingPaused(2.0, "the server refused a message for its quota", "messages"),
    ]


def test_events_are_frozen_and_exported():
    kinds = [kind for kind in vars(connection_event).values() if isinstance(kind, type) and issubclass(kind, ConnectionEvent)]
    published = [kind for kind in kinds if not kind.__name__.startswith("_")]
    assert len(published) > 5
    for kind in published:
        assert kind.__dataclass_params__.frozen
        assert "__slots__" in vars(kind)
        assert getattr(tb_mqtt_client, kind.__name__) is kind


@given(st.lists(st.booleans(), max_size=100), st.integers(1, 5))
def test_a_queue_counts_what_it_drops_and_keeps_the_order(operations, max_events):
    queue, put, taken = EventQueue(max_events), 0, []
    for puts in operations:
        if puts:
            queue.put(Connecting("host", 1, put))
            put += 1
        elif (event := queue.take()) is not None:
            taken.append(event)
    while (event := queue.take()) is not None:
        taken.append(event)
    expected = 0
    for event in taken:
        if isinstance(event, EventsDropped):
            expected += event.count
        else:
            assert event.attempt == expected
            expected += 1
    assert expected == put


async def test_a_slow_stream_drops_its_oldest_events_and_says_how_many(peer):
    slow = peer.events.stream(2, ended=False)
    peer.emit(5)
    assert await anext(slow) == EventsDropped(3)
    assert [(await anext(slow)).reason for _ in range(2)] == ["3", "4"]
    assert len(await peer.seen()) == 5


async def test_streams_end_after_their_events(peer):
    waiting = peer.events.stream(10, ended=False)
    task = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0)
    peer.events.stopped()
    with pytest.raises(StopAsyncIteration):
        await task
    with pytest.raises(StopAsyncIteration):
        await anext(peer.events.stream(10, ended=True))
    # The events of the next start are not theirs.
    peer.emit()
    with pytest.raises(StopAsyncIteration):
        await anext(waiting)


async def test_a_cancelled_stream_continues(peer):
    for _ in range(2):
        task = asyncio.ensure_future(anext(peer.stream))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    peer.emit(2)
    assert len(await peer.seen()) == 2


@pytest.mark.parametrize("number", [0, -1])
def test_a_stream_needs_room_for_an_event(peer, number):
    with pytest.raises(ValueError, match="max_events must be at least 1"):
        peer.events.stream(number, ended=False)


def test_a_stream_that_the_program_forgets_takes_no_events():
    events = Peer().events
    stream = events.stream(10, ended=False)
    del stream
    gc.collect()
    assert len(events._streams) == 0


async def test_listeners_get_all_events_in_order(peer):
    plain, slow, finished = [], [], asyncio.Event()

    async def listen(event):
        await asyncio.sleep(0)
        slow.append(event)
        if len(slow) == 3:
            finished.set()

    peer.events.listen(plain.append)
    peer.events.listen(listen)
    peer.emit(3)
    assert plain == []
    await finished.wait()
    assert [event.reason for event in slow] == ["0", "1", "2"]
    assert plain == slow
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(peer.tasks) == 0


async def test_a_hanging_listener_delays_no_other_and_is_cancelled_at_the_end(peer):
    others, begun = [], []

    async def hang(event):
        begun.append(event)
        await asyncio.Event().wait()

    peer.events.listen(hang)
    peer.events.listen(others.append)
    peer.emit(3)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (len(begun), len(others)) == (1, 3)
    await peer.tasks.end_all()
    peer.events.stopped()
    assert len(peer.tasks) == 0
    # It is called again after the next start, with new events only.
    peer.events.lost(SessionEnd("new"))
    await asyncio.sleep(0)
    assert begun[-1].reason == "new"
    await peer.tasks.end_all()


async def test_a_hanging_listener_has_a_bounded_queue(peer):
    seen, go_on = [], asyncio.Event()

    async def listen(event):
        seen.append(event)
        await go_on.wait()

    peer.events.listen(listen)
    peer.emit()
    await asyncio.sleep(0)
    peer.emit(MAX_EVENTS + 7)
    go_on.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen[1] == EventsDropped(7)
    assert len(seen) == MAX_EVENTS + 2


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_a_raising_listener_is_reported_and_called_again(peer, is_coroutine, caplog):
    seen = []

    def fail(event):
        seen.append(event)
        raise LookupError("of the listener")

    async def fail_later(event):
        await asyncio.sleep(0)
        fail(event)

    peer.events.listen(fail_later if is_coroutine else fail)
    peer.emit(2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(seen) == 2
    assert peer.report.counts()["callback_errors"] == 2
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "The callback for connection events failed"
    assert isinstance(record.exc_info[1], LookupError)


async def test_a_removed_listener_gets_nothing_more(peer):
    seen = []
    remove, remove_other = peer.events.listen(seen.append), peer.events.listen(seen.append)
    peer.emit()
    remove()
    remove()
    await asyncio.sleep(0)
    assert len(seen) == 1
    remove_other()
    peer.emit()
    await asyncio.sleep(0)
    assert len(seen) == 1


async def test_a_listener_may_remove_itself_and_add_others(peer):
    seen = []

    def once(event):
        remove()
        seen.append(event)
        peer.events.listen(seen.append)

    remove = peer.events.listen(once)
    peer.emit()
    await asyncio.sleep(0)
    peer.emit()
    await asyncio.sleep(0)
    assert [event.reason for event in seen] == ["0", "0"]


async def test_a_listener_runs_in_the_context_in_which_it_was_registered(peer):
    variable, seen = contextvars.ContextVar("variable", default="unset"), []
    variable.set("registered")
    peer.events.listen(lambda _: seen.append(variable.get()))
    variable.set("reported")
    peer.emit()
    await asyncio.sleep(0)
    assert seen == ["registered"]


def test_what_cannot_be_called_is_no_listener(peer):
    with pytest.raises(TypeError, match="callback must be a function"):
        peer.events.listen("print")
