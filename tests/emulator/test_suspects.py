"""A message for which the server ends the connection is found and rejected, and all others arrive."""

import asyncio

import pytest

from engine_parts import engine_of
from tb_mqtt_client import Certainty, DeviceClient, GatewayClient
from tb_mqtt_client.emulator import ConnectVerdict, Verdict
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.service.delivery.suspects import STRIKES

SOME_TIME = 30.0
"""Seconds that end a test which does not finish."""
POISON = "x" * 50


@pytest.fixture
def make(emulator):
    """Return a function that makes clients with short delays for reconnecting and for the trials of suspects."""

    def make(kind=DeviceClient, token="TOKEN", **options):
        fast = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "backpressure_delay": 0.02}
        client = kind(fast | {"host": emulator.host, "port": emulator.port, "access_token": token} | options)
        suspects = engine_of(client).message_service.suspects
        suspects.interval, suspects.proof_seconds = 0.05, 0.03
        return client

    return make


async def until(condition):
    while not condition():  # noqa: ASYNC110  # the client has no event for this
        await asyncio.sleep(0.005)


def judge_poison(verdict):
    return lambda publish: verdict if POISON.encode() in publish.payload else None


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("verdict", [Verdict.close(), Verdict.cut(), Verdict.close(0x8B)], ids=["closed", "reset", "0x8B"])
async def test_fifty_good_sends_arrive_although_one_ends_the_connection(emulator, make, version, verdict):
    """With MQTT 3.1.1 the platform closes without a reason code, for example because of a string that is too long."""
    emulator.on_publish = judge_poison(verdict)
    async with make(mqtt_version=version) as client:
        good = [await client.send_timeseries({"ts": ts, "values": {"a": ts}}, wait_for_publish=False) for ts in range(1, 26)]
        [bad] = await client.send_timeseries({"ts": 26, "values": {"a": POISON}}, wait_for_publish=False)
        good += [await client.send_timeseries({"ts": ts, "values": {"a": ts}}, wait_for_publish=False) for ts in range(27, 52)]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*(future for [future] in good))
            assert {result.reason_code for result in results} == {0}
            # New data is sent while the bad send is tried again.
            assert (await client.send_timeseries({"b": 1})).is_successful()
            rejected = await bad
        assert (rejected.reason_code, rejected.datapoints_count) == (
            0x8B if verdict.disconnect_reason and version == 5 else 0x80,
            1,
        )
        assert client.statistics.rejected == 1
    assert {point.ts for point in emulator.device("device").telemetry if point.key == "a"} == set(range(1, 52)) - {26}


async def test_a_bad_sub_device_is_found_among_others(emulator, make):
    emulator.on_publish = judge_poison(Verdict.close())
    async with make(GatewayClient, "GATEWAY") as client:
        sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(10)]
        futures = [
            await client.send_device_timeseries(session, {"a": POISON if number == 3 else 1}, wait_for_publish=False)
            for number, session in enumerate(sessions)
        ]
        async with asyncio.timeout(SOME_TIME):
            results = await asyncio.gather(*futures)
    assert [result.reason_code for result in results] == [0x80 if number == 3 else 0 for number in range(10)]


async def send_of_ten_devices(client, bad=None):
    """Return the results of a send for each device."""
    sessions = [(await client.connect_device(f"device {number}", wait_for_publish=True))[0] for number in range(10)]
    futures = [
        await client.send_device_timeseries(session, {"a": POISON if number == bad else number}, wait_for_publish=False)
        for number, session in enumerate(sessions)
    ]
    async with asyncio.timeout(SOME_TIME):
        return await asyncio.gather(*futures)


@pytest.mark.parametrize("closes", [True, False])
async def test_data_arrives_although_the_platform_failed_to_take_it(emulator, make, closes):
    """While its message queue is away, the platform refuses data of sub-devices with 0x80 and closes the connection."""
    failures = iter(range(15))
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x80, closes=closes)
        if publish.topic == "v1/gateway/telemetry" and next(failures, None) is not None
        else None
    )
    async with make(GatewayClient, "GATEWAY") as client:
        results = await send_of_ten_devices(client)
    assert next(failures, None) is None
    assert {result.reason_code for result in results} == {0}
    assert client.statistics.rejected == 0
    assert client.statistics.backpressure_pauses > 1
    for number in range(10):
        assert [point.value for point in emulator.device(f"device {number}").telemetry] == [number]


