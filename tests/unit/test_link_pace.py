"""How much may be in flight, on links that a test makes up: no socket, and a clock of the test's own."""

import pytest

from tb_mqtt_client.service.session.in_flight import FAST_BYTES, LEAST_BYTES, START_BYTES, LinkPace

WANTED = 3.75
"""Seconds, as with the default ``ack_timeout``."""
LARGEST_PAYLOAD = 65_507


class Link:
    """Carries bytes in their order at ``rate`` a second; a PUBACK comes ``latency`` seconds after the last byte of its message."""

    def __init__(self, rate, latency=0.001, payload=None):
        self.rate, self.latency, self._payload = rate, latency, payload
        self.now = 0.0
        self.slow = []
        self.pace = LinkPace(WANTED, on_slow=self.slow.append, clock=lambda: self.now)
        self.delays = []
        self.acknowledged = 0
        self._free_at = 0.0
        self._in_flight = []
        self._packet_id = 0

    @property
    def in_flight(self):
        return sum(size for _, _, size, _ in self._in_flight)

    def run(self, seconds):
        """Send as much as the pace allows, for so long."""
        end = self.now + seconds
        while self.now < end:
            while self.in_flight < self.pace.window and len(self._in_flight) < 100:
                self._send()
            acknowledged_at, packet_id, size, sent_at = min(self._in_flight)
            self._in_flight.remove((acknowledged_at, packet_id, size, sent_at))
            self.now = max(self.now, acknowledged_at)
            self.delays.append(self.now - sent_at)
            self.acknowledged += size
            self.pace.acknowledged(packet_id)
        return self

    def _send(self):
        bound = self.pace.batch_bytes(self.in_flight)
        size = self._payload or min(LARGEST_PAYLOAD, bound or LARGEST_PAYLOAD)
        self._packet_id += 1
        self._free_at = max(self.now, self._free_at) + size / self.rate
        self._in_flight.append((self._free_at + self.latency, self._packet_id, size, self.now))
        self.pace.published(self._packet_id, self.in_flight)


def test_a_link_begins_with_little():
    pace = LinkPace(WANTED)
    assert (pace.window, pace.bytes_per_second, pace.expected_seconds(10**9)) == (START_BYTES, None, 0.0)
    assert pace.batch_bytes(0) == START_BYTES
    assert pace.batch_bytes(START_BYTES) == START_BYTES // 2


@pytest.mark.parametrize(("rate", "latency"), [(100e6, 0.0002), (10e6, 0.02), (10e6, 0.2), (1e6, 0.5)])
def test_a_fast_link_is_not_held_back_after_a_few_acknowledgements(rate, latency):
    link = Link(rate, latency).run(10 * latency)
    assert link.pace.window >= FAST_BYTES
    assert link.pace.batch_bytes(10**6) is None
    assert link.slow == []


@pytest.mark.parametrize("rate", [500, 2000, 10_000, 40_000])
def test_a_slow_link_carries_messages_in_seconds_and_is_kept_busy(rate):
    link = Link(rate).run(60)
    link.delays.clear()
    before, begin = link.acknowledged, link.now
    link.run(300)
    assert max(link.delays) <= 2 * WANTED
    assert (link.acknowledged - before) / (link.now - begin) >= 0.95 * rate
    assert link.pace.bytes_per_second == pytest.approx(rate, rel=0.05)
    assert all(told == pytest.approx(rate, rel=0.05) for told in link.slow)


def test_a_link_that_carries_next_to_nothing_still_gets_something():
    assert Link(20).run(3000).pace.window == LEAST_BYTES


def test_a_link_that_becomes_slow_is_relieved():
    link = Link(1e6).run(10)
    assert link.pace.window >= FAST_BYTES
    link.rate = 2000
    # What is in flight already takes its time.
    link.run(2 * link.pace.window / link.rate)
    link.delays.clear()
    link.run(100)
    assert max(link.delays) <= 2 * WANTED


def test_a_link_that_becomes_fast_is_used():
    link = Link(2000).run(60)
    link.rate = 1e6
    assert link.run(20).pace.window >= FAST_BYTES


@pytest.mark.parametrize("latency", [5.0, 20.0])
@pytest.mark.parametrize("first", [0.001, None])
def test_a_server_that_takes_its_time_is_no_slow_link(latency, first):
    """Fewer bytes would not make it faster, only the whole slower."""
    link = Link(10e6, latency if first is None else first)
    if first is not None:
        link.run(5)
        link.latency = latency
    link.run(40 * latency)
    assert link.pace.window >= FAST_BYTES
    assert link.pace.batch_bytes(0) is None


def test_small_messages_prove_no_more_than_they_are():
    """A link may pass a little at once and then nothing: a token bucket of the operator's."""
    link = Link(1e6)
    for _ in range(100):
        link._send()
        link.run(0.01)
    link = Link(1e6, payload=100)
    link.pace.published(1, 100)
    link.now += 0.001
    link.pace.acknowledged(1)
    assert link.pace.window == START_BYTES


def test_a_missing_acknowledgement_makes_the_next_beginning_small():
    link = Link(10e6).run(1)
    link.pace.published(7, 1000)
    link.pace.acknowledgement_missing()
    link.pace.connection_ended()
    assert link.pace.window == START_BYTES // 4
    # What was timed ended with its connection.
    link.now += 100
    link.pace.acknowledged(7)
    assert link.pace.window == START_BYTES // 4
    link._in_flight.clear()
    assert link.run(1).pace.window >= FAST_BYTES


def test_only_the_acknowledgement_of_what_is_timed_counts():
    pace = LinkPace(WANTED, clock=lambda: 0.0)
    pace.published(1, 1000)
    pace.published(2, 2000)
    pace.acknowledged(2)
    assert pace.bytes_per_second is None
    pace.acknowledged(1)
    assert pace.bytes_per_second is not None
