"""MQTTManager, MessageService and its workers on their own, without a client around them."""

import asyncio

import pytest

from engine_parts import own_tasks
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.exceptions import ConnectionLostError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.common.rate_limit.backpressure_controller import BackpressureController
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessageBuilder
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.delivery.admission import Admission
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.gateway.gate import DeviceGate, RefusedShare
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic
from tb_mqtt_client.service.message_service import MessageService
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport

TELEMETRY = "v1/devices/me/telemetry"


def limiter(messages="", telemetry_messages="", datapoints=""):
    return RateLimiter(*(RateLimit(text, percentage=100) for text in (messages, telemetry_messages, datapoints)))


def telemetry(payload=b'{"a":1}'):
    return MqttPublishMessage(TELEMETRY, payload, datapoints=1)


def new_manager(**options):
    tasks = own_tasks()
    return MQTTManager("client", inbound=InboundDispatcher(InboundReport(), tasks), tasks=tasks, **options)


def new_service(manager, *, of_gateway=False):
    """Return a service that is not started yet, with a component for sub-devices if it is a gateway's."""
    admission = Admission(limiter(), limiter(), BackpressureController())
    service = MessageService(manager, admission, FutureMap(), own_tasks(), max_queued_sends=1000)
    if of_gateway:
        service.plug_in(SubDeviceTraffic(service, DeviceGate(RefusedShare()), JsonGatewayFormat(), lambda _: None))
    return service


async def connect(manager, emulator, token="TOKEN"):
    await manager.connect_by(Route(ServerAddress(emulator.host, emulator.port)), username=token)
    manager.open_for_traffic()


@pytest.fixture
async def manager(emulator):
    manager = new_manager()
    await connect(manager, emulator)
    yield manager
    await manager.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


async def test_a_publish_is_resolved_by_its_acknowledgement(emulator, manager):
    message = telemetry()
    await manager.publish(message)
    result = await message.delivery_futures[0]
    assert (result.reason_code, result.datapoints_count, emulator.counters.datapoints) == (0, 1, 1)


async def test_publishing_without_a_connection():
    manager = new_manager()
    with pytest.raises(ConnectionLostError):
        await manager.publish(telemetry(), force=True)
    waiting = asyncio.ensure_future(manager.publish(telemetry()))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_messages_without_an_owner_are_resolved_as_not_delivered(emulator, manager):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    message = telemetry()
    await manager.publish(message)
    await manager.disconnect()
    assert (await message.delivery_futures[0]).reason_code == -1


async def test_unacknowledged_messages_are_put_back_in_their_order(emulator, manager):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    put_back = []
    manager.patch_client_for_retry_logic(lambda items, _: put_back.extend(item.message for item in items), lambda *_: None)
    messages = [telemetry(), telemetry()]
    for message in messages:
        await manager.publish(message)
    await manager.disconnect()
    assert put_back == messages


async def test_pending_publishes_are_overdue_by_the_given_time(emulator):
    manager = new_manager(ack_timeout=1000)
    await connect(manager, emulator)
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    await manager.publish(telemetry())
    now = asyncio.get_running_loop().time()
    await manager.check_pending_publishes(now + 900)
    # A connection that is given up ends in the loop's next turn.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert manager.is_connected()
    await manager.check_pending_publishes(now + 1100)
    assert "no PUBACK within 1000 s" in (await manager.wait_lost()).cause
    await manager.stop()


async def test_a_service_publishes_uplinks_and_messages(emulator, manager):
    service = new_service(manager)
    service.start()
    uplink = DeviceUplinkMessageBuilder().add_timeseries(TimeseriesEntry("a", 1, 5)).build()
    [future] = await service.publish(MqttPublishMessage(TELEMETRY, uplink, delivery_futures=uplink.get_delivery_futures()))
    assert (await future).is_successful()
    [raw] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    assert (await raw).is_successful()
    assert [(point.key, point.ts) for point in emulator.device("device").telemetry] == [("a", 5)]
    assert service.is_empty()
    await service.shutdown()


async def test_messages_that_come_back_are_published_again(emulator, manager):
    service = new_service(manager)
    service.start()
    [future] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    await future
    again = MqttPublishMessage("v1/devices/me/claim", b"{}")
    await service.put_retry_message(again)
    assert (await again.delivery_futures[0]).is_successful()
    await service.shutdown()


async def test_clearing_resolves_queued_messages_and_continues(emulator):
    manager = new_manager()
    service = new_service(manager)
    service.start()
    [future] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    await service.clear()
    assert (await future).reason_code == -1
    await connect(manager, emulator)
    [future] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    assert (await future).is_successful()
    await service.shutdown()
    await manager.stop()


async def test_a_service_of_a_gateway_publishes_uplinks_of_sub_devices(emulator):
    manager = new_manager()
    await connect(manager, emulator, "GATEWAY")
    service = new_service(manager, of_gateway=True)
    service.start()
    uplink = GatewayUplinkMessageBuilder().set_device_name("D1").add_timeseries(TimeseriesEntry("a", 1, 5)).build()
    [future] = await service.publish(MqttPublishMessage("v1/gateway/telemetry", uplink))
    assert (await future).is_successful()
    assert emulator.device("D1").telemetry
    await service.shutdown()
    await manager.stop()
