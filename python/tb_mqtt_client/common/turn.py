"""Lets a thread wait for another one, even if Ctrl-C interrupts it."""

from __future__ import annotations

from contextlib import suppress
from threading import Lock


class Turn:
    """A signal from one thread to another, which is given once.

    ``threading.Event`` has a lock that both threads take. If Ctrl-C interrupts the waiting thread at the wrong moment, that lock
    stays taken or is released twice, and the event loop, which gives the signal, waits for it forever or fails. Giving this signal
    never waits.
    """

    __slots__ = ("_is_given", "_lock")

    def __init__(self) -> None:
        """Create a signal that is not given yet."""
        self._is_given = False
        self._lock = Lock()
        self._lock.acquire()

    @property
    def is_given(self) -> bool:
        """Whether the waiting thread may continue."""
        return self._is_given

    def give(self) -> None:
        """Let the waiting thread continue. Further calls change nothing."""
        if not self._is_given:
            self._is_given = True
            # An error means that another thread gives it at the same time.
            with suppress(RuntimeError):
                self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait for the signal. Called in one thread.

        Args:
            timeout: Seconds; ``None`` for no limit.

        Returns:
            False if the signal is not given within this time.
        """
        return self._is_given or self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
