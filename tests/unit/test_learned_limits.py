"""Limits that a client learns from refusals: the buckets of a server and the estimates of a client on one fake clock."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from tb_mqtt_client._native import TokenBuckets, take_all
from tb_mqtt_client.service.delivery.learned_limits import LearnedLimits, roundness

STEP = 0.002
"""Seconds of a tick of the clock."""
LARGEST = 2500
"""The number of datapoints that one payload can have."""
RECONNECT = 1.0
"""Seconds from a refusal to the next publish: the pause and the next connection."""


class Server:
    """Token buckets for datapoints and messages, with windows ``(capacity, seconds)``."""

    def __init__(self, datapoints=(), messages=()):
        self.windows = [list(datapoints), list(messages)]
        self.buckets = [[TokenBuckets([window], 0) for window in windows] for windows in self.windows]

    def takes(self, amounts, now):
        needs = [(bucket, amount) for buckets, amount in zip(self.buckets, amounts, strict=True) for bucket in buckets]
        if any(amount > bucket.smallest_capacity for bucket, amount in needs):
            return False
        return take_all(needs, now) is None


@dataclass
class Client:
    """Publishes as a worker does: the largest message that is admitted, until the limits or the window prevent it."""

    datapoints_a_message: float
    is_gateway: bool
    queued: float = 0.0
    limits: LearnedLimits = field(default_factory=lambda: LearnedLimits("datapoints", "messages"))
    in_flight: deque = field(default_factory=deque)
    acknowledged: int = 0
    connections: int = 1
    next_publish: float = 0.0
    history: list = field(default_factory=list)

    def tick(self, server, now, latency):
        nanoseconds = int(now * 1e9)
        while self.in_flight and self.in_flight[0][0] <= now:
            self.acknowledged += self.in_flight.popleft()[1][0]
        while now >= self.next_publish and self.queued >= 1 and len(self.in_flight) < 100:
            bounds = [limit.largest or LARGEST for limit in self.limits.limits]
            datapoints = int(min(self.queued, LARGEST, bounds[0], bounds[1] * self.datapoints_a_message))
            amounts = max(1, datapoints), max(1, round(datapoints / self.datapoints_a_message))
            if take_all(self.limits.requests(amounts, nanoseconds), nanoseconds) is not None:
                self.limits.note_limited(amounts, nanoseconds)
                return
            stamp = self.limits.record(amounts, nanoseconds)
            self.queued -= amounts[0]
            if server.takes(amounts, nanoseconds):
                self.in_flight.append((now + latency, amounts, stamp))
            else:
                self.refused(amounts, stamp, now)

    def refused(self, amounts, stamp, now):
        # A device's DISCONNECT does not say which message it is for; a gateway's PUBACK does (docs/platform_contract.md,
        # section 4).
        first = stamp if self.is_gateway or not self.in_flight else self.in_flight[0][2]
        assert self.limits.learn(first, stamp, amounts, "test", int(now * 1e9))
        self.lose(now + RECONNECT)
        self.queued += amounts[0]

    def lose(self, back):
        self.queued += sum(amounts[0] for _, amounts, _ in self.in_flight)
        self.in_flight.clear()
        self.connections += 1
        self.next_publish = back


def run(
    server,
    offered,
    seconds,
    *,
    a_message=25.0,
    is_gateway=True,
    latency=0.002,
    outage=None,
    backlog=0,
    clients=1,
    change=None,
    seed=1,
):
    """``offered``: datapoints a second and client. ``change``: (second, the server from then on)."""
    senders = [Client(a_message, is_gateway, backlog) for _ in range(clients)]
    rng = random.Random(seed)
    for step in range(int(seconds / STEP)):
        now = step * STEP
        if change and now >= change[0]:
            server = change[1]
        for sender in senders:
            sender.queued += offered * STEP
            if outage and now < outage[0] <= now + STEP:
                sender.lose(outage[1] + rng.uniform(0, 2))
                sender.limits.connection_lost(int(now * 1e9))
            sender.tick(server, now, latency)
            if step % int(1 / STEP) == 0:
                sender.history.append(sender.acknowledged)
    return senders


def rate(senders, first, last):
    return sum(sender.history[last] - sender.history[first] for sender in senders) / (last - first)


@pytest.mark.parametrize("is_gateway", [True, False])
@pytest.mark.parametrize("offered", [22_000, 30_000, 100_000])
def test_a_steady_load_above_a_limit_costs_one_connection(offered, is_gateway):
    [client] = run(Server([(20_000, 1)]), offered, 121, is_gateway=is_gateway)
    assert client.connections == 2
    assert rate([client], 0, 120) >= 0.9 * 20_000


def test_a_high_latency_changes_little():
    [client] = run(Server([(20_000, 1)]), 40_000, 121, is_gateway=False, latency=0.1)
    assert client.connections <= 3
    assert rate([client], 0, 120) >= 0.85 * 20_000


@pytest.mark.parametrize(("per_second", "a_message", "offered"), [(100, 20.0, 4000), (100, 2000.0, 400_000), (300, 25.0, 10_000)])
def test_a_limit_of_messages_is_distinguished_from_one_of_datapoints(per_second, a_message, offered):
    [client] = run(Server(messages=[(per_second, 1)]), offered, 121, a_message=a_message)
    assert client.connections <= 4
    # 300 messages of 20 datapoints and 6000 datapoints are equally round numbers, so it takes longer to find out.
    assert rate([client], 60, 120) >= 0.75 * per_second * a_message


def test_a_backlog_takes_at_most_a_quarter_longer_than_the_limit_requires():
    [client] = run(Server([(20_000, 1)]), 10_000, 70, outage=(5, 25))
    behind = [10_000 * second - done for second, done in enumerate(client.history)]
    begin = next(second for second in range(25, 70) if client.history[second] > client.history[25])
    allowed = behind[begin] / 10_000
    assert client.connections <= 6
    assert behind[begin + int(1.25 * allowed) + 1] <= 2 * 10_000


@pytest.mark.parametrize("seed", range(4))
def test_two_gateways_share_a_limit(seed):
    """After an outage, both send their backlogs. The first one that is refused may get a small share, but not for long."""
    clients = run(Server([(20_000, 1)]), 5_000, 90, clients=2, outage=(5, 25), seed=seed)
    assert all(client.connections <= 8 for client in clients)
    assert all(client.queued < 5_000 for client in clients)


@pytest.mark.parametrize(("before", "after"), [(20_000, 8_000), (8_000, 20_000), (20_000, 20)])
def test_the_estimate_follows_a_limit_that_changes(before, after):
    [client] = run(Server([(before, 1)]), 30_000, 301, change=(40, Server([(after, 1)])))
    assert rate([client], 240, 300) >= 0.8 * after
    assert client.connections <= 16


@pytest.mark.parametrize("windows", [[(20_000, 60)], [(1000, 1), (20_000, 60)], [(600, 10)], [(5, 1)]])
def test_limits_with_longer_windows_are_learned(windows):
    [client] = run(Server(windows), 2000, 301)
    limit = min(capacity / seconds for capacity, seconds in windows)
    assert rate([client], 100, 300) >= 0.8 * limit


@pytest.mark.parametrize("is_gateway", [True, False])
@pytest.mark.parametrize("capacity", [10, 300, 600, 2000])
def test_messages_get_smaller_until_the_limit_allows_them(capacity, is_gateway):
    [client] = run(Server([(capacity, 1)]), 0, 91, backlog=20 * capacity, is_gateway=is_gateway)
    assert client.acknowledged >= 0.99 * 20 * capacity
    assert client.connections <= 12


@pytest.mark.parametrize("is_gateway", [True, False])
def test_the_reported_estimate_is_the_limit_of_the_server(is_gateway):
    [client] = run(Server([(20_000, 1)]), 30_000, 61, is_gateway=is_gateway)
    [state] = [limit.state() for limit in client.limits.limits if limit.rate is not None]
    assert state.estimate == pytest.approx(20_000, rel=0.1)
    assert 0.9 * 20_000 <= state.per_second <= state.estimate


def test_frequent_checks_do_not_lower_the_rate_of_a_small_limit():
    """If several workers check one limit, parts of a token must not get lost when the rate changes."""
    limits = LearnedLimits("datapoints", "messages")
    now = 10**9
    stamps = []
    for _ in range(100):
        stamps.append(limits.record((1, 1), now))
        now += 10**9 // 4
    # The limit is 4 to 4.4 messages per second. The client starts at the lower bound, and grows for 20 seconds.
    assert limits.learn(stamps[-16], stamps[-1], (1, 1), "test", now)
    taken = 0
    for _ in range(200):
        now += 6 * 10**7
        if take_all(limits.requests((1, 1), now), now) is None:
            limits.record((1, 1), now)
            taken += 1
        else:
            limits.note_limited((1, 1), now)
    assert taken >= 0.8 * 12 * min(limit.rate for limit in limits.limits if limit.rate is not None)


def test_nothing_is_limited_before_the_first_refusal():
    limits = LearnedLimits("datapoints", "messages")
    limits.record((1000, 10), 0)
    assert (limits.active, limits.requests((10**9, 10**9), 10**9)) == (False, [])
    assert [limit.largest for limit in limits.limits] == [0, 0]


def test_refusals_of_messages_in_flight_count_as_one():
    """All messages in flight are refused together with the first one."""
    limits = LearnedLimits("datapoints", "messages")
    first, second = (limits.record((1000, 1), number) for number in range(2))
    assert limits.learn(first, first, (1000, 1), "test", 10**6)
    assert limits.learn(second, second, (1000, 1), "test", 10**6 + 1) == []


@pytest.mark.parametrize("amount", [1, 50])
@pytest.mark.parametrize("refused_after", [0.0, 20.0])
def test_an_estimate_of_at_most_one_per_second_grows_although_its_waits_are_long(refused_after, amount):
    """A worker then waits for more than a second at a time."""
    limits = LearnedLimits("messages")
    now = int(refused_after * 1e9)
    stamp = limits.record((1,), 0) if refused_after else limits.record((1,), now)
    assert limits.learn(stamp, stamp, (1,), "test", now)
    first_rate = limits.limits[0].rate
    assert first_rate <= 1
    published, end = 0, now + 180 * 10**9
    while now < end and published < 10_000:
        wait = take_all(limits.requests((amount,), now), now)
        if wait is None:
            limits.record((amount,), now)
            published += 1
        else:
            limits.note_limited((amount,), now)
            # A timer does not fire early.
            now += wait[0] + 10**6
    assert limits.limits[0].rate > 20 * first_rate


def test_a_load_below_the_estimate_is_not_limited():
    [client] = run(Server([(1000, 1)]), 3000, 10)
    [known] = [limit for limit in client.limits.limits if limit.rate is not None]
    now = 10 * 10**9
    for _ in range(200):
        now += 10**8
        # 10 messages of 50 datapoints per second are half of the limit.
        assert take_all(client.limits.requests((50, 1), now), now) is None
        client.limits.record((50, 1), now)
    assert known.rate <= 1000


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (19_950, 20_001, 0),
        (999, 999, 0),
        (470, 520, 0),
        (59.9, 60.1, 1),
        (690, 705, 1),
        (1490, 1510, 2),
        (0.97, 1.01, 0),
        (1230, 1236, 3),
        (0.1, 0.2, 3),
    ],
)
def test_the_roundness_of_a_range_is_that_of_its_roundest_number(low, high, expected):
    assert roundness(low, high) == expected
