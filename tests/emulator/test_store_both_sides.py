"""Faults of the world around a store (processes, clocks, servers), with the datapoints counted on both sides."""

import asyncio
import os
import sys

import pytest
from device_peer import make_client

from store_kills import all_delivered
from tb_mqtt_client import Certainty
from tb_mqtt_client.common.exceptions import StoreInUseError
from tb_mqtt_client.common.timing import now_ms
from tb_mqtt_client.emulator import RateLimits, SessionLimits, Verdict


@pytest.fixture
def options(tmp_path):
    return {"path": str(tmp_path / "queue"), "min_free": 0}


async def send(client, values, **terms):
    [delivery] = await client.send_timeseries(values, wait_for_publish=False, **terms)
    return delivery


def adds_up(client):
    now = client.statistics
    out = now.acknowledged + now.rejected + now.dropped + now.undelivered + now.queued + now.in_flight + now.kept
    return now.accepted + now.recovered == out


def arrived(emulator, name="device"):
    return sorted(point.key for point in emulator.device(name).telemetry)


async def offline(emulator, options, **others):
    """Return a client with a store and without a server."""
    client = make_client(emulator, store=options, **others)
    await emulator.stop()
    await client.start()
    return client


async def nothing_is_left(make):
    """Check that the next client finds nothing."""
    client = make()
    await client.connect()
    assert client.statistics.recovered == 0
    await client.stop()