@pytest.mark.parametrize("closes", [True, False])
async def test_data_is_rejected_if_the_platform_fails_only_for_it(emulator, make, closes):
    emulator.on_publish = judge_poison(Verdict.refuse(0x80, closes=closes))
    async with make(GatewayClient, "GATEWAY") as client:
        session, _ = await client.connect_device("another", wait_for_publish=True)

        async def send_other_data():
            while not sending.done():
                await client.send_device_timeseries(session, {"b": 1})

        sending = asyncio.create_task(send_of_ten_devices(client, bad=3))
        await send_other_data()
        results = await sending
    assert [result.reason_code for result in results] == [0x80 if number == 3 else 0 for number in range(10)]
    assert results[3].certainty is Certainty.UNKNOWN
    assert client.statistics.rejected == 1


async def test_a_suspect_is_published_after_the_announcement_of_its_device(emulator, make):
    """The connection ends while a trial waits for the messages in flight. The next one announces all devices again."""
    announced, early, unacknowledged = set(), [], iter(range(1))

    def judge(publish):
        session = publish.device.session
        if publish.topic == "v1/gateway/connect":
            announced.add(session)
        elif publish.topic == "v1/gateway/telemetry" and session not in announced:
            early.append(publish.payload)
        if b"unacknowledged" in publish.payload and next(unacknowledged, None) is not None:
            return Verdict.ignore()
        return judge_poison(Verdict.close())(publish)

    emulator.on_publish = judge
    async with make(GatewayClient, "GATEWAY") as client:
        suspects, window = engine_of(client).message_service.suspects, engine_of(client).mqtt_manager.window
        suspects.interval = 0.2
        session, _ = await client.connect_device("device behind it", wait_for_publish=True)
        bad = await client.send_device_timeseries(session, {"ts": 1, "values": {"a": POISON}}, wait_for_publish=False)
        async with asyncio.timeout(SOME_TIME):
            await until(lambda: any(group.failures for group in suspects.groups) and client.health()["ready"])
            [good] = await client.send_timeseries({"unacknowledged": 1}, wait_for_publish=False)
            await until(lambda: window.reserved and len(window))
            await emulator.disconnect_device("GATEWAY")
            assert (await good).is_successful()
            assert (await bad).reason_code == 0x80
    assert early == []


async def test_a_rolling_restart_rejects_nothing(emulator, make):
    """The server ends every connection with 0x8B for a while, three and more times in a row."""
    async with make() as client:
        ends = iter(range(12))
        emulator.on_publish = lambda _: Verdict.close(0x8B) if next(ends, None) is not None else None
        futures = [await client.send_timeseries({"ts": ts, "values": {"a": 1}}, wait_for_publish=False) for ts in range(1, 21)]
        claim = await client.claim_device(ClaimRequest.build("secret"), wait_for_publish=False, timeout=None)
        async with asyncio.timeout(SOME_TIME):
            results = [await future for [future] in futures]
            assert (await claim).is_successful()
        assert {result.reason_code for result in results} == {0}
        assert next(ends, None) is None


@pytest.mark.parametrize("verdict", [Verdict.close(), Verdict.cut()], ids=["closed", "reset"])
async def test_an_outage_rejects_nothing(emulator, make, verdict):
    async with make() as client:
        outage = True
        emulator.on_publish = lambda _: verdict if outage else None
        futures = [await client.send_timeseries({"ts": ts, "values": {"a": 1}}, wait_for_publish=False) for ts in range(1, 21)]
        async with asyncio.timeout(SOME_TIME):
            await until(lambda: client.statistics.connections >= 15)
            outage = False
            results = [await future for [future] in futures]
        assert {result.reason_code for result in results} == {0}


async def test_an_outage_for_data_only_rejects_nothing(emulator, make):
    """If the message queue of the platform is down, it accepts requests, but each connection ends at its first data."""
    async with make() as client:
        outage = True
        emulator.on_publish = lambda publish: (
            Verdict.close() if outage and publish.topic.endswith(("telemetry", "attributes")) and publish.payload != b"{}" else None
        )
        [future] = await client.send_timeseries({"ts": 1, "values": {"a": 1}}, wait_for_publish=False)
        async with asyncio.timeout(SOME_TIME):
            await until(
                lambda: (
                    future.done() or any(group.failures > STRIKES for group in engine_of(client).message_service.suspects.groups)
                )
            )
            outage = False
            assert (await future).is_successful()


async def test_the_number_of_suspects_is_limited_while_the_server_closes_every_connection(emulator, make):
    """Suspects are not in the queue, so its limits do not apply to them."""
    client = make(max_inflight_messages=10)
    engine_of(client).message_service.suspects.max_suspects = 20
    async with client:
        outage = True
        emulator.on_publish = lambda publish: Verdict.close() if outage and publish.topic.endswith("telemetry") else None
        # Each send makes one message.
        futures = [
            await client.send_timeseries({"ts": ts, "values": {"a": "x" * 40_000}}, wait_for_publish=False) for ts in range(1, 101)
        ]
        async with asyncio.timeout(SOME_TIME):
            await until(lambda: client.statistics.connections >= 100)
            assert len(engine_of(client).message_service.suspects.all()) <= 20
            assert client.statistics.queued >= 80
            outage = False
            results = [await future for [future] in futures]
        assert {result.reason_code for result in results} == {0}


