"""Whatever sequence of calls, losses, cancellations and callbacks: a client makes legal transitions only, and leaves nothing."""

import asyncio
import logging
import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from device_peer import FAST, RPC_REQUEST
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_parts import engine_of
from tb_mqtt_client import (
    ClientState,
    Connected,
    ConnectFailed,
    Connecting,
    ConnectionEvent,
    ConnectionLost,
    ConnectRefused,
    DeviceClient,
    GatewayClient,
    TBMQTTError,
)
from tb_mqtt_client.common import tasks
from tb_mqtt_client.emulator import Emulator
from tb_mqtt_client.service.life_cycle import TRANSITIONS

SHORT = 0.05
WAYS = {
    "directly": lambda work: work,
    "in a task": asyncio.create_task,
    "with gather": asyncio.gather,
    "with a time limit": lambda work: asyncio.wait_for(work, 60),
}
NOT_AWAITED = "without waiting"
CALLS = ("connect", "start", "disconnect", "stop now", "stop")
WAITS = ("wait_connected", "watch")
LISTENERS = ("slow", "raises", "hangs", *CALLS)
steps = st.one_of(
    st.tuples(st.just("call"), st.sampled_from([*CALLS, *WAITS])),
    st.tuples(st.just("listen"), st.sampled_from(LISTENERS)),
    st.tuples(st.just("remove"), st.integers(0, 5)),
    st.tuples(st.just("callback"), st.sampled_from(CALLS), st.sampled_from([*WAYS, NOT_AWAITED])),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("send"), st.just(1)),
    st.tuples(st.just("request"), st.just(1)),
    st.tuples(st.just("lose"), st.just(1)),
    st.tuples(st.just("server"), st.booleans()),
    st.tuples(st.just("end a loop"), st.sampled_from([" queue", " connection"])),
    st.tuples(st.just("turns"), st.integers(1, 8)),
    st.tuples(st.just("settle"), st.just(1)),
)


class Scenario:
    """One client, and all that was begun with it."""

    def __init__(self, emulator: Emulator, client: DeviceClient) -> None:
        self.emulator = emulator
        self.client = client
        self.running: list[asyncio.Future] = []
        self.deliveries: list[asyncio.Future] = []
        self.serves = True
        self.transitions: list[tuple[ClientState, ClientState]] = []
        engine_of(client).life.listeners.append(lambda *change: self.transitions.append(change))
        client.set_rpc_request_callback(self.callback)
        self.events: list[ConnectionEvent] = []
        self.removals = []
        client.on_connection_event(self.events.append)

    def call(self, name: str):
        if name == "watch":
            return self.watch()
        if name.startswith("stop"):
            return self.client.stop(0 if name == "stop now" else SHORT)
        return getattr(self.client, name)()

    async def callback(self, request):
        name, way = request.params
        if way == NOT_AWAITED:
            self.running.append(asyncio.create_task(self.call(name)))
        else:
            await WAYS[way](self.call(name))

    async def watch(self):
        async for event in self.client.connection_events(3):
            assert isinstance(event, ConnectionEvent)

    def listener(self, kind: str):
        async def listen(_event):
            if kind == "slow":
                await asyncio.sleep(0.001)
            elif kind == "raises":
                raise LookupError("of a listener")
            elif kind == "hangs":
                await asyncio.Event().wait()
            else:
                await self.call(kind)

        return listen

    async def do(self, kind: str, *arguments) -> None:
        client = self.client
        match kind, arguments:
            case "call", (name,):
                self.running.append(asyncio.ensure_future(self.call(name)))
            case "callback", (name, way):
                await self.emulator.publish_to("TOKEN", f"{RPC_REQUEST}{len(self.running)}", {"method": "m", "params": [name, way]})
            case "listen", (name,):
                self.removals.append(client.on_connection_event(self.listener(name)))
            case "remove", (number,) if self.removals:
                self.removals[number % len(self.removals)]()
            case "cancel", (number,) if self.running:
                self.running[number % len(self.running)].cancel()
            case "send", _ if client.state.accepts_sends:
                self.running.append(asyncio.ensure_future(self.send()))
            case "request", _ if client.state.accepts_sends:
                self.running.append(asyncio.ensure_future(client.request_attributes(["a"])))
            case "lose", _:
                await self.emulator.disconnect_device("TOKEN")
            case "server", (serves,) if serves is not self.serves:
                self.serves = serves
                await (self.emulator.start() if serves else self.emulator.stop())
            case "end a loop", (name,):
                tasks = [task for task in asyncio.all_tasks() if task.get_name().endswith(name)]
                if tasks:
                    min(tasks, key=lambda task: task.get_name()).cancel()
            case "turns", (turns,):
                for _ in range(turns):
                    await asyncio.sleep(0)
            case "settle", _:
                await asyncio.sleep(0.005)

    async def send(self):
        self.deliveries += await self.client.send_timeseries({"a": 1}, wait_for_publish=False)

    async def end(self) -> None:
        for remove in self.removals:
            remove()
        await self.client.stop(0)
        # What waited for that stop, and begins after it, may wait for an absent server.
        for _ in range(10):
            await asyncio.sleep(0)
        await self.client.stop(0)
        results = await asyncio.gather(*self.running, return_exceptions=True)
        # A connect that waited for an earlier stop may have begun after this one.
        await self.client.stop(0)
        assert self.client.state is ClientState.STOPPED
        failures = [result for result in results if isinstance(result, BaseException)]
        assert [error for error in failures if not isinstance(error, OSError | TBMQTTError | asyncio.CancelledError)] == []


