"""When the clock of a device counts as set, and the times that held telemetry gets then."""

import asyncio
from datetime import UTC, datetime

import pytest

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.constants.option_values import ClockMode
from tb_mqtt_client.service.delivery.device_clock import Clocks, DeviceClock, boot_ms, kernel_says_synchronized, wall_ms

VALID_FROM = datetime(2026, 1, 1, tzinfo=UTC)
RIGHT = 1_790_000_000_000
SHUTDOWN = RIGHT - 3_600_000


class Machine:
    """A machine whose clocks a test sets."""

    def __init__(self, wall, *, synchronized=None):
        self.boot_time, self.offset, self.synchronized = 20_000, wall - 20_000, synchronized
        self.clocks = Clocks(lambda: self.offset + self.boot_time, lambda: self.boot_time, lambda: self.synchronized)

    def clock(self, mode=ClockMode.WAIT, *, needs_sync=True):
        return DeviceClock(mode, VALID_FROM, needs_sync=needs_sync, clocks=self.clocks)

    def set_clock(self, wall):
        self.offset = wall - self.boot_time


def encoded(data):
    return EncodedUplink.timeseries(data, None)


def stamps(uplink):
    return [entry.ts for entry in uplink.timeseries_entries()]


@pytest.mark.parametrize("synchronized", [True, None])
def test_a_clock_that_is_set_is_used(synchronized):
    machine = Machine(RIGHT, synchronized=synchronized)
    clock = machine.clock()
    assert clock.stamp() == RIGHT
    machine.boot_time += 5
    assert clock.stamp() == RIGHT + 5
    assert clock.health() == {"mode": "wait", "credible": True, "doubt": "", "held_sends": 0, "moved_seconds": 0.0}


def test_a_clock_without_a_time_is_not_used():
    """The clock starts in 1970, or at the date when the system was built."""
    for wall in (20_000, 1_700_000_000_000):
        clock = Machine(wall).clock()
        assert clock.stamp() is None
        assert clock.health()["doubt"] == "it is before 2026-01-01T00:00:00+00:00 (clock_valid_from)"


def test_a_clock_at_the_time_of_the_last_shutdown_is_not_used():
    clock = Machine(SHUTDOWN, synchronized=False).clock()
    assert clock.stamp() is None
    assert clock.health()["doubt"] == "the kernel reports that it is not synchronized (clock_synchronized)"
    assert Machine(SHUTDOWN, synchronized=False).clock(needs_sync=False).stamp() == SHUTDOWN


def test_a_clock_that_somebody_sets_is_used_even_if_the_kernel_does_not_know():
    machine = Machine(SHUTDOWN, synchronized=False)
    clock = machine.clock()
    machine.set_clock(SHUTDOWN + 5000)
    assert clock.stamp() is None
    machine.set_clock(RIGHT)
    assert clock.stamp() == RIGHT
    assert clock.health()["moved_seconds"] == 3600.0


def test_a_clock_that_is_set_to_a_wrong_time_is_not_used():
    machine = Machine(20_000)
    clock = machine.clock()
    machine.set_clock(1_700_000_000_000)
    assert clock.stamp() is None


def test_a_clock_stays_credible():
    """The kernel counts a clock as not synchronized again some hours after the last contact with a time server."""
    machine = Machine(RIGHT, synchronized=True)
    clock = machine.clock()
    assert clock.check()
    machine.synchronized = False
    assert clock.stamp() == RIGHT


def test_held_telemetry_gets_the_time_of_its_send():
    machine = Machine(20_000)
    clock = machine.clock()
    held = []
    for number in range(3):
        assert clock.stamp() is None
        held.append(clock.hold(encoded({"a": number})))
        machine.boot_time += 1000
    assert not clock.may_pack.is_set()
    assert clock.health()["held_sends"] == 3
    machine.set_clock(RIGHT)
    assert clock.check()
    assert clock.may_pack.is_set()
    assert [stamps(clock.stamped(uplink)) for uplink in held] == [[RIGHT - 3000], [RIGHT - 2000], [RIGHT - 1000]]
    assert clock.health() == {
        "mode": "wait",
        "credible": True,
        "doubt": "",
        "held_sends": 0,
        "moved_seconds": (RIGHT - 23_000) / 1000,
    }


def test_a_clock_that_is_set_twice_does_not_matter():
    machine = Machine(20_000)
    clock = machine.clock(ClockMode.CORRECT)
    first = clock.hold(encoded([{"a": 1}, {"ts": 19_500, "values": {"b": 1}}]))
    machine.set_clock(1_700_000_000_000)
    machine.boot_time += 1000
    second = clock.hold(encoded([{"a": 2}, {"ts": 1_700_000_000_900, "values": {"b": 1}}]))
    machine.set_clock(RIGHT)
    assert clock.check()
    assert stamps(clock.stamped(first)) == [RIGHT - 1000, RIGHT - 1500]
    assert stamps(clock.stamped(second)) == [RIGHT, RIGHT - 100]


def test_wait_leaves_timestamps_of_the_program_and_does_not_hold_them():
    clock = Machine(20_000).clock()
    own = clock.hold(encoded({"ts": 19_000, "values": {"a": 1}}))
    assert clock.may_pack.is_set()
    assert clock.health()["held_sends"] == 0
    assert stamps(clock.stamped(own)) == [19_000]


def test_correct_moves_only_times_since_boot():
    machine = Machine(SHUTDOWN, synchronized=False)
    clock = machine.clock(ClockMode.CORRECT)
    booted = SHUTDOWN - 20_000
    times = [booted - 6000, booted, SHUTDOWN - 1, SHUTDOWN, SHUTDOWN + 6000]
    uplink = clock.hold(encoded([{"ts": ts, "values": {f"k{ts}": 1}} for ts in times]))
    history = clock.hold(encoded({"ts": RIGHT - 10**9, "values": {"a": 1}}))
    assert not history.awaits_clock
    machine.synchronized = True
    machine.set_clock(RIGHT)
    assert clock.check()
    moved = RIGHT - SHUTDOWN
    assert stamps(clock.stamped(uplink)) == [times[0], booted + moved, RIGHT - 1, RIGHT, times[-1]]


async def test_the_clock_is_checked_while_telemetry_is_held(monkeypatch):
    timers = []
    loop = asyncio.get_running_loop()

    class Timer:
        def __init__(self, delay, callback):
            self.delay, self.callback, self.cancelled = delay, callback, False
            timers.append(self)

        def cancel(self):
            self.cancelled = True

    monkeypatch.setattr(loop, "call_later", Timer)
    machine = Machine(20_000)
    clock = machine.clock()
    clock.resume()
    assert timers == []
    clock.hold(encoded({"a": 1}))
    clock.hold(encoded({"a": 2}))
    for _ in range(7):
        timers[-1].callback()
    assert [timer.delay for timer in timers] == [1, 2, 4, 8, 16, 30, 30, 30]
    clock.resume()
    assert timers[-2].cancelled
    assert timers[-1].delay == 1
    clock.pause()
    assert timers[-1].cancelled
    clock.hold(encoded({"a": 3}))
    assert len(timers) == 9
    clock.resume()
    machine.set_clock(RIGHT)
    timers[-1].callback()
    assert clock.may_pack.is_set()
    assert len(timers) == 10


def test_the_clocks_of_this_machine():
    assert abs(wall_ms() - datetime.now(UTC).timestamp() * 1000) < 60_000
    assert 0 < boot_ms() <= boot_ms()
    assert kernel_says_synchronized() in {True, False, None}
