"""The clock of a device that is not set at boot: it holds telemetry until the clock is credible, and stamps it then.

Until then, a timestamp is a time of the monotonic clock, which counts since boot and is never set. When the clock is set, the
difference of the two clocks gives the time since the epoch, also of telemetry that was sent before.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock, get_ident
from typing import Any, Final

from tb_mqtt_client._native import EncodedUplink
from tb_mqtt_client.common.logging_utils import ExtendedLogger, get_logger
from tb_mqtt_client.constants.option_values import ClockMode

logger: ExtendedLogger = get_logger(__name__)

STEP_MS: Final = 5000
"""A clock that has moved by more against the monotonic clock was set. Time daemons correct smaller errors slowly."""
FIRST_CHECK, LONGEST_CHECK = 1.0, 30.0
"""Seconds between two checks of the clock while telemetry is held. Python before 3.13 has no call with which the system announces
that a clock was set (timerfd), and a change of the kernel's state of synchronization is never announced."""
_TIME_ERROR: Final = 5
"""The result of adjtimex() for a clock that is not synchronized."""
_NANOSECONDS: Final = 1_000_000


def boot_ms() -> int:
    """Return the time since boot in milliseconds; on Linux, time in which the machine was suspended counts."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return (time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)) // _NANOSECONDS


def wall_ms() -> int:
    """Return the time since the epoch in milliseconds, as the device's clock has it."""
    return time.time_ns() // _NANOSECONDS


def kernel_says_synchronized() -> bool | None:
    """Return whether the kernel reports the clock as synchronized; ``None`` if it does not report that."""
    if not sys.platform.startswith("linux"):
        return None
    # Slow to import, and most clients do not need it.
    import ctypes  # noqa: PLC0415

    # The structure has about 200 bytes, differs between systems, and is not read: zeros ask for nothing to be changed.
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    # -1: a sandbox does not allow the call.
    return None if state < 0 else state != _TIME_ERROR


@dataclass(frozen=True)
class Clocks:
    """The clocks of the machine; tests have their own."""

    wall: Callable[[], int] = wall_ms
    """Returns milliseconds since the epoch."""
    boot: Callable[[], int] = boot_ms
    """Returns milliseconds since boot."""
    is_synchronized: Callable[[], bool | None] = kernel_says_synchronized
    """Returns whether the kernel reports the clock as synchronized; ``None`` if that is not known."""


