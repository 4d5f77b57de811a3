"""The reports about a backlog are measured: what is left, the rate, and when it will be gone."""

import pytest

from tb_mqtt_client.service.delivery.backlog import BacklogLeft, BacklogPace, total_of

NOW_MS = 1_700_000_000_000


class Drain:
    """A backlog of one datapoint a send, and a clock."""

    def __init__(self, left):
        self.seconds, self.left, self.limit = 1000.0, left, "device telemetry datapoints"
        self.pace = BacklogPace(
            self._left, lambda: self.limit, lambda: round(self.seconds * 1e9), lambda: NOW_MS + round(self.seconds * 1000)
        )

    def _left(self):
        return BacklogLeft(self.left, self.left, 10 * self.left, NOW_MS if self.left else 0)

    def run(self, seconds, *, sent, added=0, steps=4):
        """Send and add datapoints at constant rates."""
        for _ in range(int(seconds * steps)):
            self.seconds += 1 / steps
            self.left += added // steps - sent // steps
            self.pace.note_sent(sent // steps)

    def state(self, *names):
        state = self.pace.state()
        return [state[name] for name in names]


def test_without_a_backlog_nothing_is_left():
    state = Drain(0).pace.state()
    assert state == {
        "sends": 0,
        "datapoints": 0,
        "bytes": 0,
        "oldest_seconds": None,
        "per_second": None,
        "eta_seconds": None,
        "limit": None,
    }


def test_a_backlog_that_waits_has_no_rate():
    drain = Drain(5000)
    assert drain.state("datapoints", "bytes", "oldest_seconds", "per_second", "eta_seconds", "limit") == [
        5000, 50_000, 1000.0, None, None, "device telemetry datapoints",
    ]  # fmt: skip


def test_the_eta_is_the_rest_at_the_measured_rate():
    drain = Drain(100_000)
    drain.run(21, sent=1000)
    assert drain.state("datapoints", "per_second", "eta_seconds") == [
        79_000,
        pytest.approx(1000, rel=0.02),
        pytest.approx(79, rel=0.02),
    ]


def test_data_that_is_added_meanwhile_makes_the_eta_later():
    drain = Drain(100_000)
    drain.run(21, sent=1000, added=500)
    assert drain.state("per_second", "eta_seconds") == [pytest.approx(1000, rel=0.02), pytest.approx(89_500 / 500, rel=0.03)]
    drain.run(60, sent=1000, added=2000)
    assert drain.state("eta_seconds") == [None]


def test_the_rate_follows_the_last_minute():
    drain = Drain(1_000_000)
    drain.run(100, sent=4000)
    drain.run(61, sent=1000)
    assert drain.state("per_second") == [pytest.approx(1000, rel=0.02)]
    # Nothing is sent any more.
    drain.seconds += 600
    assert drain.state("per_second") < [2]


def test_the_log_has_a_line_a_minute_and_one_at_the_end(caplog):
    caplog.set_level("INFO", "tb_mqtt_client")
    drain = Drain(200_000)
    drain.run(59, sent=1000)
    assert caplog.messages == []
    drain.run(2, sent=1000)
    [line] = caplog.messages
    assert line.startswith("Backlog: 139,")
    assert line.endswith("sent per second, sent in about 2 min 19 s, limited by device telemetry datapoints")
    assert "the oldest from 17 min 40 s ago" in line
    drain.run(139, sent=1000)
    assert drain.left == 0
    assert len(caplog.messages) == 4
    assert caplog.messages[-1] == "The backlog is sent: 200,000 datapoints in 3 min 20 s"
    caplog.clear()
    drain.left = 1000
    drain.run(1, sent=1000)
    assert caplog.messages == ["The backlog is sent: 1,000 datapoints in 1 s"]


def test_the_parts_of_a_backlog_are_added():
    parts = [BacklogLeft(1, 2, 3, 0), BacklogLeft(10, 20, 30, 500), BacklogLeft(), BacklogLeft(0, 0, 0, 400)]
    assert total_of(parts) == BacklogLeft(11, 22, 33, 400)
