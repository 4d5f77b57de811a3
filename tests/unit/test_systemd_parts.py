"""The parts of a systemd service without a client: the socket, the watchdog's interval, movement of data, the status line."""

import os
import socket

import pytest

from tb_mqtt_client.systemd import Movement, NotifySocket, SystemdService, status_text, watchdog_seconds

IDLE = {
    "state": "open", "ready": True, "limited": False, "clock": None, "connect_error": None, "acknowledged": 0, "rejected": 0,
    "dropped": 0, "undelivered": 0, "kept": 0, "queued": 0, "in_flight": 0,
}  # fmt: skip


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def movement(time):
    return Movement(10, time)


BUSY = {"queued": 5, "in_flight": 2}


def test_data_without_a_result_is_stalled_after_the_time(movement, time):
    assert not movement.is_stalled(IDLE | BUSY)
    time.now = 9.9
    assert not movement.is_stalled(IDLE | BUSY)
    time.now = 10
    assert movement.is_stalled(IDLE | BUSY)


@pytest.mark.parametrize("result", ["acknowledged", "rejected", "dropped", "undelivered", "kept"])
def test_any_result_is_movement(movement, time, result):
    movement.is_stalled(IDLE | BUSY)
    time.now = 10
    assert not movement.is_stalled(IDLE | BUSY | {result: 1})
    time.now = 19
    assert not movement.is_stalled(IDLE | BUSY | {result: 1})
    time.now = 20
    assert movement.is_stalled(IDLE | BUSY | {result: 1})


@pytest.mark.parametrize(
    "waiting",
    [
        {"ready": False, "state": "reconnecting"},
        {"limited": True},
        {"clock": {"credible": False, "held_sends": 1}},
        {"queued": 0, "in_flight": 0},
    ],
)
def test_waiting_is_not_stalled(movement, time, waiting):
    movement.is_stalled(IDLE | BUSY | waiting)
    time.now = 100
    assert not movement.is_stalled(IDLE | BUSY | waiting)
    # The time begins when the client could send again.
    time.now = 109
    assert not movement.is_stalled(IDLE | BUSY)
    time.now = 110
    assert movement.is_stalled(IDLE | BUSY)


def test_a_client_that_has_failed_is_stalled(movement):
    assert movement.is_stalled(IDLE | {"state": "failed", "ready": False})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
    ],
)
def test_the_interval_of_the_watchdog(environment, seconds):
    assert watchdog_seconds(environment, 7) == seconds


@pytest.mark.parametrize(
    "environment",
    [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "-1"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "x"}],
)
def test_an_impossible_interval_is_refused(environment):
    with pytest.raises(ValueError, match="WATCHDOG_USEC and WATCHDOG_PID must be positive integers"):
        watchdog_seconds(environment, 7)


def test_the_status_line():
    failing = IDLE | {"state": "connecting", "ready": False, "connect_error": "h:1883: refused", "queued": 2, "rejected": 1}
    assert status_text([IDLE | {"acknowledged": 3}]) == "open: acknowledged 3, queued 0"
    assert status_text([IDLE | {"acknowledged": 3}, failing]) == (
        "open, connecting: acknowledged 3, queued 2, rejected 1; h:1883: refused"
    )


@pytest.mark.parametrize("is_abstract", [False, True])
def test_datagrams_of_the_socket(is_abstract, tmp_path):
    name = f"@tb-mqtt-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        notify = NotifySocket(name)
        notify.send(READY=1, STATUS="two\nlines")
        assert manager.recv(1000) == b"READY=1\nSTATUS=two lines"
        notify.close()
        notify.send(READY=1)
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(1000)


def test_a_missing_service_manager_is_logged(tmp_path, caplog):
    notify = NotifySocket(str(tmp_path / "missing"))
    notify.send(READY=1)
    notify.close()
    assert f"The service manager at {tmp_path / 'missing'} cannot be notified" in caplog.text


@pytest.mark.parametrize("address", ["relative", "@", "/"])
def test_an_impossible_address_is_refused(address):
    with pytest.raises(ValueError, match="NOTIFY_SOCKET must be an absolute path or @name"):
        NotifySocket(address)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"stop_timeout": 0}, ValueError, "stop_timeout must be a positive number of seconds, not 0"),
        ({"stall_timeout": None}, TypeError, "stall_timeout must be a number of seconds, not None"),
        ({"status_interval": "a"}, TypeError, "status_interval must be a number of seconds, not 'a'"),
        ({"on_reload": 5}, TypeError, "on_reload must be a function or a coroutine function, not 5"),
    ],
)
def test_impossible_options_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        SystemdService(object(), **options)


def test_a_service_needs_a_client():
    with pytest.raises(ValueError, match="clients must have at least one client"):
        SystemdService()
