"""With ``tb_mqtt_client.run``, queued data is delivered after SIGTERM and Ctrl-C. Each program runs in its own process."""

import asyncio
import signal
import textwrap

import pytest

import tb_mqtt_client
from programs import running
from tb_mqtt_client.emulator import Emulator, Verdict

SENDS = 500
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
CODES = {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 0}
"""Exit codes of a program that ends gracefully; after a KeyboardInterrupt, Python kills itself with SIGINT."""


@pytest.fixture
async def emulator():
    async with Emulator() as emulator:
        emulator.add_device("TOKEN", "device")
        yield emulator


def program(body, run="run(main())"):
    head = "import asyncio, logging, signal, sys, threading, time\nfrom tb_mqtt_client import DeviceClient, run\n"
    return f"{head}async def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n{run}\n"


def sender(emulator, run="run(main())"):
    """Return a program whose data stays queued until ``acknowledge`` is called."""
    options = {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "max_inflight_messages": 1}
    options |= {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01}
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    return program(
        f"""
        async with DeviceClient({options}) as client:
            for number in range({SENDS}):
                await client.send_timeseries({{"ts": 1 + number, "values": {{"n": number}}}}, wait_for_publish=False)
            print("acknowledged", client.statistics.acknowledged)
            await asyncio.Event().wait()
        """,
        run,
    )


async def acknowledge(emulator):
    emulator.on_publish = None
    await emulator.disconnect_device("TOKEN")


@BOTH
async def test_queued_data_is_delivered(emulator, number):
    async with running("-c", sender(emulator)) as child:
        assert await child.printed("acknowledged") == "acknowledged 0\n"
        child.signal(number)
        await acknowledge(emulator)
        assert await child.ended() == CODES[number]
        assert ("KeyboardInterrupt" in child.errors) == (number == signal.SIGINT)
    assert len(emulator.device("device").telemetry) == SENDS


@BOTH
@pytest.mark.parametrize("chosen", ["run(main(), loop_factory=uvloop.new_event_loop)", "uvloop.install(); run(main())"])
async def test_queued_data_is_delivered_with_uvloop(emulator, number, chosen):
    pytest.importorskip("uvloop")
    # uvloop.install() is deprecated since Python 3.12.
    source = "import uvloop, warnings; warnings.simplefilter('ignore')\n" + sender(emulator, f"print('go'); {chosen}")
    async with running("-c", source) as child:
        assert await child.printed("acknowledged") == "acknowledged 0\n"
        child.signal(number)
        await acknowledge(emulator)
        assert await child.ended() == CODES[number]
    assert len(emulator.device("device").telemetry) == SENDS


async def test_the_exit_code_after_sigterm_can_be_chosen():
    source = program("print('go'); await asyncio.Event().wait()", "run(main, sigterm_exit_code=143)")
    async with running("-c", source) as child:
        await child.printed("go")
        child.signal(signal.SIGTERM)
        assert (await child.ended(), child.errors) == (143, "")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hangs", ["await asyncio.Event().wait()", "time.sleep(60)", "await asyncio.to_thread(time.sleep, 60)"])
async def test_a_second_signal_ends_the_program_at_once(first, second, hangs):
    source = program(
        f"""
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        try:
            print("go")
            await asyncio.Event().wait()
        finally:
            print("hangs")
            {hangs}
        """
    )
    async with running("-c", source) as child:
        await child.printed("go")
        child.signal(first)
        await child.printed("hangs")
        child.signal(second)
        assert (await child.ended(), child.errors) == (-second, "")


@BOTH
async def test_a_second_signal_ends_a_container(number):
    """The kernel drops signals that the first process of a container does not handle."""
    body = """
    try:
        print("go")
        await asyncio.Event().wait()
    finally:
        print("hangs")
        await asyncio.Event().wait()
    """
    async with running("-c", program(body, "import os; os.getpid = lambda: 1; run(main)")) as child:
        await child.printed("go")
        child.signal(number)
        await child.printed("hangs")
        child.signal(number)
        assert (await child.ended(), child.errors) == (128 + number, "")


@BOTH
async def test_two_signals_end_a_program_with_a_blocked_loop(number):
    async with running("-c", program("print('go'); time.sleep(60)")) as child:
        await child.printed("go")
        child.signal(number)
        child.signal(number)
        # A blocking call continues after a handler, and two signals may be delivered as one.
        async with asyncio.timeout(30):
            while child.running:
                child.signal(number)
                await asyncio.sleep(0.05)
        assert await child.ended() == -number


@BOTH
async def test_the_signal_is_logged(number):
    source = program("logging.basicConfig(level='INFO', format='%(message)s'); print('go'); await asyncio.Event().wait()")
    async with running("-c", source) as child:
        await child.printed("go")
        child.signal(number)
        await child.ended()
        assert f"{number.name}: stopping; a second signal ends the program at once" in child.errors


@BOTH
async def test_a_program_can_return_a_result_after_a_signal(number):
    body = """
    try:
        print("go")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "a result"
    """
    async with running("-c", program(body, "print(run(main))")) as child:
        await child.printed("go")
        child.signal(number)
        assert "a result" in await child.end()


@BOTH
async def test_an_error_in_the_cleanup_is_raised(number):
    body = """
    try:
        print("go")
        await asyncio.Event().wait()
    finally:
        raise LookupError("in the cleanup")
    """
    async with running("-c", program(body)) as child:
        await child.printed("go")
        child.signal(number)
        assert "LookupError: in the cleanup" in await child.fail()


@BOTH
async def test_a_signal_handler_of_the_program_is_not_replaced(number):
    run = f"signal.signal({number.value}, lambda *_: print('own handler', flush=True)); run(main())"
    async with running("-c", program("print('go'); await asyncio.Event().wait()", run)) as child:
        await child.printed("go")
        child.signal(number)
        await child.printed("own handler")


async def test_signal_handlers_are_restored():
    check = "[signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]"
    async with running("-c", program("return 7", f"before = {check}; assert run(main()) == 7; assert {check} == before")) as child:
        await child.end()


async def test_run_works_in_another_thread():
    run = "thread = threading.Thread(target=lambda: print([run(main)])); thread.start(); thread.join()"
    async with running("-c", program("return 7", run)) as child:
        assert "[7]" in await child.end()


async def test_a_cancellation_without_a_signal_is_raised():
    run = "try: run(main)\nexcept asyncio.CancelledError: print('cancelled')"
    async with running("-c", program("raise asyncio.CancelledError", run)) as child:
        assert "cancelled" in await child.end()


async def test_run_raises_in_a_running_loop():
    with pytest.raises(RuntimeError, match=r"run\(\) cannot be called from a running event loop"):
        tb_mqtt_client.run(asyncio.sleep)


@pytest.mark.parametrize("main", [None, 7, lambda: None])
def test_an_argument_that_is_not_a_coroutine_is_refused(main):
    with pytest.raises(TypeError, match="main must be a coroutine or a function that returns one, not of type"):
        tb_mqtt_client.run(main)