async def test_a_message_without_datapoints_does_not_block_others(emulator, make):
    emulator.on_publish = lambda publish: Verdict.close() if publish.topic.endswith("/claim") else None
    async with make() as client:
        claim = await client.claim_device(ClaimRequest.build("secret"), wait_for_publish=False, timeout=None)
        async with asyncio.timeout(SOME_TIME):
            for number in range(20):
                assert (await client.send_timeseries({"a": number})).is_successful()
                assert (await client.request_attributes(["a"], timeout=None)) is not None
                await asyncio.sleep(0.01)
            assert (await claim).reason_code == 0x80


async def test_a_message_that_is_never_acknowledged_does_not_block_others(emulator, make):
    emulator.on_publish = judge_poison(Verdict.ignore())
    async with make(ack_timeout=0.2) as client:
        [bad] = await client.send_timeseries({"ts": 1, "values": {"b": POISON}}, wait_for_publish=False)
        async with asyncio.timeout(SOME_TIME):
            while not bad.done():
                assert (await client.send_timeseries({"a": 1}, timeout=None)).is_successful()
                await asyncio.sleep(0.01)
        assert (await bad).reason_code == 0x80


async def suspects_of_one_trial(emulator, client, count, on_connect=None):
    """Make suspects of messages that were in flight when two connections ended. Return their futures.

    ``on_connect`` is set for the connections after that.
    """
    arrived = []

    def judge(publish):
        if publish.topic.endswith("telemetry"):
            arrived.append(publish)
            if len(arrived) == 2 * count:
                emulator.on_connect = on_connect
            return Verdict.ignore() if len(arrived) % count else Verdict.close()
        return None

    emulator.on_publish = judge
    futures = []
    async with asyncio.timeout(SOME_TIME):
        for ts in range(1, count + 1):
            futures += await client.send_timeseries({"ts": ts, "values": {"a": "x"}}, wait_for_publish=False)
            await until(lambda sent=ts: len(arrived) >= sent)
        await until(lambda: len(engine_of(client).message_service.suspects.all()) == count)
    return futures


async def test_a_trial_keeps_to_the_receive_maximum(emulator, make):
    """Its value may be smaller than in the session in which the messages were in flight."""
    in_flight, most = set(), []

    def publish(publish):
        if publish.topic.endswith("telemetry"):
            in_flight.add(publish.packet_id)
            most.append(len(in_flight))
        return Verdict.delay(0.02)

    def send(sending):
        if sending.kind == "PUBACK":
            in_flight.discard(int.from_bytes(sending.packet[2:4]))

    async with make() as client:
        smaller = ConnectVerdict.accept({"receive_maximum": 2})
        futures = await suspects_of_one_trial(emulator, client, 5, lambda _: smaller)
        emulator.on_publish, emulator.on_send = publish, send
        async with asyncio.timeout(SOME_TIME):
            assert all(result.is_successful() for result in await asyncio.gather(*futures))
    assert max(most) <= 2


async def test_clearing_the_queues_during_a_trial_counts_each_message_once(emulator, make):
    async with make() as client:
        futures = await suspects_of_one_trial(emulator, client, 3)
        service = engine_of(client).message_service
        arrived = asyncio.Event()

        def ignore(publish):
            if publish.topic.endswith("telemetry"):
                arrived.set()
                return Verdict.delay(0.05)
            return None

        emulator.on_publish = ignore
        async with asyncio.timeout(SOME_TIME):
            await arrived.wait()
            in_flight = client.statistics.in_flight
            await service.clear()
            assert client.statistics.queued == 0
            codes = [result.reason_code for result in await asyncio.gather(*futures)]
        assert (codes.count(0), codes.count(-1)) == (in_flight, 3 - in_flight)
        statistics = client.statistics
        assert (statistics.acknowledged, statistics.undelivered, statistics.in_flight) == (in_flight, 3 - in_flight, 0)


async def test_stop_resolves_suspects(emulator, make):
    client = make()
    await client.connect()
    emulator.on_publish = lambda publish: Verdict.close() if publish.topic.endswith("telemetry") else None
    futures = [await client.send_timeseries({"ts": ts, "values": {"a": 1}}, wait_for_publish=False) for ts in range(1, 6)]
    async with asyncio.timeout(SOME_TIME):
        await until(lambda: not engine_of(client).message_service.suspects.is_empty())
    await client.stop(timeout=0.1)
    assert {future.result().reason_code for [future] in futures} == {-1}
    assert client.statistics.undelivered == 5
