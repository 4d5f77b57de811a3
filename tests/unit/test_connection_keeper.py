"""Backoff, and what keeps a session: no broker, no waiting."""

import asyncio
import random

import pytest

from tb_mqtt_client.service.connection_keeper import Backoff, ConnectionKeeper
from tb_mqtt_client.service.session_end import SessionEnd


def test_full_jitter_within_growing_bounds(monkeypatch):
    bounds = []
    monkeypatch.setattr(random, "uniform", lambda low, high: bounds.append((low, high)) or high)
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next_delay() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    backoff.reset()
    assert backoff.next_delay() == 1.0
    assert {low for low, _ in bounds} == {0}


class Sessions:
    """Sessions that a test ends; ``refusals`` are raised by the attempts in turn."""

    def __init__(self, *refusals):
        self.refusals = list(refusals)
        self.attempts = 0
        self.lost = asyncio.Event()
        self.established = asyncio.Semaphore(0)

    async def establish(self):
        self.attempts += 1
        if self.refusals and (refusal := self.refusals.pop(0)):
            raise refusal
        self.established.release()

    async def wait_lost(self):
        await self.lost.wait()
        self.lost.clear()
        return SessionEnd("test")

    def keeper(self):
        return ConnectionKeeper(self.establish, self.wait_lost, Backoff(0.0, 0.0))


async def test_the_first_refusal_is_raised_and_nothing_is_kept():
    sessions = Sessions(ConnectionRefusedError())
    keeper = sessions.keeper()
    with pytest.raises(ConnectionRefusedError):
        await keeper.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await keeper.start()
    await keeper.stop()
    assert sessions.attempts == 2


async def test_a_lost_session_is_established_again(caplog):
    sessions = Sessions(None, OSError(), TimeoutError())
    keeper = sessions.keeper()
    await keeper.start()
    await sessions.established.acquire()
    sessions.lost.set()
    await sessions.established.acquire()
    assert sessions.attempts == 4
    # An error without a text is told by its name.
    assert "Connecting failed: TimeoutError()" in caplog.messages
    await keeper.stop()
    await keeper.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
