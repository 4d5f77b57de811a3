"""An emulator in a thread that wakes a test which waits for something on the platform."""

import threading

from one_x_platform import PlatformThread


class WatchedPlatform(PlatformThread):
    """Wakes a test that waits for something on the platform."""

    def __init__(self, **options):
        self._happened = threading.Event()
        super().__init__(**options)
        self.emulator.on_event = lambda _: self._happened.set()

    def wait_for_event(self, seconds):
        """Wait until a message or a connection has come since the last call, at most for some seconds."""
        self._happened.wait(seconds)
        self._happened.clear()

    def counts(self):
        """Return the number of datapoints of each device."""

        async def read():
            devices = self.emulator.devices
            return {name: sum(len(values) for _, values in device.records) for name, device in devices.items()}

        return self.run(read())