PROGRAM = """
import asyncio, sys
from tb_mqtt_client import DeviceClient

async def main():
    client = DeviceClient({options!r})
    await client.start()
    for number in range(50):
        await client.send_timeseries({{f"first {{number:02}}": 1}}, wait_for_publish=False)
    await client.flush()
    print(client.statistics.queued, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_two_processes(emulator, options):
    """The second one gets an error and changes nothing; when the first one is killed, it has all data of it."""
    await emulator.stop()
    of_client = {"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "store": options}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM.format(options=of_client), stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert await first.stdout.readline() == b"50\n"
        second = make_client(emulator, store=options)
        for _ in range(3):
            with pytest.raises(StoreInUseError, match=str(first.pid)):
                await second.start()
    finally:
        first.kill()
        await first.wait()
    await second.start()
    await send(second, {"second": 1})
    await emulator.start()
    await all_delivered(second)
    assert arrived(emulator) == [*(f"first {number:02}" for number in range(50)), "second"]
    assert (second.statistics.recovered, second.statistics.accepted, second.statistics.acknowledged) == (50, 1, 51)
    await second.stop()
    await nothing_is_left(lambda: make_client(emulator, store=options))


@pytest.mark.parametrize("hours", [-24 * 365, -1, 24 * 365])
async def test_a_clock_that_jumps_while_data_waits(emulator, options, monkeypatch, hours):
    """Data without an expiry stays. Whether other data has expired is a question of elapsed time while its client runs."""
    client = await offline(emulator, options, max_queued_messages=5)
    for number in range(20):
        await send(client, {f"before {number:02}": 1})
    await send(client, {"expires late": 1}, expires_after=24 * 3600 * 1000)
    await client.flush()

    def jumped():
        return now_ms() + hours * 3_600_000

    for module in ("message_service", "store.group_commit", "store.due", "delivery.stored_intake"):
        monkeypatch.setattr(f"tb_mqtt_client.service.{module}.now_ms", jumped)
    for number in range(20):
        await send(client, {f"after {number:02}": 1})
    await client.stop()
    assert client.statistics.kept == 41
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    await all_delivered(later)
    expected = [*(f"after {number:02}" for number in range(20)), *(f"before {number:02}" for number in range(20)), "expires late"]
    assert arrived(emulator) == expected
    assert (later.statistics.recovered, later.statistics.acknowledged) == (41, 41)
    assert adds_up(later)
    await later.stop()


@pytest.mark.parametrize("durability", ["group", "always", "spill"])
async def test_stop_during_a_commit(emulator, options, durability):
    """At each of the first turns of the event loop after the sends."""
    await emulator.stop()
    for turns in range(12):
        client = make_client(emulator, store=options | {"durability": durability})
        await client.start()
        sending = [asyncio.ensure_future(send(client, {f"{turns:02} {number:02}": 1})) for number in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.stop()
        deliveries = await asyncio.gather(*sending, return_exceptions=True)
        accepted = [delivery for delivery in deliveries if not isinstance(delivery, Exception)]
        assert {delivery.result().certainty for delivery in accepted} <= {Certainty.KEPT}
        assert client.statistics.kept == len(accepted) + client.statistics.recovered
        assert client.statistics.accepted == len(accepted)
    await emulator.start()
    async with make_client(emulator, store=options) as later:
        await all_delivered(later)
        assert later.statistics.recovered == client.statistics.kept
    assert len(arrived(emulator)) == client.statistics.kept


async def test_one_device_that_the_platform_refuses_for_good(emulator, start_gateway, options):
    """Among the stored data of many: its datapoints are rejected and leave the store, and all others arrive."""
    first = await start_gateway(store=options, max_queued_messages=20)
    sessions = [(await first.connect_device(f"meter {number:02}"))[0] for number in range(30)]
    await emulator.stop()
    for number in range(300):
        data = {f"k{number:03}": 1, f"k{number:03} b": "x"}
        await first.send_device_timeseries(sessions[number % 30], data, wait_for_publish=False)
    await first.stop()
    assert first.statistics.kept == 600
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x99) if publish.topic == "v1/gateway/telemetry" and "meter 07" in publish.json() else None
    )
    await emulator.start()
    second = await start_gateway(store=options)
    await all_delivered(second)
    for number in range(30):
        own = sorted(key for one in range(number, 300, 30) for key in (f"k{one:03}", f"k{one:03} b"))
        assert arrived(emulator, f"meter {number:02}") == ([] if number == 7 else own)
    now = second.statistics
    assert (now.recovered, now.acknowledged, now.rejected) == (600, 580, 20)
    assert adds_up(second)
    await second.stop()
    third = await start_gateway(store=options)
    assert third.statistics.recovered == 0


async def test_one_datapoint_that_the_platform_refuses_for_good(emulator, options):
    client = await offline(emulator, options)
    for number in range(100):
        await send(client, {"ts": number + 1, "values": {f"k{number:02}": "bad" if number == 50 else number}})
    await client.stop()
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if b'"bad"' in publish.payload else None
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    await all_delivered(later)
    # A device's message that is refused is rejected as a whole: all of them are counted.
    now = later.statistics
    assert now.recovered == now.acknowledged + now.rejected == 100
    assert len(arrived(emulator)) == now.acknowledged
    assert now.rejected >= 1
    await later.stop()
    emulator.on_publish = None
    await nothing_is_left(lambda: make_client(emulator, store=options))


async def test_a_backlog_that_exceeds_the_limits_of_the_platform(emulator, options):
    """The platform enforces its limits by closing the connection: the client must never exceed them."""
    client = await offline(emulator, options, max_queued_messages=20)
    for number in range(400):
        await send(client, {f"k{number:03}": 1})
    await client.stop()
    emulator.limits = SessionLimits(
        rate_limits=RateLimits(messages="50:1", telemetry_messages="50:1", telemetry_datapoints="200:1")
    )
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    await all_delivered(later)
    assert arrived(emulator) == [f"k{number:03}" for number in range(400)]
    now = later.statistics
    assert (now.recovered, now.acknowledged, now.rejected, now.reconnects) == (400, 400, 0, 0)
    await later.stop()


async def test_a_send_of_which_one_message_is_acknowledged(emulator, options):
    """It stays in the store as a whole: acknowledged data is sent again, and counts as recovered, but not as kept."""
    emulator.max_payload_size = 10_000
    sent = asyncio.Event()
    published = []

    def acknowledge_first(publish):
        if not publish.topic.endswith("telemetry"):
            return None
        published.append(publish)
        if len(published) == 1:
            return None
        sent.set()
        return Verdict.ignore(store=False)

    emulator.on_publish = acknowledge_first
    client = make_client(emulator, store=options, max_inflight_messages=1)
    await client.connect()
    delivery = await send(client, {f"k{number:02}": "x" * 1000 for number in range(30)})
    async with asyncio.timeout(60):
        await sent.wait()
    await client.stop(timeout=0)
    first = len(arrived(emulator))
    now = client.statistics
    assert 0 < first < 30
    assert (now.accepted, now.acknowledged, now.kept) == (30, first, 30 - first)
    assert delivery.result().certainty is Certainty.KEPT
    assert adds_up(client)
    emulator.on_publish = None
    later = make_client(emulator, store=options)
    await later.connect()
    assert later.statistics.recovered == 30
    await all_delivered(later)
    assert later.statistics.acknowledged == 30
    assert len(set(arrived(emulator))) == 30
    assert len(arrived(emulator)) == 30 + first
    await later.stop()
    await nothing_is_left(lambda: make_client(emulator, store=options))


async def test_a_backlog_for_a_platform_with_smaller_messages(emulator, options):
    """Sends that were stored under other limits are split, and a datapoint that fits in no message is rejected."""
    client = await offline(emulator, options)
    await send(client, {f"k{number:03}": "x" * 500 for number in range(100)})
    await send(client, {"too large": "x" * 20_000})
    await client.stop()
    assert client.statistics.kept == 101
    emulator.max_payload_size = 10_000
    await emulator.start()
    later = make_client(emulator, store=options)
    await later.connect()
    await all_delivered(later)
    assert arrived(emulator) == [f"k{number:03}" for number in range(100)]
    assert (later.statistics.acknowledged, later.statistics.rejected) == (100, 1)
    await later.stop()
    await nothing_is_left(lambda: make_client(emulator, store=options))
