"""An unexpected exception in a queue loop: the loop continues, and every send ends in one state."""

import asyncio
import logging

import pytest
from device_peer import NoException, make_client

from engine_parts import engine_of, sub_devices_of
from tb_mqtt_client import ClaimRequest, NotConnectedError
from tb_mqtt_client._native import GatheredSends
from tb_mqtt_client.emulator import Verdict

STATES = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight")
POISON = {f"poison {number}": number for number in range(7)}
"""Seven datapoints, by which the tests recognize the send."""


def with_short_pauses(client):
    for failures in engine_of(client).message_service.failed_rounds:
        failures.pause_seconds = 0.01
    return client


@pytest.fixture
async def client(emulator):
    client = with_short_pauses(make_client(emulator))
    await client.connect()
    yield client
    await client.stop()
    assert not [task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()]


class Sender:
    """Sends the data of a device, or of a gateway's sub-device, whose sends are routed by the initial queue's loop."""

    def __init__(self, client, session=None):
        self.client, self.session = client, session

    async def send(self, data):
        """Return the future of a send."""
        if self.session is not None:
            return await self.client.send_device_timeseries(self.session, data, wait_for_publish=False)
        [future] = await self.client.send_timeseries(data, wait_for_publish=False)
        return future

    def stored(self, emulator):
        """Return the stored datapoints of the platform."""
        return emulator.device("D1" if self.session is not None else "device").telemetry


@pytest.fixture
async def sender(client, make_gateway, where):
    """Return a sender whose data passes the place that fails in the test."""
    if where != "routing":
        yield Sender(client)
        return
    gateway = with_short_pauses(make_gateway())
    await gateway.connect()
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    # Otherwise only data of devices that are being announced, refused or renamed is routed.
    sub_devices_of(gateway).traffic.gate.is_free = lambda _: False
    yield Sender(gateway, session)
    await gateway.stop()


def loops():
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().endswith(" queue")}


def assert_sum(client):
    statistics = client.statistics
    assert statistics.accepted == sum(getattr(statistics, state) for state in STATES), statistics
    assert statistics.queued == statistics.in_flight == engine_of(client).message_service.capacity.sends == 0
    assert len(engine_of(client).futures) == 0


def is_poison(item):
    """Whether an argument of the failing function is the poison, or a list with it."""
    if isinstance(item, GatheredSends):
        return is_poison(item.encoded())
    if isinstance(item, list):
        return any(map(is_poison, item))
    return getattr(item[0] if isinstance(item, tuple) else item, "datapoints", 0) == 7


def failing(client, where, error, times):
    """Make a function of the pipeline raise for the poison, the given number of times."""
    engine = engine_of(client)
    worker = engine.message_service.device_uplink
    owner, name = {
        "routing": lambda: (sub_devices_of(client).traffic, "put_uplinks"),
        "packing": lambda: (worker.packer, "pack"),
        "limits": lambda: (worker, "may_publish"),
        "admission": lambda: (engine.admission, "try_take"),
        "publishing": lambda: (engine.mqtt_manager, "publish_now"),
    }[where]()
    function, left = getattr(owner, name), [error] * times

    def call(item, *arguments):
        if left and is_poison(item):
            raise left.pop()
        return function(item, *arguments)

    setattr(owner, name, call)


WHERE = ["routing", "packing", "limits", "admission", "publishing"]


async def send(sender):
    """Return the futures of 20 sends with the poison among them, the poison's first."""
    futures = []
    for number in range(20):
        data = POISON if number == 10 else {"good": number}
        futures.append(await sender.send({"ts": number + 1, "values": data}))
        if number in {9, 10}:
            # The poison has a payload of its own; the others share theirs.
            await asyncio.wait(futures)
    return [futures.pop(10), *futures]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("error", [LookupError("a defect"), OverflowError("int too big"), MemoryError()], ids=repr)
async def test_a_temporary_error_loses_nothing(sender, emulator, where, error, caplog):
    client, before = sender.client, loops()
    failing(client, where, error, 2)
    results = await asyncio.wait_for(asyncio.gather(*await send(sender)), 10)
    assert {result.reason_code for result in results} == {0}
    assert len(sender.stored(emulator)) == client.statistics.acknowledged == 26
    assert_sum(client)
    assert loops() == before
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert repr(error) in record.getMessage()
    assert record.exc_info[1] is error


