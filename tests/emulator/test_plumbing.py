"""MQTTManager, MessageService and its workers as programs for SDK 2.0 put them together by hand."""

import asyncio
import logging

import pytest

from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.exceptions import ConnectionLostError
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.queue import AsyncDeque
from tb_mqtt_client.common.rate_limit.rate_limit import RateLimit
from tb_mqtt_client.common.rate_limit.rate_limiter import RateLimiter
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.data.timeseries_entry import TimeseriesEntry
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessageBuilder
from tb_mqtt_client.service.formats.json_device import JsonMessageAdapter
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayMessageAdapter
from tb_mqtt_client.service.message_service import MessageQueueWorker, MessageService
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.handlers import RPCResponseHandler

TELEMETRY = "v1/devices/me/telemetry"


def limiter(messages="", telemetry_messages="", datapoints=""):
    return RateLimiter(*(RateLimit(text, percentage=100) for text in (messages, telemetry_messages, datapoints)))


def telemetry(payload=b'{"a":1}'):
    return MqttPublishMessage(TELEMETRY, payload, datapoints=1)


class Program:
    """Notes what a manager calls."""

    def __init__(self, **options):
        self.calls = []
        self.stop_event = asyncio.Event()
        self.rpc_responses = RPCResponseHandler()
        self.manager = MQTTManager(
            "client",
            self.stop_event,
            JsonMessageAdapter(),
            self.connected,
            self.disconnected,
            self.published,
            self.limited,
            self.rpc_responses,
            **options,
        )

    async def connected(self):
        self.calls.append("connected")

    async def disconnected(self):
        self.calls.append("disconnected")

    async def published(self, result):
        self.calls.append((result.topic, result.reason_code))

    async def limited(self, response):
        self.calls.append(sorted(response.result))


@pytest.fixture
async def program(emulator):
    program = Program()
    yield program
    await program.manager.stop()
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()} == set()


@pytest.fixture
async def manager(emulator, program):
    await program.manager.connect(emulator.host, emulator.port, username="TOKEN")
    return program.manager


async def test_a_manager_tells_what_happens(emulator, program):
    manager = program.manager
    with pytest.raises(TimeoutError):
        await manager.await_ready(timeout=0)
    await manager.connect(emulator.host, emulator.port, "TOKEN")
    await manager.await_ready()
    assert program.calls[0] == "connected"
    assert ["maxInflightMessages", "maxPayloadSize", "rateLimits"] in program.calls
    message = telemetry()
    await manager.publish(message)
    result = await message.delivery_futures[0]
    assert (result.reason_code, result.datapoints_count, emulator.counters.datapoints) == (0, 1, 1)
    await manager.stop()
    assert [call for call in program.calls if call[0] == TELEMETRY] == [(TELEMETRY, 0)]
    assert program.calls[-1] == "disconnected"


async def test_answers_to_calls_reach_their_handler(emulator, program, manager):
    emulator.on_client_rpc = lambda _device, _method, _params: {"x": 1}
    future = program.rpc_responses.register_request(5)
    await manager.publish(MqttPublishMessage("v1/devices/me/rpc/request/5", b'{"method":"m"}'))
    assert (await future).result == {"x": 1}


async def test_limits_need_somebody_who_reads_them():
    with pytest.raises(ValueError, match="message_adapter"):
        MQTTManager("client", rate_limits_handler=Program.limited)


async def test_waiting_ends_with_the_stop_event(program):
    waiting = asyncio.ensure_future(program.manager.await_ready(timeout=None))
    await asyncio.sleep(0)
    program.stop_event.set()
    await waiting
    program.manager.backpressure.notify_quota_exceeded()
    assert not program.manager.backpressure.should_pause()


async def test_publishing_without_a_connection(program):
    with pytest.raises(ConnectionLostError):
        await program.manager.publish(telemetry(), force=True)
    waiting = asyncio.ensure_future(program.manager.publish(telemetry()))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_what_nobody_sends_again_is_answered(emulator, manager):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    message = telemetry()
    await manager.publish(message)
    await manager.disconnect()
    assert (await message.delivery_futures[0]).reason_code == -1


async def test_unacknowledged_messages_are_put_back_in_their_order(emulator, manager):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic == TELEMETRY else None
    put_back = asyncio.Queue()
    manager.patch_client_for_retry_logic(put_back.put)
    messages = [telemetry(), telemetry()]
    for message in messages:
        await manager.publish(message)
    await manager.disconnect()
    assert [await put_back.get(), await put_back.get()] == messages


async def test_pending_publishes_are_judged_by_the_time_that_is_given(emulator):
    manager = MQTTManager("client", ack_timeout=1000)
    await manager.connect(emulator.host, emulator.port, "TOKEN")
    manager.open_for_traffic()
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


async def test_a_callback_that_fails_reaches_the_loops_handler(emulator, caplog):
    async def fail(_result):
        raise LookupError("mine")

    manager = MQTTManager("client", on_publish_result=fail)
    await manager.connect(emulator.host, emulator.port, "TOKEN")
    message = telemetry()
    await manager.publish(message, force=True)
    await message.delivery_futures[0]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await manager.stop()
    assert ["A callback of MQTTManager failed" in record.getMessage() for record in caplog.records] == [True]