def check_order(events: list[ConnectionEvent]) -> None:
    """Each attempt begins before it ends, and only a session that was set up is lost."""
    ends = (Connected, ConnectFailed, ConnectRefused)
    attempts = [event for event in events if isinstance(event, (Connecting, ConnectionLost, *ends))]
    for before, event in pairwise([None, *attempts]):
        if isinstance(event, ends):
            assert isinstance(before, Connecting), attempts
        elif isinstance(event, ConnectionLost):
            assert isinstance(before, Connected), attempts
        elif isinstance(before, ends) and event.attempt > 1:
            assert not isinstance(before, Connected), attempts


def sockets() -> list[str]:
    """Return the open sockets of the process, where the system lists them."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return []
    return sorted(link for name in os.listdir(folder) if (link := _target(folder / name)).startswith("socket:"))


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""


def left_after(steps_taken, is_gateway):
    errors = []

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with Emulator() as emulator:
            (emulator.add_gateway if is_gateway else emulator.add_device)("TOKEN", "device")
            kind = GatewayClient if is_gateway else DeviceClient
            scenario = Scenario(emulator, kind(FAST | {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}))
            async with asyncio.timeout(30):
                for step in steps_taken:
                    await scenario.do(*step)
                await scenario.end()
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(delivery.done() for delivery in scenario.deliveries)
        assert all(following in TRANSITIONS[state] for state, following in scenario.transitions)
        check_order(scenario.events)
        statistics = scenario.client.statistics
        assert (statistics.queued, statistics.in_flight) == (0, 0)
        assert statistics.accepted == statistics.acknowledged + statistics.undelivered == len(scenario.deliveries)

    asyncio.run(run())
    return errors


@pytest.fixture
def hanging(caplog):
    """Reports of tasks that did not end when they were cancelled."""
    caplog.set_level(logging.CRITICAL)
    reports = []

    class Reports(logging.Handler):
        def emit(self, record):
            reports.append(record.getMessage())

    handler, log = Reports(logging.ERROR), logging.getLogger(tasks.__name__)
    log.setLevel(logging.ERROR)
    log.addHandler(handler)
    yield reports
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["connect", "start"]), st.lists(steps, max_size=25), st.booleans())
def test_any_sequence_leaves_nothing(hanging, begin, steps_taken, is_gateway):
    before = sockets(), threading.active_count()
    assert left_after([("call", begin), ("settle", 1), *steps_taken], is_gateway) == []
    assert (sockets(), threading.active_count()) == before
    assert hanging == []
