"""A client leaves no task and no unresolved future, however connect(), disconnect() and stop() end."""

import asyncio
import gc
import random
import subprocess
import sys
import textwrap
import weakref
from contextlib import suppress
from itertools import product

import pytest
from device_peer import FAST

from engine_parts import engine_of, sub_devices_of
from network_peers import free_ports
from tb_mqtt_client import ClientState, DeviceClient, GatewayClient, NotConnectedError
from tb_mqtt_client.emulator import Verdict

CLIENTS = pytest.mark.parametrize("kind", [DeviceClient, GatewayClient])


@pytest.fixture
async def contexts():
    """Return a list of contexts for the exception handler of the loop, such as "Task was destroyed but it is pending!"."""
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    return seen


def client_tasks():
    return {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()}


async def replying(*replies):
    """Start a server that sends one of ``replies`` after the first packet of each connection; with None, it sends nothing."""
    left = list(replies)

    async def serve(reader, writer):
        await reader.read(1000)
        reply = left.pop(0) if left else replies[-1]
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    return await asyncio.start_server(serve, "127.0.0.1")


FAILURES = {
    "refused": b"\x20\x03\x00\x86\x00",
    "closed": b"",
    "not MQTT": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "closed after the CONNACK": b"\x20\x03\x00\x00\x00",
    "silent": None,
}


@CLIENTS
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_connect_leaves_no_task(kind, failure, contexts):
    async with await replying(FAILURES[failure]) as server:
        host, port = server.sockets[0].getsockname()
        client = kind(FAST | {"host": host, "port": port, "access_token": "t", "connect_timeout": 0.05})
        for _ in range(3):
            with pytest.raises(OSError):  # noqa: PT011  # test_faults.py checks the kinds of errors
                await client.connect()
            assert client_tasks() == set()
        dropped = weakref.ref(client)
        del client
        await asyncio.sleep(0)
        gc.collect()
        assert dropped() is None
    assert contexts == []


@CLIENTS
async def test_refused_connections_leave_no_task(kind, contexts):
    [port] = free_ports(1)
    for _ in range(10):
        client = kind(FAST | {"host": "127.0.0.1", "port": port, "access_token": "t"})
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
        assert client_tasks() == set()
    del client
    gc.collect()
    await asyncio.sleep(0)
    assert contexts == []


async def test_a_cancelled_caller_of_connect_does_not_stop_the_queues(emulator):
    client = DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    for _ in range(3):
        first, second = asyncio.ensure_future(client.connect()), asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.disconnect()
    await client.stop()


@CLIENTS
async def test_data_sent_after_failed_connects_is_published_after_the_next(emulator, kind):
    token = "TOKEN" if kind is DeviceClient else "GATEWAY"
    client = kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": token})
    await emulator.stop()
    futures = []
    for attempt in range(3):
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
        futures += await client.send_timeseries({f"key {attempt}": 1}, wait_for_publish=False)
        if kind is GatewayClient:
            session, announced = await client.connect_device(f"meter {attempt}")
            futures += [*announced, await client.send_device_timeseries(session, {"a": 1}, wait_for_publish=False)]
    assert client_tasks() == set()
    await emulator.start()
    await client.connect()
    assert all(result.is_successful() for result in await asyncio.gather(*futures))
    await client.stop()


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("before", ["a failed connect", "disconnect"])
async def test_stop_does_not_wait_while_the_client_is_not_connecting(emulator, before, timeout):
    """Without an attempt to connect, nothing could be delivered."""
    client = DeviceClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
    if before == "disconnect":
        await client.connect()
        await client.disconnect()
    else:
        await emulator.stop()
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
    [future] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    async with asyncio.timeout(10):
        await client.stop(timeout)
    assert future.result().reason_code == -1
    assert client.statistics.undelivered == client.statistics.accepted == 1
    assert client_tasks() == set()


@CLIENTS
async def test_disconnect_leaves_no_task_and_keeps_the_queue(emulator, kind):
    token = "TOKEN" if kind is DeviceClient else "GATEWAY"
    client = kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": token})
    await client.connect()
    emulator.on_publish = lambda _: Verdict.ignore()
    futures = await client.send_timeseries({"in flight": 1}, wait_for_publish=False)
    await asyncio.sleep(0.01)
    futures += await client.send_attributes({"queued": 1}, wait_for_publish=False)
    await client.disconnect()
    assert client_tasks() == set()
    futures += await client.send_timeseries({"later": 1}, wait_for_publish=False)
    emulator.on_publish = None
    await client.connect()
    assert all(result.is_successful() for result in await asyncio.gather(*futures))
    await client.stop()