async def test_a_service_makes_what_it_needs(emulator, program, manager, caplog):
    futures = FutureMap()
    service = MessageService(
        manager,
        program.stop_event,
        limiter(),
        JsonMessageAdapter(futures=futures),
        1000,
        gateway_message_adapter=JsonGatewayMessageAdapter(futures=futures),
        gateway_rate_limiter=limiter(),
    )
    with caplog.at_level(logging.INFO):
        await service.print_queues_statistics()
    assert "service 0, device uplink 0, gateway uplink 0, retry by QoS 0" in caplog.text
    service.start()
    uplink = DeviceUplinkMessageBuilder().add_timeseries(TimeseriesEntry("a", 1, 5)).build()
    [future] = await service.publish(MqttPublishMessage(TELEMETRY, uplink, delivery_futures=uplink.get_delivery_futures()))
    assert (await future).is_successful()
    [raw] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    assert (await raw).is_successful()
    assert [(point.key, point.ts) for point in emulator.device("device").telemetry] == [("a", 5)]
    assert service.is_empty()
    await service.shutdown()


async def test_messages_that_come_back_are_published_again(emulator, program, manager):
    service = MessageService(manager, program.stop_event, limiter(), JsonMessageAdapter())
    service.start()
    [future] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    await future
    again = MqttPublishMessage("v1/devices/me/claim", b"{}")
    await service.put_retry_message(again)
    assert (await again.delivery_futures[0]).is_successful()
    await service.shutdown()


async def test_clearing_answers_what_is_queued_and_goes_on(emulator, program):
    service = MessageService(program.manager, program.stop_event, limiter(), JsonMessageAdapter())
    service.start()
    [future] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    await service.clear()
    assert (await future).reason_code == -1
    await program.manager.connect(emulator.host, emulator.port, "TOKEN")
    [future] = await service.publish(MqttPublishMessage("v1/devices/me/claim", b"{}"))
    assert (await future).is_successful()
    await service.shutdown()


async def test_limits_of_a_gateway_may_be_set_by_hand(emulator, program):
    manager = program.manager
    manager.enable_gateway_mode()
    await manager.connect(emulator.host, emulator.port, "GATEWAY")
    assert not manager.is_ready()
    manager.set_gateway_rate_limits_received()
    await manager.await_ready()
    await manager.disconnect()
    await manager.connect(emulator.host, emulator.port, "GATEWAY")
    assert not manager.is_ready(), "the limits are those of a session"
    await manager.disconnect()
    with pytest.raises(ConnectionLostError):
        manager.set_gateway_rate_limits_received()


async def test_a_regular_publish_goes_at_once(emulator, manager):
    message = telemetry()
    await manager.process_regular_publish(message)
    assert (await message.delivery_futures[0]).is_successful()
    message = telemetry()
    await manager.process_regular_publish(message, qos=0)
    assert (message.qos, (await message.delivery_futures[0]).is_successful()) == (0, True)
    with pytest.raises(ValueError, match="qos must be 0 or 1, not 2"):
        await manager.process_regular_publish(telemetry(), qos=2)


async def test_an_adapter_for_sub_devices_may_come_later(emulator, program):
    manager, futures = program.manager, FutureMap()
    await manager.connect(emulator.host, emulator.port, "GATEWAY")
    service = MessageService(manager, program.stop_event, limiter(), JsonMessageAdapter(futures=futures))
    service.start()
    with pytest.raises(ValueError, match="FutureMap"):
        service.set_gateway_message_adapter(JsonGatewayMessageAdapter())
    for _ in range(2):
        service.set_gateway_message_adapter(JsonGatewayMessageAdapter(futures=futures))
    uplink = GatewayUplinkMessageBuilder().set_device_name("D1").add_timeseries(TimeseriesEntry("a", 1, 5)).build()
    [future] = await service.publish(MqttPublishMessage("v1/gateway/telemetry", uplink))
    assert (await future).is_successful()
    assert emulator.device("D1").telemetry
    await service.shutdown()


async def test_a_worker_says_which_limit_is_reached(emulator, program, manager):
    limits = limiter("1:100", "5:100", "3:100")
    worker = MessageQueueWorker("mine", AsyncDeque(), program.stop_event, manager, limits)
    assert await worker.process(telemetry()) == (None, None, None)
    large = MqttPublishMessage(TELEMETRY, b'{"a":1,"b":2,"c":3}', datapoints=3)
    assert await worker.process(large) == (100, 3, limits.telemetry_datapoints_rate_limit)
    service = [MqttPublishMessage("v1/devices/me/claim", b"{}") for _ in range(2)]
    assert await worker.process(service[0]) == (None, None, None)
    assert await worker.process(service[1]) == (100, 1, limits.message_rate_limit)
    manager.backpressure.notify_quota_exceeded(50)
    seconds, tokens, limit = await worker.process(large)
    assert 0 < seconds <= 100
    assert (tokens, limit) == (3, limits.telemetry_datapoints_rate_limit)
    manager.backpressure.notify_quota_exceeded(50)
    seconds, tokens, limit = await worker.process(MqttPublishMessage(TELEMETRY, b"{}"))
    assert (0 < seconds <= 50, tokens, limit) == (True, None, None)
    check = MessageQueueWorker.check_rate_limits_for_message
    assert await check(2, limits.telemetry_message_rate_limit, limits.telemetry_datapoints_rate_limit) == (None, 0, None)
    assert await check(3, limits.telemetry_message_rate_limit, limits.telemetry_datapoints_rate_limit) == (
        (3, 100.0),
        3,
        limits.telemetry_datapoints_rate_limit,
    )
