"""Plain functions send without waiting: each send gets its result, and a full queue raises instead of waiting."""

import asyncio

import pytest
from device_peer import make_client

from engine_parts import engine_of
from tb_mqtt_client import BackpressureException, Delivery, NotConnectedError, QueueFullError, StoreFullError
from tb_mqtt_client.service.store.receipts import StoredDelivery

STATES = ("acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight", "kept")


def adds_up(client):
    now = client.statistics
    return now.accepted + now.recovered == sum(getattr(now, state) for state in STATES)


def keys(device):
    return sorted(point.key for point in device.telemetry)


async def offline(emulator, **options):
    client = make_client(emulator, **options)
    await emulator.stop()
    await client.start()
    return client


async def test_every_send_arrives_and_has_its_result(emulator):
    async with make_client(emulator) as client:
        deliveries = [client.enqueue_timeseries({f"k{number:04}": number, "b": 1}) for number in range(2000)]
        deliveries.append(client.enqueue_attributes({"serial": 1}))
        assert not any(delivery.done() for delivery in deliveries)
        results = await asyncio.gather(*deliveries)
        assert {type(delivery) for delivery in deliveries} == {Delivery}
        assert [(result.reason_code, result.datapoints_count) for result in results] == [(0, 2)] * 2000 + [(0, 1)]
        assert client.statistics.acknowledged == 4001
        assert adds_up(client)
        assert len(engine_of(client).futures) == 0
    assert keys(emulator.device("device"))[-1] == "k1999"
    assert emulator.device("device").attributes == {"serial": 1}


async def test_a_send_that_is_split_has_one_result(emulator):
    async with make_client(emulator) as client:
        small = client.enqueue_timeseries({"small": 1})
        large = client.enqueue_timeseries([{"ts": ts, "values": {"text": "x" * 1000}} for ts in range(300)])
        assert (await large).datapoints_count == 300
        assert (await large).message_id == -1
        assert (await small).datapoints_count == 1
        assert len(engine_of(client).futures) == 0


async def test_sends_of_a_sub_device(emulator, gateway):
    session, _ = await gateway.connect_device("meter", "electricity")
    telemetry = gateway.enqueue_device_timeseries(session, {"power": 5})
    attributes = gateway.enqueue_device_attributes(session, {"serial": 2})
    assert (await telemetry).is_successful()
    assert (await attributes).is_successful()
    with pytest.raises(TypeError, match="device_session must be a DeviceSession"):
        gateway.enqueue_device_timeseries("meter", {"power": 5})
    assert keys(emulator.device("meter")) == ["power"]


async def test_terms_apply(emulator):
    client = await offline(emulator)
    expiring = client.enqueue_timeseries({"old": 1}, expires_after=0.001)
    client.enqueue_timeseries({"new": 1}, priority="high")
    assert (await expiring).reason_code == -3
    with pytest.raises(ValueError, match="priority"):
        client.enqueue_timeseries({"a": 1}, priority="urgent")
    await client.stop(timeout=0)
    assert client.statistics.undelivered == 1
    assert adds_up(client)


async def test_a_queued_send_can_be_withdrawn(emulator):
    client = await offline(emulator)
    delivery = client.enqueue_timeseries({"a": 1})
    assert client.withdraw(delivery)
    assert (await delivery).reason_code == -2
    assert engine_of(client).message_service.is_empty()
    await client.stop(timeout=0)


async def test_invalid_data_raises_and_nothing_is_accepted(emulator):
    async with make_client(emulator) as client:
        with pytest.raises(ValueError, match="nan"):
            client.enqueue_timeseries({"a": float("nan")})
        with pytest.raises(ValueError, match="without a datapoint"):
            client.enqueue_attributes({})
        assert client.statistics.accepted == 0


@pytest.mark.parametrize("policy", ["wait", "raise"])
@pytest.mark.parametrize("bound", [{"max_queued_messages": 5}, {"max_queued_bytes": 60}])
async def test_a_full_queue_raises(emulator, policy, bound):
    client = await offline(emulator, queue_policy=policy, **bound)
    deliveries = [client.enqueue_timeseries({f"key{number}": number}) for number in range(5)]
    with pytest.raises(QueueFullError, match="the queue is full: 5 sends") as raised:
        client.enqueue_timeseries({"the key of one more": 5})
    assert isinstance(raised.value, BackpressureException)
    assert client.statistics.accepted == 5
    await client.stop(timeout=0)
    assert {delivery.result().reason_code for delivery in deliveries} == {-1}
    assert adds_up(client)


