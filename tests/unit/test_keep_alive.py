"""PINGREQ and silent servers, with a clock that the test moves.

Only a PINGREQ that was not answered while the loop was running ends a connection.
"""

import pytest
from fake_timers import FakeTimers

from tb_mqtt_client.common.mqtt.keep_alive import KeepAlive

KEEP_ALIVE = 10.0


class Link:
    """A server that responds pings or not, and a number of unsent bytes."""

    def __init__(self, responds=True, delay=0.0, seconds=KEEP_ALIVE):
        self.timers = FakeTimers()
        self.responds, self.delay, self.unsent = responds, delay, 0
        self.pings, self.silent = [], []
        self.watch = KeepAlive(
            seconds, self.timers, ping=self.ping, unsent_bytes=lambda: self.unsent, on_silent=self.silent.append,
            clock=self.timers.clock,
        )  # fmt: skip

    def ping(self):
        self.pings.append(self.timers.now)
        self.watch.last_out = self.timers.now
        if self.responds:
            self.timers.call_later(self.delay, self.receive)

    def receive(self):
        self.watch.last_in = self.timers.now


def test_a_quiet_connection_is_pinged_within_the_keep_alive():
    link = Link()
    link.timers.wait(1000)
    gaps = [second - first for first, second in zip(link.pings, link.pings[1:], strict=False)]
    assert gaps
    assert max(gaps) <= KEEP_ALIVE
    assert min(gaps) >= KEEP_ALIVE / 2
    assert link.silent == []
    assert link.timers.running == 1


@pytest.mark.parametrize("direction", ["last_in", "last_out"])
def test_a_connection_with_traffic_in_one_direction_is_pinged(direction):
    """The server needs packets from the client, and the client needs packets from the server."""
    link = Link(responds=True)
    for _ in range(100):
        link.timers.wait(1)
        setattr(link.watch, direction, link.timers.now)
    assert 8 <= len(link.pings) <= 14
    assert link.silent == []


def test_a_connection_with_traffic_in_both_directions_is_not_pinged():
    link = Link()
    for _ in range(100):
        link.timers.wait(1)
        link.watch.last_in = link.watch.last_out = link.timers.now
    assert link.pings == []


def test_a_dead_connection_is_noticed_after_twice_the_keep_alive():
    link = Link(responds=False)
    link.timers.wait(2 * KEEP_ALIVE - 0.1)
    assert (len(link.pings), link.silent) == (1, [])
    link.timers.wait(0.2)
    assert link.silent == [pytest.approx(2 * KEEP_ALIVE)]
    assert link.timers.running == 0


@pytest.mark.parametrize("blocked", [9, 19, 21, 60, 3600, 86_400])
@pytest.mark.parametrize("before", [0.0, 5.0, 8.5])
def test_a_blocked_loop_does_not_end_a_connection(blocked, before):
    """While the loop is blocked, or the machine sleeps, no PINGREQ is sent, and silence proves nothing."""
    link = Link()
    link.timers.wait(before)
    link.timers.block(blocked)
    link.timers.wait(100)
    assert link.silent == []
    assert link.pings[-1] > link.timers.now - KEEP_ALIVE


@pytest.mark.parametrize("blocked", [3, 21, 3600])
def test_a_pingresp_is_awaited_after_the_loop_was_blocked(blocked):
    link = Link(responds=False)
    link.timers.wait(9)
    assert len(link.pings) == 1
    link.timers.block(blocked)
    link.timers.wait(6)
    assert link.silent == []
    link.responds = True
    link.receive()
    link.timers.wait(100)
    assert link.silent == []


@pytest.mark.parametrize("blocked", [3, 21, 3600])
def test_a_connection_that_died_while_the_loop_was_blocked_is_noticed(blocked):
    link = Link(responds=False)
    link.timers.wait(1)
    link.timers.block(blocked)
    link.timers.wait(2.5 * KEEP_ALIVE)
    assert len(link.silent) == 1


def test_a_dead_connection_is_noticed_although_the_loop_is_blocked_again_and_again():
    link = Link(responds=False)
    for _ in range(100):
        link.timers.block(5)
        link.timers.wait(0)
    assert len(link.silent) == 1


def test_a_pingreq_behind_unsent_bytes_gets_more_time():
    """256 kB at 2 kB per second take two minutes."""
    link = Link(responds=False)
    link.timers.wait(8.5)
    for unsent in range(256_000, 0, -2000):
        link.unsent = unsent
        link.timers.wait(1)
    assert link.silent == []
    link.unsent = 0
    link.receive()
    link.timers.wait(5)
    assert link.silent == []


def test_bytes_that_stay_unsent_do_not_keep_a_connection_open():
    link = Link(responds=False)
    link.unsent = 256_000
    link.timers.wait(2 * KEEP_ALIVE + 0.1)
    assert len(link.silent) == 1


def test_without_a_keep_alive_nothing_is_pinged():
    link = Link(responds=False, seconds=0)
    link.timers.wait(1000)
    assert (link.pings, link.silent, link.timers.running) == ([], [], 0)


def test_another_keep_alive_takes_effect():
    link = Link()
    link.timers.wait(1)
    link.watch.restart(2.0)
    link.timers.wait(20)
    assert len(link.pings) > 8
    link.watch.stop()
    assert link.timers.running == 0
