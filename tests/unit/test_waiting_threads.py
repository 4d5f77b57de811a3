"""Threads that wait for a result of the event loop do not wait forever if the event loop ends."""

import threading

import pytest

from tb_mqtt_client.sync import pending
from tb_mqtt_client.sync.pending import PendingResult, Waiters

SECONDS = 30


class Waiting:
    """A thread that waits for a result."""

    def __init__(self, waiters):
        self._error = None
        self._result = PendingResult(waiters)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self):
        with pytest.raises(RuntimeError) as raised:
            self._result.result()
        self._error = str(raised.value)

    def error(self):
        self._thread.join(SECONDS)
        return self._error


def test_the_end_of_the_event_loop_wakes_a_thread_that_waits():
    waiters = Waiters(print)
    thread = Waiting(waiters)
    while not waiters._waiting:
        pass
    waiters.break_off("the event loop ended")
    assert thread.error() == "the event loop ended"


def test_the_event_loop_ends_just_before_a_thread_waits(monkeypatch):
    waiters = Waiters(print)
    lock = threading.Lock

    def end_first():
        # This lock is made between the check that the thread may wait and the note that it waits.
        waiters.break_off("the event loop ended")
        return lock()

    monkeypatch.setattr(pending, "Lock", end_first)
    assert Waiting(waiters).error() == "the event loop ended"
