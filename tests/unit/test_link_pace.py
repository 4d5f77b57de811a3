"""The in-flight window on simulated links, with a clock that the test moves."""

import pytest

from tb_mqtt_client.service.session.in_flight import FAST_BYTES, LEAST_BYTES, START_BYTES, LinkPace

WANTED = 3.75
"""Seconds for the data in flight; the default ``ack_timeout`` leads to this value."""
LARGEST_PAYLOAD = 65_507


class Link:
    """Carries ``rate`` bytes per second in order; a PUBACK comes ``latency`` seconds after the last byte of its message."""

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
        """Send as much as the pace allows for ``seconds``."""
        end = self.now + seconds
        while self.now < end:
            while self.in_flight < self.pace.window and len(self._in_flight) < 100:
                self.send()
            acknowledged_at, packet_id, size, sent_at = min(self._in_flight)
            self._in_flight.remove((acknowledged_at, packet_id, size, sent_at))
            self.now = max(self.now, acknowledged_at)
            self.delays.append(self.now - sent_at)
            self.acknowledged += size
            self.pace.acknowledged(packet_id)
        return self

    def forget(self):
        """Drop the data in flight, as the end of a connection does."""
        self._in_flight.clear()

    def send(self):
        """Publish one message."""
        bound = self.pace.batch_bytes(self.in_flight)
        size = self._payload or min(LARGEST_PAYLOAD, bound or LARGEST_PAYLOAD)
        self._packet_id += 1
        self._free_at = max(self.now, self._free_at) + size / self.rate
        self._in_flight.append((self._free_at + self.latency, self._packet_id, size, self.now))
        self.pace.published(self._packet_id, self.in_flight)


def test_a_link_starts_with_a_small_window():
    pace = LinkPace(WANTED)
    assert (pace.window, pace.bytes_per_second, pace.expected_seconds(10**9)) == (START_BYTES, None, 0.0)
    assert pace.batch_bytes(0) == START_BYTES
    assert pace.batch_bytes(START_BYTES) == START_BYTES // 2


@pytest.mark.parametrize(("rate", "latency"), [(100e6, 0.0002), (10e6, 0.02), (10e6, 0.2), (1e6, 0.5)])
def test_a_fast_link_is_not_limited_after_a_few_acknowledgements(rate, latency):
    link = Link(rate, latency).run(10 * latency)
    assert link.pace.window >= FAST_BYTES
    assert link.pace.batch_bytes(10**6) is None
    assert link.slow == []


@pytest.mark.parametrize("rate", [500, 2000, 10_000, 40_000])
def test_a_slow_link_is_kept_busy_and_carries_each_message_in_seconds(rate):
    link = Link(rate).run(60)
    link.delays.clear()
    before, begin = link.acknowledged, link.now
    link.run(300)
    assert max(link.delays) <= 2 * WANTED
    assert (link.acknowledged - before) / (link.now - begin) >= 0.95 * rate
    assert link.pace.bytes_per_second == pytest.approx(rate, rel=0.05)
    assert all(reported == pytest.approx(rate, rel=0.05) for reported in link.slow)


def test_a_very_slow_link_gets_the_smallest_window():
    assert Link(20).run(3000).pace.window == LEAST_BYTES


def test_the_window_shrinks_if_a_link_becomes_slow():
    link = Link(1e6).run(10)
    assert link.pace.window >= FAST_BYTES
    link.rate = 2000
    # Data that is already in flight takes longer.
    link.run(2 * link.pace.window / link.rate)
    link.delays.clear()
    link.run(100)
    assert max(link.delays) <= 2 * WANTED


def test_the_window_grows_if_a_link_becomes_fast():
    link = Link(2000).run(60)
    link.rate = 1e6
    assert link.run(20).pace.window >= FAST_BYTES


@pytest.mark.parametrize("latency", [5.0, 20.0])
@pytest.mark.parametrize("first", [0.001, None])
def test_a_slow_server_is_not_taken_for_a_slow_link(latency, first):
    """A slow server does not get faster with fewer bytes in flight; a small window would only lower the rate."""
    link = Link(10e6, latency if first is None else first)
    if first is not None:
        link.run(5)
        link.latency = latency
    link.run(40 * latency)
    assert link.pace.window >= FAST_BYTES
    assert link.pace.batch_bytes(0) is None


def test_small_messages_do_not_prove_a_fast_link():
    """A link may pass a few bytes at once and then none, with a token bucket of the network operator."""
    link = Link(1e6)
    for _ in range(100):
        link.send()
        link.run(0.01)
    link = Link(1e6, payload=100)
    link.pace.published(1, 100)
    link.now += 0.001
    link.pace.acknowledged(1)
    assert link.pace.window == START_BYTES


def test_a_missing_acknowledgement_makes_the_next_first_window_smaller():
    link = Link(10e6).run(1)
    link.pace.published(7, 1000)
    link.pace.acknowledgement_missing()
    link.pace.connection_ended()
    assert link.pace.window == START_BYTES // 4
    # The measurement ended with its connection.
    link.now += 100
    link.pace.acknowledged(7)
    assert link.pace.window == START_BYTES // 4
    link.forget()
    assert link.run(1).pace.window >= FAST_BYTES


def test_only_the_acknowledgement_of_the_measured_message_counts():
    pace = LinkPace(WANTED, clock=lambda: 0.0)
    pace.published(1, 1000)
    pace.published(2, 2000)
    pace.acknowledged(2)
    assert pace.bytes_per_second is None
    pace.acknowledged(1)
    assert pace.bytes_per_second is not None
