"""An event loop without real time."""

import asyncio


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time moves to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    @property
    def pending_timers(self):
        """Return the number of timers that were scheduled and not cancelled."""
        return sum(not timer.cancelled() for timer in self._scheduled)

    def run_until(self, when):
        """Run all timers that are due until ``when``, each at its time."""

        async def pause():
            for _ in range(3):
                await asyncio.sleep(0)

        self.run_until_complete(pause())
        while timers := [timer.when() for timer in self._scheduled if not timer.cancelled() and timer.when() <= when]:
            self.now = min(timers)
            self.run_until_complete(pause())
        self.now = when