class DeviceClock:
    """Decides when the clock is credible. From then on, it is: a clock that was right keeps the time.

    Any thread may use ``stamp``, ``hold`` and ``stamped``; the other methods belong to the event loop.
    """

    def __init__(self, mode: ClockMode, valid_from: datetime, *, needs_sync: bool, clocks: Clocks | None = None) -> None:
        """Create the clock of a client.

        Args:
            mode: ``WAIT`` or ``CORRECT``.
            valid_from: An earlier time is not credible.
            needs_sync: Whether the kernel has to report the clock as synchronized, unless it was set while this object existed.
            clocks: The clocks of the machine.
        """
        self._mode = mode
        self._valid_from_ms = int(valid_from.timestamp() * 1000)
        self._needs_sync = needs_sync
        self._clocks = clocks or Clocks()
        self._offset_at_start = self._offset_now()
        self._offset: int | None = None
        self.may_pack: asyncio.Event = asyncio.Event()
        """Cleared while telemetry is held."""
        self.may_pack.set()
        self._held_sends = 0
        self._check_delay = FIRST_CHECK
        self._timer: asyncio.TimerHandle | None = None
        self._is_running = False
        self.on_set: Callable[[], None] | None = None
        """Called in the event loop when the clock has become credible."""
        self._lock = Lock()
        """Held while the clock becomes credible, and while a send is counted as held."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = get_ident()

    def _offset_now(self) -> int:
        return self._clocks.wall() - self._clocks.boot()

    @property
    def is_credible(self) -> bool:
        """Whether the clock was found to be credible."""
        return self._offset is not None

    def stamp(self) -> int | None:
        """Return the time in milliseconds since the epoch, or ``None`` while the clock is not credible."""
        return self._clocks.wall() if self.check() else None

    def check(self) -> bool:
        """Return whether the clock is credible; if it has just become so, let held telemetry be packed."""
        if self._offset is not None:
            return True
        offset = self._offset_now()
        if self._doubt(offset):
            return False
        with self._lock:
            if self._offset is not None:
                return True
            self._offset = offset
        self._in_loop(self._was_set)
        return True

    def _was_set(self) -> None:
        """Let held telemetry go, which becomes no more: the clock is credible."""
        self.pause()
        if self._held_sends:
            assert self._offset is not None
            moved = (self._offset - self._offset_at_start) / 1000
            text = "The clock is credible now, %s (it moved by %+.3f s): the telemetry of %d sends gets its time and is published"
            logger.info(text, _iso(self._clocks.wall()), moved, self._held_sends)
            self._held_sends = 0
        if self.on_set is not None:
            self.on_set()
        self.may_pack.set()

    def _in_loop(self, function: Callable[[], None]) -> None:
        """Call a function in the event loop: at once in its thread, or before the client has one, and soon in others."""
        if self._loop is None or get_ident() == self._thread:
            function()
            return
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The event loop is closed, and nothing waits in it.
            return

    def _doubt(self, offset: int) -> str:
        """Return why a clock with this offset to the monotonic clock is not credible; an empty string if it is."""
        if self._clocks.wall() < self._valid_from_ms:
            return f"it is before {_iso(self._valid_from_ms)} (clock_valid_from)"
        was_set = abs(offset - self._offset_at_start) > STEP_MS
        if self._needs_sync and not was_set and self._clocks.is_synchronized() is False:
            return "the kernel reports that it is not synchronized (clock_synchronized)"
        return ""

    def hold(self, encoded: EncodedUplink) -> EncodedUplink:
        """Return the data of a send with times of the monotonic clock, where the clock would be needed for the right time.

        With ``CORRECT``, that includes timestamps of the program that are times since boot by the clock that is not set.
        """
        offset, now = self._offset_now(), self._clocks.boot()
        readings = None
        if self._mode is ClockMode.CORRECT:
            # The program may have read the clock a moment after it was set to another wrong time.
            readings = offset - STEP_MS, offset + now + STEP_MS, offset
        encoded = encoded.on_monotonic_clock(now, readings)
        if not encoded.awaits_clock:
            return encoded
        with self._lock:
            if self._offset is None:
                is_first = not self._held_sends
                self._held_sends += 1
                # Unlike `set`, this wakes nothing, so that any thread may do it.
                self.may_pack.clear()
            else:
                # Another thread has found the clock to be set since `stamp` was called.
                return self.stamped(encoded)
        if is_first:
            text = "Holding telemetry until the clock is set: it is %s, and %s"
            logger.warning(text, _iso(self._clocks.wall()), self._doubt(offset))
        self._in_loop(self._arm)
        return encoded

    def stamped(self, encoded: EncodedUplink) -> EncodedUplink:
        """Return the data of a send with times since the epoch. The clock must be credible if the data awaits it."""
        if not encoded.awaits_clock:
            return encoded
        assert self._offset is not None
        return encoded.with_clock_offset(self._offset)

    def resume(self) -> None:
        """Check the clock from now on while telemetry is held, at first often: with a network, the clock is soon set."""
        self.pause()
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._is_running = True
        self._check_delay = FIRST_CHECK
        if not self.check() and self._held_sends:
            self._arm()

    def pause(self) -> None:
        """Check the clock only at the next send or ``resume``."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is None and self._is_running and self._offset is None:
            self._timer = asyncio.get_running_loop().call_later(self._check_delay, self._check_again)
            self._check_delay = min(2 * self._check_delay, LONGEST_CHECK)

    def _check_again(self) -> None:
        self._timer = None
        if not self.check():
            self._arm()

    def health(self) -> dict[str, Any]:
        """Return the state as JSON values.

        - ``mode``: the option ``clock``.
        - ``credible``: whether the clock is credible; ``doubt``: why it is not.
        - ``held_sends``: sends with telemetry that has waited for the clock, and still does unless it was dropped.
        - ``moved_seconds``: how much the clock was moved until it was credible; ``None`` before.
        """
        offset = self._offset
        return {
            "mode": self._mode.value,
            "credible": offset is not None,
            "doubt": "" if offset is not None else self._doubt(self._offset_now()),
            "held_sends": self._held_sends,
            "moved_seconds": None if offset is None else (offset - self._offset_at_start) / 1000,
        }


def _iso(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="seconds")
