"""Programs with threads, as workers of ``tb-mqtt bench``: programs for SDK 1.x, and for the synchronous clients.

The program for SDK 1.x runs on SDK 1.x, in the environment of that SDK, and on this package.
"""

import importlib.util
import os
import threading
import time
from importlib import import_module
from pathlib import Path

WORKER = Path(__file__).parents[1] / "python" / "tb_mqtt_client" / "bench" / "worker.py"
SECONDS = 60.0
"""A limit for results, so that a defect cannot block the benchmark."""

spec = importlib.util.spec_from_file_location("worker", WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


class Threaded(worker.Program):
    """Sends from some threads without waiting, and then waits for all results."""

    threads = 1

    def __init__(self, job, sends):
        super().__init__(job, sends)
        # What a program has: one record for a single timestamp.
        calls = [(name, records[0], len(records[0]["values"])) for name, records in sends]
        self.parts = [calls[first :: self.threads] for first in range(self.threads)]

    def send_part(self, calls):
        """Send, wait for all results, and return the number of acknowledged datapoints."""
        raise NotImplementedError

    def send(self):
        if self.threads == 1:
            return self.send_part(self.parts[0])
        found = []
        threads = [threading.Thread(target=lambda part: found.append(self.send_part(part)), args=[part]) for part in self.parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(found)


class OneX(Threaded):
    """A program for SDK 1.x."""

    def __init__(self, job, sends):
        super().__init__(job, sends)
        # If a package is missing, the SDK would install it.
        os.environ["PIP_NO_INDEX"] = "1"
        self._module = import_module("tb_gateway_mqtt")
        self.name = f"a program for SDK 1.x with {Path(self._module.__file__).parent}"

    def connect(self, server):
        self._client = self._module.TBGatewayMqttClient(server["host"], server["port"], server["access_token"])
        self._client.connect()
        # A broker that is not a platform announces no limits.
        for wanted, seconds in ((self._client.is_connected, SECONDS), (lambda: self._client.rate_limits_received, 2)):
            end = time.monotonic() + seconds
            while not wanted() and time.monotonic() < end:
                time.sleep(0.01)
        for name in sorted({name for name, _ in self.sends}):
            self._client.gw_connect_device(name).get()

    def send_part(self, calls):
        send = self._client.gw_send_telemetry
        infos = [send(name, record) for name, record, _ in calls]
        return sum(datapoints for info, (_, _, datapoints) in zip(infos, calls, strict=True) if info.get() == 0)

    def disconnect(self):
        self._client.disconnect()
        self._client.stop()


class OneXInThreads(OneX):
    threads = 4


class Synchronous(Threaded):
    """A program for the synchronous clients of this package."""

    name = "tb_mqtt_client.sync"

    def connect(self, server):
        self._client = import_module("tb_mqtt_client.sync").GatewayClient(server)
        self._client.connect()
        self._sessions = {name: self._client.connect_device(name)[0] for name in sorted({name for name, _ in self.sends})}

    def send_part(self, calls):
        send, sessions = self._client.send_device_timeseries, self._sessions
        deliveries = [send(sessions[name], record, wait=False) for name, record, _ in calls]
        results = [delivery.result(SECONDS) for delivery in deliveries]
        return sum(result.datapoints_count for result in results if result.is_successful())

    def disconnect(self):
        self._client.stop()


worker.PROGRAMS |= {"one_x": OneX, "one_x_in_threads": OneXInThreads, "sync": Synchronous}

if __name__ == "__main__":
    worker.run()