@pytest.mark.parametrize("method", ["stop", "disconnect"])
@pytest.mark.parametrize("seed", range(30))
async def test_a_stop_or_disconnect_that_is_cancelled_several_times_leaves_no_task(emulator, method, seed, contexts):
    dice = random.Random(seed)
    client = GatewayClient(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "GATEWAY"})
    await client.connect()
    session, _ = await client.connect_device("meter", wait_for_publish=True)
    if dice.random() < 0.5:
        emulator.on_publish = lambda _: Verdict.ignore()
    futures = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    futures.append(await client.send_device_timeseries(session, {"a": 1}, wait_for_publish=False))
    request = asyncio.ensure_future(client.call_rpc("method", {}))
    ending = asyncio.ensure_future(getattr(client, method)(*([60] if method == "stop" else [])))
    for _ in range(dice.randrange(1, 4)):
        for _ in range(dice.randrange(1, 6)):
            await asyncio.sleep(0)
        ending.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([ending, request])
    assert client_tasks() == set()
    assert not client.health()["connected"]
    if method == "disconnect":
        await client.stop(0)
    assert all(future.done() for future in futures)
    statistics = client.statistics
    assert statistics.accepted == statistics.acknowledged + statistics.undelivered == 2
    assert contexts == []


@CLIENTS
@pytest.mark.parametrize("block", range(4))
async def test_a_stop_at_any_moment_of_connect_leaves_no_task(emulator, kind, block, contexts):
    token = "TOKEN" if kind is DeviceClient else "GATEWAY"
    for turns in range(25 * block + 1, 25 * block + 26):
        client = kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": token})
        connecting_now = asyncio.ensure_future(client.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.stop(0)
        await asyncio.wait([connecting_now])
        connecting_now.exception()
        assert client_tasks() == set()
    assert contexts == []


PARTS = ["requests", "firmware_updater", "keeper", "mqtt_manager"]


@pytest.mark.parametrize(
    ("kind", "part"), [*product((DeviceClient, GatewayClient), PARTS), (GatewayClient, "requests of sub-devices")]
)
async def test_an_error_in_one_part_of_stop_does_not_prevent_the_end_of_others(emulator, kind, part):
    token = "TOKEN" if kind is DeviceClient else "GATEWAY"
    client = kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": token})
    await client.connect()
    emulator.on_publish = lambda _: Verdict.ignore()
    futures = await client.send_timeseries({"a": 1}, wait_for_publish=False)
    if part == "requests of sub-devices":
        owner = sub_devices_of(client).requests
    else:
        owner = getattr(client if part == "firmware_updater" else engine_of(client), part)
    stop = owner.stop

    async def fail():
        await stop()
        raise LookupError("a defect")

    owner.stop = fail
    with pytest.raises(LookupError, match="a defect"):
        await client.stop(0)
    assert client_tasks() == set()
    assert not client.health()["connected"]
    assert [future.result().reason_code for future in futures] == [-1]


@CLIENTS
@pytest.mark.parametrize("following", ["connect", "disconnect", "stop"])
async def test_a_program_may_go_on_after_it_cancelled_all_tasks(emulator, kind, following, contexts):
    token = "TOKEN" if kind is DeviceClient else "GATEWAY"
    client = kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": token})
    await client.connect()
    cancelled = client_tasks()
    for task in cancelled:
        task.cancel()
    await asyncio.wait(cancelled)
    await asyncio.sleep(0)
    assert client.state is ClientState.FAILED
    with pytest.raises(NotConnectedError, match="was cancelled"):
        await client.send_timeseries({"a": 1})
    await getattr(client, following)()
    if following == "connect":
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()
    assert client_tasks() == set()
    assert not client.health()["connected"]
    assert contexts == []


PROGRAM = """
    import asyncio, gc
    from tb_mqtt_client import DeviceClient, GatewayClient
    from tb_mqtt_client.emulator import Emulator

    async def main():
        # Python's development mode would report the first connection on a busy machine.
        asyncio.get_running_loop().slow_callback_duration = 60
        async with Emulator() as emulator:
            emulator.add_device("TOKEN", "device")
            emulator.add_gateway("GATEWAY", "gateway")
            options = {"host": emulator.host, "port": emulator.port}
            clients = DeviceClient(options | {"access_token": "TOKEN"}), GatewayClient(options | {"access_token": "GATEWAY"})
            for client in clients:
                await ACTION
        return clients

    clients = asyncio.run(main())
    del clients
    gc.collect()
"""


@pytest.mark.parametrize(
    "action",
    ["client.connect()", "asyncio.wait([asyncio.ensure_future(client.connect())], timeout=0.001)", "emulator.stop()"],
    ids=["connected", "connecting", "server gone"],
)
def test_a_program_that_ends_without_stop_prints_no_error(action):
    program = textwrap.dedent(PROGRAM).replace("ACTION", action)
    if action == "emulator.stop()":
        program = program.replace("            await emulator.stop()", "            await client.connect()") + "# as it ends"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
