"""An event loop without real time."""

import asyncio


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes as soon as nothing else is to be done."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    def run_until(self, when):
        """Run everything that is due until then, at its time."""

        async def pause():
            for _ in range(3):
                await asyncio.sleep(0)

        self.run_until_complete(pause())
        while timers := [timer.when() for timer in self._scheduled if not timer.cancelled() and timer.when() <= when]:
            self.now = min(timers)
            self.run_until_complete(pause())
        self.now = when
