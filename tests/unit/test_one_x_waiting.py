"""How long a client of SDK 1.x waits, with a clock that only its waits move: the IoT Gateway has to end within 5 s of Ctrl-C."""

import itertools

import pytest

from tb_gateway_mqtt import TBGatewayMqttClient
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.one_x import connection as module
from tb_mqtt_client.service.life_cycle import ClientState
from tb_mqtt_client.sync.runtime import CALLBACK_SECONDS

SHUTDOWN = 5.0
"""Seconds that the application may take to end."""


class Clock:
    """Time passes only while something waits."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Core:
    """What a connection asks its client: whether it is connected, and how much the platform has acknowledged."""

    def __init__(self, clock, state, interval):
        self._clock, self._interval = clock, interval
        self.state = state

    @property
    def settled_datapoints(self):
        """One datapoint in each interval; none without an interval."""
        return int(self._clock.now / self._interval) if self._interval else 0

    def on_connection_event(self, _callback):
        pass

    def tap(self, _tap):
        pass


class Late:
    """A result that arrives some seconds after it was sent, or never."""

    def __init__(self, clock, seconds=None):
        self._clock = clock
        self._at = None if seconds is None else clock.now + seconds

    def done(self):
        return self._at is not None and self._clock.now >= self._at

    def result(self, timeout=None):
        if self._at is None or self._at - self._clock.now > timeout:
            self._clock.now += timeout
            raise TimeoutError
        self._clock.now = max(self._clock.now, self._at)
        return PublishResult("", 1, 1, 0, 0)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def connection_of_the_application(clock, state, interval):
    client = TBGatewayMqttClient("127.0.0.1", gateway=object())
    connection = client._new_connection(Core(clock, state, interval))
    connection.stops = []
    connection._end = connection.stops.append
    return connection


INTERVALS = [None, 0.1, 1.0, 1.9, 2.2, 10.0]
"""Seconds between acknowledgements."""


@pytest.mark.parametrize(("state", "interval"), list(itertools.product(ClientState, INTERVALS)))
def test_the_application_ends_in_time_in_every_state(clock, state, interval):
    """Its threads each wait for one result when it begins to end; it waits for these threads, and then disconnects."""
    longest = 0.0
    for results in ([None] * 20, [2.4] * 20, [0.1, None] * 10, [None, 0.4] * 10):
        connection = connection_of_the_application(clock, state, interval)
        for seconds in results:
            began = clock.now
            connection.wait(Late(clock, seconds))
            longest = max(longest, clock.now - began)
            connection.disconnect()
        assert longest + max(connection.stops) + CALLBACK_SECONDS < SHUTDOWN
    if not state.wants_connection:
        assert not longest


def test_results_that_are_read_in_turn_cost_one_long_wait(clock):
    connection = connection_of_the_application(clock, ClientState.OPEN, None)
    began = clock.now
    assert not any(connection.wait(Late(clock)) for _ in range(10_000))
    assert clock.now - began == connection.get_timeout


def test_nothing_waits_after_stop(clock):
    connection = connection_of_the_application(clock, ClientState.OPEN, 0.1)
    connection.release()
    began = clock.now
    assert not connection.wait(Late(clock, 0.1))
    assert clock.now == began


def test_another_program_waits_longer(clock):
    client = TBGatewayMqttClient("127.0.0.1")
    connection = client._new_connection(Core(clock, ClientState.OPEN, None))
    assert connection.wait(Late(clock, 29))
    assert not connection.wait(Late(clock))