@pytest.mark.parametrize(("policy", "dropped"), [("drop_oldest", range(3)), ("drop_newest", range(5, 8))])
async def test_a_full_queue_drops_by_its_policy(emulator, policy, dropped):
    client = await offline(emulator, queue_policy=policy, max_queued_messages=5)
    deliveries = [client.enqueue_timeseries({f"k{number}": number}) for number in range(8)]
    assert [index for index, delivery in enumerate(deliveries) if delivery.done()] == list(dropped)
    assert {deliveries[index].result().reason_code for index in dropped} == {-2}
    await emulator.start()
    assert {(await delivery).reason_code for delivery in deliveries} == {0, -2}
    await client.stop()
    assert (client.statistics.dropped, client.statistics.acknowledged) == (3, 5)
    assert adds_up(client)


async def test_a_program_that_awaits_between_its_sends_never_fills_the_queue(emulator):
    async with make_client(emulator, max_queued_messages=100) as client:
        for number in range(1000):
            delivery = client.enqueue_timeseries({"a": number})
            if number % 50 == 49:
                assert (await delivery).is_successful()
        assert client.statistics.acknowledged == 1000


async def test_only_a_started_client_accepts_sends_and_only_in_its_loop(emulator):
    client = make_client(emulator)
    with pytest.raises(NotConnectedError, match=r"connect\(\) or start\(\) must be called"):
        client.enqueue_timeseries({"a": 1})
    await client.connect()

    async def send():
        client.enqueue_timeseries({"a": 1})

    with pytest.raises(RuntimeError, match="belongs to the event loop"):
        await asyncio.to_thread(asyncio.run, send())
    await client.stop()
    with pytest.raises(NotConnectedError, match="is stopped"):
        client.enqueue_timeseries({"a": 1})


@pytest.mark.parametrize("durability", ["group", "always"])
async def test_with_a_store_the_delivery_says_when_the_data_is_on_disk(emulator, tmp_path, durability):
    options = {"path": str(tmp_path / "queue"), "min_free": 0, "durability": durability}
    client = await offline(emulator, store=options)
    delivery = client.enqueue_timeseries({"a": 1})
    assert isinstance(delivery, StoredDelivery)
    await delivery.stored
    assert not delivery.done()
    await client.stop()
    assert delivery.result().reason_code == -4
    assert adds_up(client)


async def test_with_a_store_full_memory_makes_room_for_what_is_on_disk(emulator, tmp_path):
    client = await offline(emulator, store={"path": str(tmp_path / "queue"), "min_free": 0}, max_queued_messages=10)
    for number in range(10):
        client.enqueue_timeseries({f"k{number:02}": 1})
    with pytest.raises(QueueFullError):
        client.enqueue_timeseries({"early": 1})
    await client.flush()
    deliveries = [client.enqueue_timeseries({f"k{number:02}": 1}) for number in range(10, 20)]
    await emulator.start()
    assert {(await delivery).reason_code for delivery in deliveries} == {0}
    await client.stop()
    assert keys(emulator.device("device")) == [f"k{number:02}" for number in range(20)]
    assert adds_up(client)


@pytest.mark.parametrize("on_full", ["wait", "drop_newest"])
async def test_a_full_store_does_not_take_a_send(emulator, tmp_path, on_full):
    store = {"path": str(tmp_path / "queue"), "min_free": 0, "max_bytes": 2 * 1024 * 1024, "on_full": on_full}
    client = await offline(emulator, store=store)
    accepted = 0
    text = "x" * 20_000
    while client.statistics.dropped == 0 and accepted < 200:
        try:
            client.enqueue_timeseries({"text": text})
        except StoreFullError:
            break
        accepted += 1
        await client.flush()
    assert 10 < accepted < 200
    assert (client.statistics.dropped > 0) is (on_full == "drop_newest")
    await client.stop()
    assert adds_up(client)
