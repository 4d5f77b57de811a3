"""Backoff, and attempts to connect after a failed or lost connection, without a broker and without delays."""

import asyncio
import logging
import random
import socket
import ssl

import pytest

from engine_parts import own_tasks
from tb_mqtt_client.common.exceptions import ConnectionRefusedByServer, NotConnectedError
from tb_mqtt_client.constants.reason_codes import ReasonCode
from tb_mqtt_client.service.delivery.transport import SessionEnd
from tb_mqtt_client.service.session.keeper import Backoff, ConnectionKeeper


def test_delays_are_random_within_growing_bounds(monkeypatch):
    bounds = []
    monkeypatch.setattr(random, "uniform", lambda low, high: bounds.append((low, high)) or high)
    backoff = Backoff(1.0, 5.0)
    delays = [backoff.next_delay() for _ in range(20)]
    assert delays[:4] == [1.0] * 4
    # The bound is a quarter of the time waited before, so that the end of a short outage is noticed soon.
    assert delays[4:12] == [max(1.0, sum(delays[:index]) / 4) for index in range(4, 12)]
    assert delays[12:] == [5.0] * 8
    backoff.grow_to_longest()
    assert backoff.next_delay() == 5.0
    backoff.reset()
    assert backoff.next_delay() == 1.0
    assert {low for low, _ in bounds} == {0}


class Observer:
    """Collects what a keeper reports."""

    def __init__(self):
        self.reports = []

    def failed(self, error, retry_in):
        self.reports.append((error, retry_in))

    def lost(self, end):
        self.reports.append(end.cause)


class Sessions:
    """Sessions that a test can end. Each attempt raises the next one of ``refusals``, if it is not None."""

    def __init__(self, *refusals):
        self.refusals = list(refusals)
        self.attempts = 0
        self.lost = asyncio.Event()
        self.established = asyncio.Semaphore(0)
        self.observer = Observer()

    async def establish(self):
        self.attempts += 1
        if self.refusals and (refusal := self.refusals.pop(0)):
            raise refusal
        self.established.release()

    async def wait_lost(self):
        await self.lost.wait()
        self.lost.clear()
        return SessionEnd("test")

    def keeper(self, backoff=None):
        return ConnectionKeeper(own_tasks(), self.establish, self.wait_lost, backoff or Backoff(0.0, 0.0), self.observer)


async def test_the_first_refusal_is_raised_and_leaves_no_task():
    sessions = Sessions(ConnectionRefusedError())
    keeper = sessions.keeper()
    with pytest.raises(ConnectionRefusedError):
        await keeper.connect()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await keeper.connect()
    await keeper.stop()
    assert sessions.attempts == 2


async def test_a_lost_session_is_established_again(caplog):
    sessions = Sessions(None, OSError(), TimeoutError())
    keeper = sessions.keeper()
    await keeper.connect()
    await sessions.established.acquire()
    sessions.lost.set()
    await sessions.established.acquire()
    assert sessions.attempts == 4
    # An error without a text is logged by its name.
    assert "Connecting failed: TimeoutError(). Next attempt in 0.0 s" in caplog.messages
    assert not any(record.exc_info for record in caplog.records)
    await keeper.stop()
    await keeper.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


UNEXPECTED = [
    TypeError("'int' object is not iterable"),
    OverflowError("too large"),
    RuntimeError("can't start new thread"),
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    asyncio.CancelledError("of something that was awaited"),
    AssertionError(),
]


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
async def test_an_unexpected_error_is_logged_and_followed_by_the_next_attempt(error, caplog):
    sessions = Sessions(None, error, error, OSError("refused"), error)
    keeper = sessions.keeper()
    await keeper.connect()
    await sessions.established.acquire()
    sessions.lost.set()
    await sessions.established.acquire()
    assert sessions.attempts == 6
    failures = [record for record in caplog.records if record.getMessage().startswith("Connecting failed")]
    assert [record.getMessage() for record in failures] == [
        f"Connecting failed: {cause}. Next attempt in 0.0 s" for cause in (repr(error), repr(error), "refused", repr(error))
    ]
    # The traceback is logged once a minute, and the others at DEBUG.
    [traceback] = [record for record in caplog.records if record.exc_info and record.levelno > logging.DEBUG]
    assert (traceback.levelno, traceback.exc_info[1]) == (logging.ERROR, error)
    await keeper.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_unexpected_error_in_the_first_attempt_is_raised():
    sessions = Sessions(MemoryError())
    keeper = sessions.keeper()
    with pytest.raises(MemoryError):
        await keeper.connect()
    assert not keeper.is_running
    await keeper.connect()
    assert sessions.attempts == 2
    await keeper.stop()


async def test_an_error_while_waiting_for_the_end_is_followed_by_an_attempt():
    sessions, failures = Sessions(), [MemoryError()]
    wait_lost = sessions.wait_lost

    async def fail_once():
        if failures:
            raise failures.pop()
        return await wait_lost()

    sessions.wait_lost = fail_once
    keeper = sessions.keeper()
    await keeper.connect()
    await sessions.established.acquire()
    await sessions.established.acquire()
    await keeper.stop()


async def test_an_error_in_a_log_handler_does_not_end_the_attempts():
    sessions = Sessions(None, OSError(), MemoryError())
    keeper = sessions.keeper()
    await keeper.connect()
    await sessions.established.acquire()

    class Raising(logging.Handler):
        def emit(self, _record):
            raise RuntimeError("the disk is full")

    handler = Raising()
    logging.getLogger("tb_mqtt_client").addHandler(handler)
    try:
        sessions.lost.set()
        await sessions.established.acquire()
    finally:
        logging.getLogger("tb_mqtt_client").removeHandler(handler)
    await keeper.stop()