@pytest.mark.parametrize("where", WHERE)
async def test_only_a_send_that_always_fails_is_given_up(sender, emulator, where, caplog):
    client, before = sender.client, loops()
    failing(client, where, LookupError("a defect"), 1000)
    poison, *results = await asyncio.wait_for(asyncio.gather(*await send(sender)), 10)
    assert poison.reason_code == -1
    assert {result.reason_code for result in results} == {0}
    assert len(sender.stored(emulator)) == client.statistics.acknowledged == 19
    assert client.statistics.undelivered == 7
    assert_sum(client)
    assert loops() == before
    assert any("Giving up on" in message for message in caplog.messages)


@pytest.mark.parametrize("where", ["routing", "packing", "limits", "admission", "publishing"])
async def test_an_error_among_many_sends_of_one_batch_is_isolated(sender, where):
    """All sends are queued in one turn of the event loop."""
    client = sender.client
    failing(client, where, LookupError("a defect"), 3 if where in {"limits", "admission", "publishing"} else 1000)
    data = [{"ts": number + 1, "values": POISON if number == 333 else {"good": number}} for number in range(1000)]
    futures = [await sender.send(one) for one in data]
    results = await asyncio.wait_for(asyncio.gather(*futures), 10)
    codes = [result.reason_code for result in results]
    assert (codes.pop(333), set(codes)) == (-1 if where in {"routing", "packing"} else 0, {0})
    assert_sum(client)


@pytest.mark.parametrize("times", [2, 1000])
async def test_a_failed_request_is_retried_or_raises(client, times):
    admission = engine_of(client).admission
    take = admission.try_take

    def fails_for_requests(item):
        nonlocal times
        if not item.has_datapoints and times:
            times -= 1
            raise LookupError("a defect")
        return take(item)

    admission.try_take = fails_for_requests
    request = client.request_attributes(shared_keys=["a"])
    if times == 2:
        await asyncio.wait_for(request, 10)
    else:
        with pytest.raises(Exception, match="refused the request"):
            await asyncio.wait_for(request, 10)
    times = 0
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert_sum(client)


async def assert_unusable_until_connect(client, cause):
    for send in (client.send_timeseries({"a": 1}), client.send_attributes({"a": 1}, wait_for_publish=False)):
        with pytest.raises(NotConnectedError, match=cause):
            await send
    with pytest.raises(NotConnectedError, match=r"connect\(\)"):
        await client.call_rpc("method", {})
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).is_successful()
    assert_sum(client)


@pytest.mark.parametrize("name", ["initial", "retry by QoS", "announcements", "service", "device uplink"])
async def test_sends_raise_after_a_loop_was_cancelled_until_connect_restarts_it(client, name):
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == f"tb-mqtt-client {name} queue"]
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    await assert_unusable_until_connect(client, f"{name} queue.*cancelled")


async def test_sends_raise_after_a_loop_has_ended_until_connect_restarts_it(client):
    contexts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))

    def fail(_item):
        raise NoException("ends every loop")

    engine_of(client).message_service.queue_message = fail
    assert (await client.claim_device(ClaimRequest.build("secret"))).reason_code == -1
    assert [str(context["exception"]) for context in contexts] == ["ends every loop"]
    del engine_of(client).message_service.queue_message
    await assert_unusable_until_connect(client, "initial queue.*ends every loop")


@pytest.mark.parametrize("name", ["initial", "announcements"])
async def test_sub_devices_work_again_after_a_loop_was_cancelled(emulator, make_gateway, name):
    """This includes devices whose announcement was in flight or failed meanwhile, and the time after the next connection."""
    contexts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    gateway = make_gateway(ack_timeout=0.1)
    await gateway.connect()
    known, _ = await gateway.connect_device("known", wait_for_publish=True)
    emulator.on_publish = lambda _: Verdict.ignore()
    announced, _ = await gateway.connect_device("announced")
    queued = await gateway.send_device_timeseries(announced, {"a": 1}, wait_for_publish=False)
    await asyncio.sleep(0.01)
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == f"tb-mqtt-client {name} queue"]
    task.cancel()
    assert (await asyncio.wait_for(queued, 10)).reason_code == -1
    with pytest.raises(NotConnectedError, match="cancelled"):
        await gateway.send_device_timeseries(known, {"a": 1})
    with pytest.raises(NotConnectedError, match="cancelled"):
        await gateway.connect_device("failed")
    emulator.on_publish = None
    await gateway.connect()
    failed, _ = await gateway.connect_device("failed")
    for _ in range(2):
        for session in (known, announced, failed):
            assert (await gateway.send_device_timeseries(session, {"a": 1})).is_successful()
        await emulator.disconnect_device("gateway")
    assert contexts == []
    await gateway.stop()
