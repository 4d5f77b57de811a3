"""What comes in beside the telemetry: attribute updates and calls on a busy gateway."""

import asyncio
import subprocess
import sys
import time

import pytest

from corpora import telemetry
from road import Ours
from tb_mqtt_client import GatewayRPCResponse

CALLS_A_SECOND = 10_000 / 60
"""Of each kind."""
ROUNDS = 7
DEVICES = 200

# A process of its own, as the platform is one. It ends when its input does.
SERVER = """
import asyncio, sys
from gmqtt import Client

async def main():
    host, port, devices, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.read)
    client = Client("server")
    await client.connect(host, port)
    began, sent = loop.time(), 0
    while not over.done():
        while sent < (loop.time() - began) * rate:
            name = f"device {sent % devices}"
            client.publish("v1/gateway/attributes", {"device": name, "data": {"setpoint": sent}}, qos=1)
            client.publish("v1/gateway/rpc", {"device": name, "data": {"id": sent, "method": "read", "params": {}}}, qos=1)
            sent += 1
        await asyncio.sleep(0.02)
    await client.disconnect()

asyncio.run(main())
"""


@pytest.mark.parametrize("peer", ["nothing comes in", "native"])
def test_telemetry_beside_what_comes_in(benchmark, broker, peer):
    calls = [(name, records[0]) for name, records in telemetry(10_000, 10, DEVICES).calls]
    updates = answers = 0

    async def updated(_session, _update):
        nonlocal updates
        updates += 1

    async def called(_session, request):
        nonlocal answers
        answers += 1
        return GatewayRPCResponse.build(request.device_name, request.request_id, result={"value": answers})

    with asyncio.Runner() as runner:
        program = Ours(broker, sorted({name for name, _ in calls}))
        runner.run(program.start())
        for session in program.sessions.values():
            session.set_attribute_update_callback(updated)
            session.set_rpc_request_callback(called)
        arguments = [broker.host, str(broker.port), str(DEVICES), str(CALLS_A_SECOND)]
        server = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], stdin=subprocess.PIPE) if peer == "native" else None

        async def stream():
            """Two seconds and more of telemetry, so that what comes in comes in during all of it."""
            began = time.perf_counter()
            datapoints = 0
            while time.perf_counter() - began < 2:
                datapoints += await program.send(calls)
            return datapoints / (time.perf_counter() - began)

        rates = []
        benchmark.group = "gateway, telemetry beside 10,000 updates and 10,000 calls a minute"
        began = time.perf_counter()
        benchmark.pedantic(lambda: rates.append(runner.run(stream())), rounds=ROUNDS, warmup_rounds=1)
        seconds = time.perf_counter() - began
        if server is not None:
            server.communicate()
        statistics = program.statistics
        runner.run(program.stop())
    expected = 0.9 * CALLS_A_SECOND * seconds if server is not None else 0
    assert min(updates, answers) >= expected
    assert statistics.callback_errors == statistics.inbound_refused == statistics.inbound_malformed == 0
    # A time, as the other benches have: of a million datapoints.
    benchmark.extra_info.update(peer=peer, correct=True, value=1e6 / sorted(rates[1:])[ROUNDS // 2])
