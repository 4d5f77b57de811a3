"""``PublishResult.certainty`` says whether the platform has the data, also when a send was not acknowledged."""

import asyncio

import pytest
from device_peer import make_client

from engine_parts import engine_of, sub_devices_of
from tb_mqtt_client import Certainty, DeviceClient
from tb_mqtt_client.emulator import Emulator, Verdict

TELEMETRY = "v1/devices/me/telemetry"
GATEWAY_TELEMETRY = "v1/gateway/telemetry"


def outcome(result):
    return result.reason_code, result.certainty


def verdict_for(topic, verdict):
    """Return a hook that overrides what happens to messages of a topic."""
    return lambda publish: verdict if publish.topic == topic else None


async def until(condition):
    """Let the event loop run until a condition is met that has no event."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def send(client, values):
    [future] = await client.send_timeseries(values, wait_for_publish=False)
    return future


async def stuck_client(emulator, **options):
    """Return a client with one message in flight, which the platform has not acknowledged, and the future of its send."""
    client = make_client(emulator, max_inflight_messages=1, **options)
    await client.connect()
    in_flight = await send(client, {"in flight": 1})
    await until(lambda: engine_of(client).mqtt_manager.in_flight)
    return client, in_flight


@pytest.mark.parametrize("stores", [False, True])
async def test_stop_distinguishes_data_in_flight_from_queued_data(emulator, stores):
    emulator.on_publish = verdict_for(TELEMETRY, Verdict.ignore(store=stores))
    client, in_flight = await stuck_client(emulator)
    queued = await send(client, {"queued": 1})
    await client.stop(timeout=0)
    assert outcome(await in_flight) == (-1, Certainty.UNKNOWN)
    assert outcome(await queued) == (-1, Certainty.NEVER_SENT)
    assert [point.key for point in emulator.device("device").telemetry] == (["in flight"] if stores else [])


async def test_data_of_a_lost_connection_stays_unknown_until_it_is_acknowledged(emulator):
    emulator.on_publish = verdict_for(TELEMETRY, Verdict.ignore(store=True))
    client, taken_back = await stuck_client(emulator, reconnect_delay_min=60, reconnect_delay_max=60)
    await emulator.disconnect_device("device")
    await until(lambda: not engine_of(client).mqtt_manager.in_flight)
    queued = await send(client, {"queued": 1})
    await client.stop(timeout=0)
    assert outcome(await taken_back) == (-1, Certainty.UNKNOWN)
    assert outcome(await queued) == (-1, Certainty.NEVER_SENT)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (None, (0, Certainty.DELIVERED)),
        # The platform refuses the second copy, and may have stored the first one.
        (Verdict.refuse(0x99), (0x99, Certainty.UNKNOWN)),
    ],
)
async def test_data_that_is_published_again(emulator, second, expected):
    verdicts = [Verdict.close(store=True), second]
    emulator.on_publish = lambda publish: verdicts.pop(0) if publish.topic == TELEMETRY else None
    async with make_client(emulator) as client:
        assert outcome(await client.send_timeseries({"a": 1})) == expected
    assert verdicts == []


async def test_parts_of_a_message_that_was_lost_are_unknown():
    """A smaller limit on the next connection splits a message whose first copy the platform may have."""
    async with Emulator(max_payload_size=2000) as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.on_publish = verdict_for(TELEMETRY, Verdict.close(store=True))
        parts = []

        def refuse_last(publish):
            if publish.topic != TELEMETRY:
                return None
            parts.append(publish)
            return Verdict.ignore() if len(parts) > 1 else Verdict.refuse(0x87)

        client = make_client(emulator, reconnect_delay_min=0.1, reconnect_delay_max=0.1, max_inflight_messages=2)
        await client.connect()
        futures = [await send(client, {f"{number} {'x' * 100}": 1}) for number in range(10)]
        await until(lambda: emulator.counters.connections == 1 and not engine_of(client).mqtt_manager.opened.is_set())
        emulator.max_payload_size = 400
        emulator.on_publish = refuse_last
        await until(lambda: len(parts) > 2)
        await client.stop(timeout=0)
    assert {(await future).certainty for future in futures} == {Certainty.UNKNOWN}
    assert {(await future).reason_code for future in futures} == {0x87, -1}


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_dropped_data_was_never_sent(emulator, policy):
    emulator.on_publish = verdict_for(TELEMETRY, Verdict.ignore())
    client, _ = await stuck_client(emulator, queue_policy=policy, max_queued_messages=1)
    sends = [await send(client, {"old": 1}), await send(client, {"new": 1})]
    dropped = sends[0] if policy == "drop_oldest" else sends[1]
    assert outcome(await dropped) == (-2, Certainty.NEVER_SENT)
    await client.stop(timeout=0)


async def test_refused_data(emulator, device):
    emulator.on_publish = verdict_for(TELEMETRY, Verdict.refuse(0x99))
    results = await asyncio.gather(*(device.send_timeseries({f"key {number}": 1}) for number in range(5)))
    assert {outcome(result) for result in results} == {(0x99, Certainty.REFUSED)}


async def test_data_that_was_refused_for_a_quota_and_not_published_again_is_refused(emulator):
    refusals = []

    def refuse(publish):
        if publish.topic != TELEMETRY:
            return None
        refusals.append(publish)
        return Verdict.refuse(0x97)

    emulator.on_publish = refuse
    client = make_client(emulator, backpressure_delay=60)
    await client.connect()
    future = await send(client, {"a": 1})
    await until(lambda: refusals and not engine_of(client).mqtt_manager.in_flight)
    await client.stop(timeout=0)
    assert outcome(await future) == (-1, Certainty.REFUSED)


async def test_a_send_of_which_the_platform_refuses_a_part_is_unknown():
    """The platform has the other parts, so sending everything again would send these twice."""
    async with Emulator(max_payload_size=200) as emulator:
        emulator.add_device("TOKEN", "device")
        parts = []

        def refuse_the_second(publish):
            parts.append(publish)
            return Verdict.refuse(0x99) if len(parts) == 2 else None

        async with DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"}) as client:
            emulator.on_publish = refuse_the_second
            result = await client.send_timeseries({f"key {index}": index for index in range(50)})
            emulator.on_publish = verdict_for(TELEMETRY, Verdict.refuse(0x99))
            refused = await client.send_timeseries({f"key {index}": index for index in range(50)})
    assert len(parts) > 2
    assert outcome(result) == (0x99, Certainty.UNKNOWN)
    assert outcome(refused) == (0x99, Certainty.REFUSED)


async def test_a_datapoint_that_is_too_large_is_refused(device):
    too_large = await device.send_timeseries({"text": "x" * 70_000})
    partly = await device.send_timeseries({"text": "x" * 70_000, "a": 1})
    assert outcome(too_large) == (0x95, Certainty.REFUSED)
    assert outcome(partly) == (0x95, Certainty.UNKNOWN)


async def test_data_is_pending_after_the_timeout_of_the_caller(emulator, device):
    emulator.on_publish = verdict_for(TELEMETRY, Verdict.ignore(store=True))
    result = await device.send_timeseries({"a": 1}, timeout=0.01)
    assert outcome(result) == (-1, Certainty.PENDING)
    emulator.on_publish = None
    await emulator.disconnect_device("device")
    await until(lambda: device.statistics.acknowledged == 1)


async def test_a_message_that_ends_each_connection_is_unknown(emulator):
    """The client rejects it, but the platform may have stored it each time."""
    emulator.on_publish = verdict_for(TELEMETRY, Verdict.close(0x99, store=True))
    async with make_client(emulator) as client:
        assert outcome(await client.send_timeseries({"a": 1})) == (0x99, Certainty.UNKNOWN)


# Sub-devices of a gateway.


async def gateway_send(gateway, session, values):
    return await gateway.send_device_timeseries(session, values, wait_for_publish=False)


async def test_data_of_a_deleted_sub_device(emulator, start_gateway):
    emulator.on_publish = verdict_for(GATEWAY_TELEMETRY, Verdict.ignore())
    gateway = await start_gateway(max_inflight_messages=1, reconnect_delay_min=60, reconnect_delay_max=60)
    session, _ = await gateway.connect_device("D1", wait_for_publish=True)
    in_flight = await gateway_send(gateway, session, {"in flight": 1})
    await until(lambda: engine_of(gateway).mqtt_manager.in_flight)
    queued = await gateway_send(gateway, session, {"queued": 1})
    await emulator.publish_to("GATEWAY", "v1/devices/me/rpc/request/0", {"method": "gateway_device_deleted", "params": "D1"})
    await until(queued.done)
    assert outcome(await queued) == (-1, Certainty.NEVER_SENT)
    await gateway.stop(timeout=0)
    assert outcome(await in_flight) == (-1, Certainty.UNKNOWN)


async def test_data_of_a_sub_device_that_the_platform_refuses(emulator, start_gateway):
    emulator.on_publish = verdict_for("v1/gateway/connect", Verdict.refuse(0x99))
    gateway = await start_gateway()
    session, [connecting] = await gateway.connect_device("D1", wait_for_publish=False)
    data = await gateway_send(gateway, session, {"a": 1})
    assert outcome(await data) == outcome(await connecting) == (0x99, Certainty.REFUSED)


async def test_data_that_waited_for_an_announcement_without_an_acknowledgement(emulator, start_gateway):
    """The announcement was written and the data was not."""
    emulator.on_publish = verdict_for("v1/gateway/connect", Verdict.ignore())
    gateway = await start_gateway(ack_timeout=0.05, announce_delay_min=3600)
    session, [connecting] = await gateway.connect_device("D1", wait_for_publish=False)
    data = await gateway_send(gateway, session, {"a": 1})
    await until(lambda: sub_devices_of(gateway).announcer.retries.get(session))
    await gateway.disconnect_device(session)
    assert outcome(await connecting) == (-1, Certainty.UNKNOWN)
    assert outcome(await data) == (-1, Certainty.NEVER_SENT)


async def test_a_refusal_of_several_devices_says_nothing_about_each(emulator, start_gateway):
    """The platform may have stored the data of all but one (docs/platform_contract.md, section 4)."""
    gateway = await start_gateway()
    sessions = [(await gateway.connect_device(name, wait_for_publish=True))[0] for name in ("D1", "D2")]
    published = []

    def judge(publish):
        if publish.topic != GATEWAY_TELEMETRY:
            return None
        published.append(sorted(publish.json()))
        if published[-1] == ["D1"]:
            return None
        return Verdict.refuse(0x99)

    emulator.on_publish = judge
    first, second = [await gateway_send(gateway, session, {"a": 1}) for session in sessions]
    assert outcome(await first) == (0, Certainty.DELIVERED)
    assert outcome(await second) == (0x99, Certainty.UNKNOWN)
    assert published == [["D1", "D2"], ["D1"], ["D2"]]