async def test_an_error_that_ends_the_loop_is_reported_and_start_works_again():
    """After such an error, the keeper must not claim that it is running."""
    ended = asyncio.Event()

    class Broken(Backoff):
        def reset(self):
            """Do nothing."""

        def next_delay(self):
            asyncio.get_running_loop().call_soon(ended.set)
            raise LookupError("a defect outside of any attempt")

    sessions, contexts = Sessions(), []
    keeper = sessions.keeper(Broken())
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    await keeper.connect()
    await sessions.established.acquire()
    sessions.lost.set()
    await ended.wait()
    await asyncio.sleep(0)
    assert not keeper.is_running
    assert [context["message"] for context in contexts] == ["tb-mqtt-client connection failed"]
    await keeper.connect()
    assert sessions.attempts == 2
    await keeper.stop()


@pytest.mark.parametrize("cancels", [1, 2, 5])
async def test_an_attempt_without_callers_is_not_wanted(cancels):
    sessions = Sessions()
    closing = asyncio.Event()

    async def establish():
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            for _ in range(10):
                await asyncio.sleep(0)

    sessions.establish = establish
    keeper = sessions.keeper()
    first = asyncio.ensure_future(keeper.connect())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(keeper.connect())
    await asyncio.sleep(0)
    for _ in range(cancels):
        first.cancel()
        await asyncio.sleep(0)
    assert first.cancelled()
    assert keeper.is_wanted
    second.cancel()
    await asyncio.wait([second])
    assert not keeper.is_wanted
    await keeper.stop()
    assert closing.is_set()
    assert not keeper.is_running
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_stop_does_not_leave_callers_of_start_waiting():
    sessions = Sessions()
    sessions.establish = asyncio.Event().wait
    keeper = sessions.keeper()
    starting = asyncio.ensure_future(keeper.connect())
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(keeper.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(NotConnectedError):
        await starting
    assert stopping.cancelled()


BAD_CREDENTIALS = ConnectionRefusedByServer(ReasonCode.BAD_USER_NAME_OR_PASSWORD, 5)
BUSY = ConnectionRefusedByServer(ReasonCode.SERVER_BUSY, 5)


async def test_start_repeats_the_first_attempt_until_it_succeeds():
    failures = [socket.gaierror(), OSError(), TimeoutError(), ssl.SSLError(), MemoryError(), BAD_CREDENTIALS, BUSY]
    sessions = Sessions(*failures)
    keeper = sessions.keeper()
    keeper.start()
    assert keeper.is_running
    assert keeper.is_wanted
    assert not keeper.has_established
    await sessions.established.acquire()
    assert keeper.has_established
    assert sessions.observer.reports == [(failure, 0.0) for failure in failures]
    await keeper.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_permanent_refusal_is_retried_with_the_longest_delay(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda _, high: high)
    sessions = Sessions(OSError(), BUSY, BAD_CREDENTIALS)
    keeper = sessions.keeper(Backoff(0.0, 0.01))
    keeper.start()
    await sessions.established.acquire()
    assert [retry_in for _, retry_in in sessions.observer.reports] == [0.0, 0.0, 0.01]
    await keeper.stop()


async def test_connect_raises_the_next_failure_of_a_started_keeper_which_goes_on():
    sessions = Sessions(OSError("first"))
    keeper = sessions.keeper()
    keeper.start()
    with pytest.raises(OSError, match="first"):
        await keeper.connect()
    assert keeper.is_wanted
    await keeper.connect()
    assert keeper.has_established
    await keeper.stop()


async def test_start_takes_over_the_attempt_of_connect():
    sessions = Sessions(OSError("first"), OSError("second"))
    keeper = sessions.keeper()
    connecting = asyncio.ensure_future(keeper.connect())
    await asyncio.sleep(0)
    keeper.start()
    with pytest.raises(OSError, match="first"):
        await connecting
    await sessions.established.acquire()
    await keeper.stop()


async def test_a_cancelled_connect_does_not_end_a_started_keeper():
    sessions = Sessions()
    keeper = sessions.keeper()
    connecting = asyncio.ensure_future(keeper.connect())
    await asyncio.sleep(0)
    keeper.start()
    connecting.cancel()
    await asyncio.wait([connecting])
    assert keeper.is_wanted
    await sessions.established.acquire()
    await keeper.stop()


async def test_connect_after_a_stopped_start_gives_up_after_its_first_failure():
    sessions = Sessions(OSError(), OSError("not repeated"))
    sessions.wait_lost = asyncio.Event().wait
    keeper = sessions.keeper(Backoff(1e9, 1e9))
    keeper.start()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(sessions.observer.reports) == 1
    await keeper.stop()
    with pytest.raises(OSError, match="not repeated"):
        await keeper.connect()
    assert not keeper.is_running
    assert sessions.observer.reports[-1][1] is None


async def test_the_end_of_a_session_is_reported():
    sessions = Sessions()
    keeper = sessions.keeper()
    keeper.start()
    await sessions.established.acquire()
    sessions.lost.set()
    await sessions.established.acquire()
    assert sessions.observer.reports == ["test"]
    await keeper.stop()
    assert sessions.observer.reports == ["test"]
