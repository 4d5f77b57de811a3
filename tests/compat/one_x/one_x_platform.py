"""An emulator in a thread of its own, for programs without an event loop."""

import asyncio
import threading

from tb_mqtt_client.emulator import Emulator

FAST = {"min_reconnect_delay": 0.001, "timeout": 0.01}
"""Arguments of ``connect`` for reconnects without delay."""
SECONDS = 30
"""A limit for waiting, so that a defect cannot block the tests."""


class PlatformThread:
    """Runs an emulator with a device, a gateway and a provisioning profile."""

    def __init__(self, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.emulator = self.run(self._start(options))
        self.host, self.port = self.emulator.host, self.emulator.port

    async def _start(self, options):
        emulator = Emulator(**options)
        await emulator.start()
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        emulator.add_provision_profile("KEY", "SECRET")
        return emulator

    def run(self, work):
        """Run a coroutine in the thread of the emulator, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def stored(self, name="device"):
        """Return the telemetry of a device: time, key and value."""

        async def read():
            return [tuple(point) for point in self.emulator.device(name).telemetry]

        return self.run(read())

    def values(self, name="device"):
        return [(key, value) for _, key, value in self.stored(name)]

    def stop(self):
        self.run(self.emulator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Calls:
    """A callback that keeps its arguments."""

    def __init__(self, result=None):
        self.all = []
        self.result = result
        self._changed = threading.Condition()

    def __call__(self, *arguments):
        with self._changed:
            self.all.append(arguments)
            self._changed.notify_all()
        return self.result

    def wait(self, count):
        """Return the arguments when there are some of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, SECONDS), self.all
            return self.all[:count] if count > 1 else self.all[0]
