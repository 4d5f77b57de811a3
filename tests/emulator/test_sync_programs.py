"""Programs with synchronous clients in processes of their own: their end, Ctrl-C, and fork."""

import asyncio
import signal
import sys

import pytest
from device_peer import FAST

from programs import running
from tb_mqtt_client.emulator import ConnectVerdict, Verdict

HEAD = """
import os, signal, sys, threading, time
from tb_mqtt_client.sync import DeviceClient
import logging
logging.basicConfig(level=logging.INFO)
# A shell may have started the tests in the background, where it lets processes ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
client = DeviceClient({options})
"""
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")


@pytest.fixture
def run(emulator):
    """Return a function that runs a program with a client of the emulator."""
    options = FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}

    def run(program, **others):
        return running("-c", HEAD.replace("{options}", repr(options | others)) + program)

    return run


def received(emulator):
    return [datapoint.ts for datapoint in emulator.device("device").telemetry]


SENDS = """
for ts in range(1000):
    client.send_timeseries({"ts": ts, "values": {"a": ts}}, wait=False)
"""


@pytest.mark.parametrize("begin", ["client.connect()", "client.start()"])
@pytest.mark.parametrize("end", ["", "sys.exit(0)"])
async def test_a_program_that_sends_and_ends_loses_nothing(run, emulator, begin, end):
    async with run(begin + SENDS + end) as program:
        await program.end()
    assert received(emulator) == list(range(1000))


async def test_a_program_that_ends_with_an_exception_loses_nothing(run, emulator):
    async with run("client.connect()" + SENDS + "1 / 0") as program:
        assert "ZeroDivisionError" in await program.fail()
    assert received(emulator) == list(range(1000))


async def test_the_name_of_the_server_can_be_resolved_while_the_program_ends(run, emulator):
    """The first attempt fails, and the next one is made when no thread can be started any more."""
    refused = []

    def refuse_once(connect):
        if not refused:
            refused.append(connect)
            return ConnectVerdict.refuse(0x88)
        return None

    emulator.on_connect = refuse_once
    async with run("client.start()" + SENDS, host=f"localhost:{emulator.port}", reconnect_delay_min=0.5) as program:
        await program.end()
    assert len(refused) == 1
    assert received(emulator) == list(range(1000))


async def test_threads_may_send_after_the_main_thread_has_ended(run, emulator):
    threads = """
client.connect()
def work():
    threading.main_thread().join()
    for ts in range(100):
        assert client.send_timeseries({"ts": ts, "values": {"a": ts}}).is_successful()
threading.Thread(target=work).start()
"""
    async with run(threads) as program:
        await program.end()
    assert received(emulator) == list(range(100))


async def test_the_time_at_the_end_is_bounded(run, emulator):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    program = "DeviceClient.EXIT_TIMEOUT = 0.2\nclient = DeviceClient(client._core._engine.config)\nclient.connect()" + SENDS
    async with run(program) as running_program:
        await running_program.end()
        assert "undelivered=1000" in running_program.errors


async def test_a_callback_may_end_with_the_program(run, emulator):
    program = """
client.connect()
sent = threading.Event()
def done(delivery):
    sent.set()
    threading.Event().wait()
client.send_timeseries({"a": 1}, wait=False).add_done_callback(done)
sent.wait()
"""
    async with run(program) as running_program:
        await running_program.end()


@pytest.mark.parametrize("outcome", ["return 1", "raise LookupError('after the end')"])
async def test_a_callback_may_return_after_the_end_of_the_event_loop(run, emulator, outcome):
    """Its error is logged, and nothing else goes wrong."""
    program = """
import atexit
called, ended = threading.Event(), threading.Event()
def answer(_request):
    called.set()
    ended.wait()
    OUTCOME
@atexit.register
def after_the_client():
    # Exit handlers run in reverse order, and the client registers its own when it connects.
    thread = client._runtime.callbacks.end()
    ended.set()
    thread.join()
    print("ended", flush=True)
DeviceClient.EXIT_TIMEOUT = 0.1
client = DeviceClient(client._core._engine.config)
client.set_rpc_request_callback(answer)
client.connect()
print("connected", flush=True)
called.wait()
"""
    async with run(program.replace("OUTCOME", outcome)) as running_program:
        await running_program.printed("connected")
        assert await emulator.publish_to("TOKEN", "v1/devices/me/rpc/request/1", {"method": "m"})
        assert (await running_program.end()).endswith("ended\n")
        log = running_program.errors
    assert "Event loop is closed" not in log
    assert "Exception in thread" not in log
    assert ("failed after the event loop of its client had ended" in log) == ("LookupError: after the end" in log)
    assert ("LookupError" in log) == outcome.startswith("raise")


