"""Programs by hand with paho-mqtt and with aiomqtt, as a worker of ``tb-mqtt bench``, run in the environment of these libraries.

Both do what the program with gmqtt in ``end_to_end.py`` does: ``orjson.dumps`` for the data of each send, and a publish with QoS 1,
100 of them in flight.
"""

import asyncio
import importlib.util
import threading
from importlib import metadata
from pathlib import Path

import aiomqtt
import orjson
import paho.mqtt
from paho.mqtt import client as paho_client

WORKER = Path(__file__).parents[1] / "python" / "tb_mqtt_client" / "bench" / "worker.py"
WINDOW = 100

spec = importlib.util.spec_from_file_location("worker", WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


class ByHand(worker.Program):
    def __init__(self, job, sends):
        super().__init__(job, sends)
        self.topic = "v1/gateway/telemetry" if self.gateway else "v1/devices/me/telemetry"
        # What a program has: one record for a single timestamp, and a list otherwise.
        self.calls = [(name, data if len(data) > 1 or name is not None else data[0]) for name, data in sends]
        self.datapoints = sum(len(record["values"]) for _, data in sends for record in data)

    def payload(self, name, data):
        return orjson.dumps(data if name is None else {name: data})


class Paho(ByHand):
    def __init__(self, job, sends):
        super().__init__(job, sends)
        self.name = f"paho-mqtt {paho.mqtt.__version__}"

    def connect(self, server):
        connected = threading.Event()
        self.acknowledged = threading.Semaphore(0)
        self.client = paho_client.Client(paho_client.CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(server["access_token"])
        self.client.max_inflight_messages_set(WINDOW)
        self.client.on_connect = lambda *_: connected.set()
        self.client.on_publish = lambda *_: self.acknowledged.release()
        self.client.connect(server["host"], server["port"])
        self.client.loop_start()
        if not connected.wait(30):
            raise TimeoutError("no session within 30 s")

    def send(self):
        for name, data in self.calls:
            self.client.publish(self.topic, self.payload(name, data), qos=1)
        for _ in self.calls:
            self.acknowledged.acquire()
        return self.datapoints

    def disconnect(self):
        self.client.disconnect()
        self.client.loop_stop()


class Aiomqtt(ByHand):
    def __init__(self, job, sends):
        super().__init__(job, sends)
        self.name = f"aiomqtt {metadata.version('aiomqtt')}"

    def connect(self, server):
        self.runner.run(self._connect(server))

    async def _connect(self, server):
        self.client = aiomqtt.Client(
            server["host"],
            server["port"],
            username=server["access_token"],
            max_inflight_messages=WINDOW,
            max_concurrent_outgoing_calls=WINDOW,
        )
        await self.client.__aenter__()

    def send(self):
        return self.runner.run(self._send())

    async def _send(self):
        calls = iter(self.calls)

        async def publish():
            for name, data in calls:
                await self.client.publish(self.topic, self.payload(name, data), qos=1, timeout=worker.ENDLESS)

        async with asyncio.TaskGroup() as group:
            for _ in range(WINDOW):
                group.create_task(publish())
        return self.datapoints

    def disconnect(self):
        self.runner.run(self.client.__aexit__(None, None, None))


worker.PROGRAMS |= {"paho": Paho, "aiomqtt": Aiomqtt}

if __name__ == "__main__":
    worker.run()
