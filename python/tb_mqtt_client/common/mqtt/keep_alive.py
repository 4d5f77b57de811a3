"""Keep-alive: ping a quiet server, and detect a dead connection.

Invariant: a connection is dead if a PINGREQ has left this process and nothing came back while the event loop ran. Time in which the
loop was blocked, the process was stopped or the machine was asleep does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

BLOCKED_LOOP_SECONDS: Final = 1.0
"""A timer that fires this many seconds too late shows that the loop was blocked."""
QUIET_SHARE: Final = 0.8
"""A PINGREQ is due if nothing was received, or nothing was sent, for this share of the keep-alive."""
PATIENCE_STEPS: Final = 4
PATIENCE_STEP_SHARE: Final = 0.3
"""Each step takes this share of the keep-alive: with ``QUIET_SHARE``, a dead connection is noticed after twice the keep-alive."""
MAX_FORGIVEN_STEPS: Final = 8
"""The largest number of steps that do not count: a loop that is blocked all the time must also notice a dead connection."""


class Timer(Protocol):
    """A call that was scheduled."""

    def cancel(self) -> None:
        """Do not make the call."""


class Timers(Protocol):
    """The part of an event loop that is needed here."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Schedule a call in ``delay`` seconds."""


class KeepAlive:
    """Watches one connection, from its CONNACK to ``stop``. One timer runs at a time."""

    def __init__(
        self,
        seconds: float,
        timers: Timers,
        *,
        ping: Callable[[], None],
        unsent_bytes: Callable[[], int],
        on_silent: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start watching.

        Args:
            seconds: The keep-alive; with 0, nothing is pinged or watched.
            timers: The event loop.
            ping: Writes a PINGREQ.
            unsent_bytes: Returns the number of written bytes that have not reached the peer.
            on_silent: Called once, with the seconds since the last byte from the server.
            clock: Returns monotonic seconds.
        """
        self._seconds = seconds
        self._timers = timers
        self._ping = ping
        self._unsent_bytes = unsent_bytes
        self._on_silent = on_silent
        self._clock = clock
        self._timer: Timer | None = None
        self.last_in: float = clock()
        self.last_out: float = self.last_in
        """When the last bytes were received and written; set by the connection."""
        self._pinged_at = 0.0
        self._due = 0.0
        self._steps = self._forgiven = self._unsent = 0
        self._schedule_ping()

    @property
    def seconds(self) -> float:
        """The keep-alive in seconds."""
        return self._seconds

    @property
    def is_watching(self) -> bool:
        """Whether a timer is running."""
        return self._timer is not None

    def restart(self, seconds: float) -> None:
        """Use another keep-alive, such as the server's own (MQTT 5, section 3.2.2.3.14)."""
        self.stop()
        self._seconds = seconds
        self._schedule_ping()

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self._due = self._clock() + delay
        self._timer = self._timers.call_later(delay, callback)

    def _schedule_ping(self) -> None:
        if self._seconds:
            due = min(self.last_in, self.last_out) + QUIET_SHARE * self._seconds
            self._call_later(max(0.0, due - self._clock()), self._ping_if_quiet)

    def _ping_if_quiet(self) -> None:
        now = self._clock()
        if min(self.last_in, self.last_out) + QUIET_SHARE * self._seconds > now:
            self._schedule_ping()
            return
        self._ping()
        self._pinged_at = now
        self._steps, self._forgiven = PATIENCE_STEPS, MAX_FORGIVEN_STEPS
        self._wait_step()

    def _wait_step(self) -> None:
        self._unsent = self._unsent_bytes()
        self._call_later(PATIENCE_STEP_SHARE * self._seconds, self._judge)

    def _judge(self) -> None:
        now = self._clock()
        if self.last_in >= self._pinged_at:
            self._schedule_ping()
            return
        # Bytes are leaving, so the peer reads, and the PINGREQ may still be queued behind them.
        if self._unsent_bytes() < self._unsent:
            pass
        elif now - self._due > BLOCKED_LOOP_SECONDS and self._forgiven:
            self._forgiven -= 1
        else:
            self._steps -= 1
        if self._steps:
            self._wait_step()
        else:
            self.stop()
            self._on_silent(now - self.last_in)