@POSIX
async def test_ctrl_c_during_a_blocking_call(run, emulator):
    """It raises at once, loses nothing, and the client can still be used."""
    waiting = """
client.connect()
try:
    client.send_timeseries({"ts": 1, "values": {"a": 1}})
except KeyboardInterrupt:
    print("interrupted", flush=True)
delivery = client.send_timeseries({"ts": 2, "values": {"a": 1}}, wait=False)
try:
    # Not before: an interrupt inside the call above would leave no delivery to wait for.
    print("waiting", flush=True)
    delivery.result()
except KeyboardInterrupt:
    print("interrupted again", flush=True)
print(delivery.result().reason_code, client.statistics.acknowledged)
client.stop()
"""
    published = asyncio.Queue()

    def ignore(publish):
        if not publish.topic.endswith("/telemetry"):
            return None
        published.put_nowait(publish)
        return Verdict.ignore()

    emulator.on_publish = ignore
    async with run(waiting) as program:
        await published.get()
        program.signal(signal.SIGINT)
        await program.printed("interrupted")
        await published.get()
        await program.printed("waiting")
        program.signal(signal.SIGINT)
        await program.printed("interrupted again")
        emulator.on_publish = None
        await emulator.disconnect_device("TOKEN")
        assert (await program.end()).splitlines()[-1] == "0 2"
    assert sorted(received(emulator)) == [1, 2]


@POSIX
async def test_ctrl_c_during_connect(run, emulator):
    connecting = """
try:
    client.connect()
except KeyboardInterrupt:
    print("interrupted", flush=True)
client.connect()
assert client.send_timeseries({"ts": 1, "values": {"a": 1}}).is_successful()
client.stop()
"""
    requested = asyncio.Event()

    def ignore_the_first(_publish):
        if requested.is_set():
            return None
        requested.set()
        return Verdict.ignore()

    emulator.on_publish = ignore_the_first
    async with run(connecting, limits_timeout=60) as program:
        # The request for the limits, which gets no response.
        await requested.wait()
        program.signal(signal.SIGINT)
        await program.printed("interrupted")
        await program.end()
    assert received(emulator) == [1]


@POSIX
async def test_ctrl_c_while_many_sends_are_made_loses_none_that_was_accepted(run, emulator):
    sending = """
client.connect()
deliveries = []
try:
    for ts in range(10_000_000):
        deliveries.append(client.send_timeseries({"ts": ts, "values": {"a": 1}}, wait=False))
except KeyboardInterrupt:
    pass
assert all(delivery.result().is_successful() for delivery in deliveries)
print(client.send_timeseries({"ts": -1, "values": {"a": 1}}).reason_code)
client.stop()
print(client.statistics.queued, client.statistics.in_flight)
"""
    published = asyncio.Queue()
    emulator.on_publish = lambda publish: published.put_nowait(publish) if publish.topic.endswith("/telemetry") else None
    async with run(sending) as program:
        await published.get()
        program.signal(signal.SIGINT)
        assert (await program.end()).splitlines()[-2:] == ["0", "0 0"]


@POSIX
async def test_interrupts_while_the_queue_is_full_do_not_disturb_the_event_loop(run, emulator):
    """The interrupted thread waits for its turn most of the time, and a send may have been accepted although it raised."""
    interrupted = """
client.connect()
interrupts, is_sending, deliveries = 0, False, []
def interrupt(*_):
    global interrupts, is_sending
    if is_sending:
        interrupts, is_sending = interrupts + 1, False
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while interrupts < 1000:
    try:
        is_sending = True
        while True:
            deliveries.append(client.send_timeseries({"ts": 1, "values": {"a": 1}}, wait=False))
    except KeyboardInterrupt:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(delivery.result(30).is_successful() for delivery in deliveries)
client.stop()
"""
    async with run(interrupted, max_queued_messages=5) as program:
        await program.end()
        assert "Traceback" not in program.errors


@POSIX
async def test_a_forked_child(run, emulator):
    """The client of the parent raises an error in the child, a new one works, and the parent's is not disturbed."""
    emulator.add_device("CHILD", "child")
    forking = """
client.connect()
delivery = client.send_timeseries({"ts": 1, "values": {"a": 1}}, wait=False)
pid = os.fork()
if not pid:
    for call in (client.connect, client.stop, lambda: client.send_timeseries({"a": 1}, wait=False), delivery.result):
        try:
            call()
        except RuntimeError as error:
            assert "child" in str(error), error
        else:
            assert call == delivery.result and delivery.done(), call
    with DeviceClient({"host": client.health()["host"], "port": client.health()["port"], "access_token": "CHILD"}) as own:
        assert own.send_timeseries({"ts": 1, "values": {"a": 1}}).is_successful()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert delivery.result().is_successful()
assert client.send_timeseries({"ts": 2, "values": {"a": 1}}).is_successful()
print(client.statistics.connections)
client.stop()
"""
    async with run(forking) as program:
        assert await program.end() == "1\n"
    assert received(emulator) == [1, 2]
    assert [datapoint.ts for datapoint in emulator.device("child").telemetry] == [1]


async def test_the_end_of_the_event_loop_is_an_error_and_not_a_deadlock(run, emulator):
    dying = """
client.connect()
loop = client._runtime.waiters._loop
def die():
    raise SystemExit("defect")
results = []
events = client.connection_events()
def wait():
    try:
        next(events)
    except RuntimeError as error:
        results.append(str(error))
thread = threading.Thread(target=wait)
thread.start()
while not client._runtime.waiters._waiting:
    time.sleep(0.01)
loop.call_soon_threadsafe(die)
thread.join()
print(results)
try:
    client.send_timeseries({"a": 1})
except RuntimeError as error:
    print(error)
with DeviceClient(client._core._engine.config) as other:
    print(other.send_timeseries({"a": 1}).reason_code)
"""
    async with run(dying) as program:
        output = await program.end()
    assert output.count("ended unexpectedly (SystemExit('defect')): create a new client") == 2
    assert output.endswith("\n0\n")
