"""A clock that a test moves, and the timers of an event loop that may be blocked."""


class _Timer:
    def __init__(self, due, callback):
        self.due, self.callback, self.cancelled = due, callback, False

    def cancel(self):
        self.cancelled = True


class FakeTimers:
    """``clock`` and ``call_later`` of an event loop. ``wait`` runs the loop; ``block`` only moves the clock."""

    def __init__(self):
        self.now = 1000.0
        self._timers = []

    def clock(self):
        return self.now

    def call_later(self, delay, callback, *args):
        timer = _Timer(self.now + delay, lambda: callback(*args))
        self._timers.append(timer)
        return timer

    def block(self, seconds):
        self.now += seconds

    def wait(self, seconds):
        end = self.now + seconds
        while (due := self._next()) is not None and due.due <= end:
            self._timers.remove(due)
            self.now = max(self.now, due.due)
            due.callback()
        self.now = max(self.now, end)

    @property
    def running(self):
        """Return the number of timers that were neither called nor cancelled."""
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        return len(self._timers)

    def _next(self):
        return min((timer for timer in self._timers if not timer.cancelled), key=lambda timer: timer.due, default=None)
