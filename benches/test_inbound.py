"""Inbound messages beside telemetry: attribute updates and server-side RPC requests on a busy gateway."""

import asyncio
import statistics
import subprocess
import sys
import time

from corpora import telemetry
from end_to_end import Ours
from tb_mqtt_client import GatewayRPCResponse

MESSAGES_PER_SECOND = 10_000 / 60
"""Messages of each kind per second."""
ROUNDS = 15
SECONDS = 1.0
DEVICES = 200

# A process of its own, as the platform is. A line of its input starts or stops it, and it ends when its input ends.
SERVER = """
import asyncio, sys
from gmqtt import Client

async def main():
    host, port, devices, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    loop = asyncio.get_running_loop()
    client = Client("server")
    await client.connect(host, port)
    sent = 0
    while await loop.run_in_executor(None, sys.stdin.readline):
        stop = loop.run_in_executor(None, sys.stdin.readline)
        began, before = loop.time(), sent
        while not stop.done():
            while sent - before < (loop.time() - began) * rate:
                name = f"device {sent % devices}"
                client.publish("v1/gateway/attributes", {"device": name, "data": {"setpoint": sent}}, qos=1)
                client.publish("v1/gateway/rpc", {"device": name, "data": {"id": sent, "method": "read", "params": {}}}, qos=1)
                sent += 1
            await asyncio.sleep(0.02)
    await client.disconnect()

asyncio.run(main())
"""


class Server:
    """Sends attribute updates and RPC requests while it is switched on."""

    def __init__(self, broker):
        arguments = [broker.host, str(broker.port), str(DEVICES), str(MESSAGES_PER_SECOND)]
        self._process = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], stdin=subprocess.PIPE, text=True)

    def switch(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self):
        self._process.communicate()


class Gateway:
    """Streams telemetry and responds to RPC requests."""

    def __init__(self, broker):
        self._calls = [(name, records[0]) for name, records in telemetry(10_000, 10, DEVICES).calls]
        self._program = Ours(broker, sorted({name for name, _ in self._calls}))
        self.updates = self.responses = 0

    async def start(self):
        await self._program.start()
        for session in self._program.sessions.values():
            session.set_attribute_update_callback(self._updated)
            session.set_rpc_request_callback(self._requested)

    async def _updated(self, _session, _update):
        self.updates += 1

    async def _requested(self, _session, request):
        self.responses += 1
        return GatewayRPCResponse.build(request.device_name, request.request_id, result={"value": self.responses})

    async def stream(self):
        """Return datapoints per second."""
        began = time.perf_counter()
        datapoints = 0
        while time.perf_counter() - began < SECONDS:
            datapoints += await self._program.send(self._calls)
        return datapoints / (time.perf_counter() - began)

    async def stop(self):
        counts = self._program.statistics
        await self._program.stop()
        return counts


def test_telemetry_beside_inbound_messages(benchmark, broker):
    """Each round is a second with and a second without inbound messages, so that other load on the machine affects both."""
    gateway, server = Gateway(broker), Server(broker)
    ratios, taken = [], []
    with asyncio.Runner() as runner:
        runner.run(gateway.start())

        def one_round():
            alone = runner.run(gateway.stream())
            before = gateway.updates, gateway.responses
            server.switch()
            ratios.append(runner.run(gateway.stream()) / alone)
            server.switch()
            taken.append((gateway.updates - before[0], gateway.responses - before[1]))

        benchmark.group = "gateway, telemetry during 10,000 attribute updates and 10,000 RPC requests per minute"
        benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
        server.end()
        counts = runner.run(gateway.stop())
    expected = 0.9 * MESSAGES_PER_SECOND * SECONDS
    assert all(min(both) >= expected for both in taken[1:]), taken
    assert counts.callback_errors == counts.inbound_refused == counts.inbound_malformed == 0
    benchmark.extra_info.update(peer="native", correct=True, value=statistics.median(ratios[1:]))
