"""Raw messages, withdrawing and announcing: what programs on top of the clients need, with both kinds of clients."""

import asyncio
import queue

import pytest
from device_peer import ATTRIBUTES, FAST, make_client

from tb_mqtt_client import Connected, NoDeviceSessionError, SubscriptionRefusedError
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.sync import DeviceClient as SyncDeviceClient
from tb_mqtt_client.sync import GatewayClient as SyncGatewayClient

TELEMETRY = "v1/devices/me/telemetry"


class Messages(asyncio.Queue):
    """A callback of a subscription."""

    async def __call__(self, topic, payload):
        await self.put((topic, payload))


async def test_a_subscription_takes_no_message_away(device, emulator):
    raw, updates = Messages(), asyncio.Queue()
    device.set_attribute_update_callback(updates.put)
    remove = await device.subscribe(ATTRIBUTES, raw)
    await emulator.set_shared_attributes("device", {"level": 7})
    assert await raw.get() == (ATTRIBUTES, b'{"level":7}')
    assert (await updates.get()).get("level") == 7
    remove()
    remove()
    await emulator.set_shared_attributes("device", {"level": 8})
    assert (await updates.get()).get("level") == 8
    assert raw.empty()


async def test_a_subscription_is_made_again_after_a_reconnect(device, emulator):
    raw = Messages()
    await device.subscribe("v2/fw/response/+/chunk/+", raw)
    for number in range(2):
        topic = f"v2/fw/response/0/chunk/{number}"
        assert await emulator.publish_to("TOKEN", topic, b"x")
        assert await raw.get() == (topic, b"x")
        if not number:
            events = device.connection_events()
            await emulator.disconnect_device("TOKEN")
            while not isinstance(await anext(events), Connected):
                pass
    assert device.statistics.inbound_unexpected == 0


async def test_a_subscription_before_the_connection(emulator):
    client, raw = make_client(emulator), Messages()
    await client.subscribe("other/#", raw)
    await client.connect()
    assert await emulator.publish_to("TOKEN", "other", b"x")
    assert await raw.get() == ("other", b"x")
    await client.stop()


async def test_a_refused_subscription(device):
    with pytest.raises(SubscriptionRefusedError):
        await device.subscribe("the/platform/has/no/such/topic", print)


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "a\0"])
async def test_an_invalid_filter(device, topic_filter):
    with pytest.raises(ValueError, match="topic_filter"):
        await device.subscribe(topic_filter, print)


async def test_publish(device, emulator):
    published = asyncio.Queue()
    emulator.on_publish = published.put_nowait
    result = await device.publish("v1/devices/me/claim", '{"secretKey":"s","durationMs":1000}')
    assert result.is_successful()
    assert (await published.get()).json() == {"secretKey": "s", "durationMs": 1000}
    with pytest.raises(ValueError, match="counted"):
        await device.publish(TELEMETRY, "{}")
    with pytest.raises(ValueError, match="wildcards"):
        await device.publish("a/+", "{}")
    with pytest.raises(TypeError, match="payload"):
        await device.publish("a", {})


async def test_withdraw(device, emulator):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    await device.disconnect()
    [delivery] = await device.send_timeseries({"ts": 1, "values": {"a": 1}}, wait_for_publish=False)
    [kept] = await device.send_timeseries({"ts": 2, "values": {"a": 1}}, wait_for_publish=False)
    assert device.withdraw(delivery)
    assert (await delivery).reason_code == LocalReasonCode.DROPPED
    assert not device.withdraw(delivery)
    emulator.on_publish = None
    await device.connect()
    assert (await kept).is_successful()
    assert [datapoint.ts for datapoint in emulator.device("device").telemetry] == [2]
    statistics = device.statistics
    assert (statistics.accepted, statistics.acknowledged, statistics.dropped) == (2, 1, 1)


async def test_disconnect_sends_queued_data_first(device, emulator):
    deliveries = [(await device.send_timeseries({"a": value}, wait_for_publish=False))[0] for value in range(100)]
    await device.disconnect(timeout=30)
    assert all(delivery.result().is_successful() for delivery in deliveries)
    await device.connect()
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    [delivery] = await device.send_timeseries({"a": 1}, wait_for_publish=False)
    await device.disconnect(timeout=0.01)
    assert not delivery.done()
    emulator.on_publish = None
    await device.connect()
    assert (await delivery).is_successful()


async def test_a_gateway_announces_unknown_devices(make_gateway, emulator):
    gateway = make_gateway(announce_unknown_devices=True)
    await gateway.connect()
    assert (await gateway.send_device_timeseries("sensor", {"a": 1})).is_successful()
    assert (await gateway.send_device_attributes("sensor", {"b": 1})).is_successful()
    assert emulator.device("sensor").profile == "default"
    assert len(gateway.device_manager.all_devices) == 1
    await gateway.stop()


async def test_without_the_option_a_name_is_an_error(gateway):
    await gateway.connect_device("sensor")
    with pytest.raises(NoDeviceSessionError, match="announce_unknown_devices"):
        await gateway.send_device_timeseries("sensor", {"a": 1})


async def test_the_synchronous_clients_do_the_same(emulator):
    options = FAST | {"host": emulator.host, "port": emulator.port}

    def device_program():
        with SyncDeviceClient(options | {"access_token": "TOKEN"}) as client:
            received = queue.Queue()
            remove = client.subscribe("v1/devices/me/rpc/response/+", lambda topic, payload: received.put((topic, payload)))
            client.call_rpc("now")
            # The callback runs in a thread of its own, perhaps after the call returned.
            _, payload = received.get(timeout=30)
            assert client.publish("v1/devices/me/claim", b"{}").is_successful()
            assert client.publish("v1/devices/me/claim", b"{}", wait=False).result(30).is_successful()
            remove()
            client.disconnect()
            delivery = client.send_timeseries({"a": 1}, wait=False)
            assert client.withdraw(delivery)
            assert delivery.result(30).reason_code == LocalReasonCode.DROPPED
            assert received.empty()
            return payload

    emulator.on_client_rpc = lambda *_: 7
    assert await asyncio.to_thread(device_program) == b"7"

    def gateway_program():
        with SyncGatewayClient(options | {"access_token": "GATEWAY", "announce_unknown_devices": True}) as gateway:
            assert gateway.send_device_timeseries("sensor", {"ts": 1, "values": {"a": 1}}).is_successful()
            session = gateway.session_of("sensor")
            encode = gateway._gateway.encode_device_timeseries
            uplinks = [encode(session, {"ts": ts, "values": {"a": 1}}) for ts in (2, 3)]
            result = gateway.send_uplinks(uplinks)
            assert (result.is_successful(), result.datapoints_count) == (True, 2)

    await asyncio.to_thread(gateway_program)
    assert [datapoint.ts for datapoint in emulator.device("sensor").telemetry] == [1, 2, 3]
