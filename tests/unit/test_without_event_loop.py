"""Messages are built, split and encoded without an event loop. Their futures are created when they are first used."""

import asyncio
import json
import threading
import uuid

import pytest

from tb_mqtt_client import AttributeEntry, PublishResult, TimeseriesEntry
from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.data.attribute_request import AttributeRequest
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.data.provisioning_request import AccessTokenProvisioningCredentials, ProvisioningRequest
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCResponse
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessage, GatewayUplinkMessageBuilder
from tb_mqtt_client.service.device.message_splitter import MessageSplitter
from tb_mqtt_client.service.formats.json_device import JsonDeviceFormat
from tb_mqtt_client.service.gateway.message_splitter import GatewayMessageSplitter

BUILDERS = [DeviceUplinkMessageBuilder, GatewayUplinkMessageBuilder]
DEADLINE = 10


@pytest.fixture(autouse=True)
def _no_loop_is_made(monkeypatch):
    """Fail if a test creates an event loop of the default kind."""
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: pytest.fail("an event loop was created"))


def message(builder=DeviceUplinkMessageBuilder, count=2):
    entries = [TimeseriesEntry(f"key {index}", index, 1000) for index in range(count)]
    return builder().set_device_name("meter").add_timeseries(entries).add_attributes(AttributeEntry("a", 1)).build()


def in_loop(work):
    """Run a coroutine in a new event loop in another thread, so that this thread has none."""
    outcome = []

    def run():
        loop = asyncio.SelectorEventLoop()
        outcome.append(loop.run_until_complete(asyncio.wait_for(work(), DEADLINE)))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


@pytest.mark.parametrize("builder", BUILDERS)
def test_messages_are_built_without_futures(builder):
    built = message(builder)
    assert "delivery_futures=()" in repr(built)
    assert MqttPublishMessage("topic", built, main_ts=5).payload is built
    assert MqttPublishMessage("topic", b"{}").payload_size == 2


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_future_belongs_to_the_loop_in_which_it_is_first_used(builder):
    shared = builder().set_device_name("meter")
    first, second = shared.build(), shared.build()
    publish = MqttPublishMessage("topic", b"{}")

    async def ask():
        for futures in (first.delivery_futures, first.get_delivery_futures(), publish.delivery_futures):
            [future] = futures
            assert future.get_loop() is asyncio.get_running_loop()
            assert isinstance(future.uuid, uuid.UUID)
            assert not future.done()
        assert first.delivery_futures == second.delivery_futures == first.delivery_futures
        assert publish.delivery_futures is publish.delivery_futures
        return True

    assert in_loop(ask)


def test_a_future_is_created_while_no_loop_is_running():
    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    try:
        [future] = message().delivery_futures
        assert (future.get_loop(), future.done()) == (loop, False)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize(("splitter", "builder"), [(MessageSplitter, BUILDERS[0]), (GatewayMessageSplitter, BUILDERS[1])])
def test_the_future_of_a_split_message_waits_for_all_parts(splitter, builder):
    futures = FutureMap()
    whole = message(builder, 10)
    parts = splitter(max_datapoints=4, futures=futures).split_timeseries([whole])
    assert [part.timeseries_datapoint_count() for part in parts] == [4, 4, 2]

    async def deliver():
        [parent] = whole.delivery_futures
        for part in parts:
            assert not parent.done()
            [future] = part.delivery_futures
            future.set_result(PublishResult("topic", 1, -1, 10, 0, part.timeseries_datapoint_count()))
            futures.child_resolved(future)
        return await parent

    assert in_loop(deliver).datapoints_count == 10


def test_a_message_without_futures_has_parts_without_futures():
    whole = GatewayUplinkMessage.build("meter", None, [], {0: [TimeseriesEntry("a", 1), TimeseriesEntry("b", 2)]}, [])
    parts = GatewayMessageSplitter(max_datapoints=1).split_timeseries([whole])
    assert [part.delivery_futures for part in parts] == [(), ()]


def test_requests_and_responses_are_encoded_without_an_event_loop():
    def result_of(coroutine):
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        return stopped.value.value

    adapter = JsonDeviceFormat()
    published = [
        adapter.build_rpc_request(result_of(RPCRequest.build("m", {"a": 1}))),
        adapter.build_attribute_request(result_of(AttributeRequest.build(["a"]))),
        adapter.build_rpc_response(RPCResponse.build(1, "done")),
        adapter.build_claim_request(ClaimRequest.build("secret")),
        adapter.build_provision_request(ProvisioningRequest("host", AccessTokenProvisioningCredentials("key", "secret"))),
    ]
    assert all(json.loads(publish.payload) for publish in published)


@pytest.mark.parametrize("cls", [DeviceUplinkMessage, GatewayUplinkMessage])
def test_a_given_size_is_kept(cls):
    entries = {0: [TimeseriesEntry("a", 1)]}
    assert cls.build("d", None, [], entries, [], 123).size == 123
    assert cls.build("d", None, [], entries, []).size == cls.build("d", None, [], entries, [], None).size == cls.FIELDS_SIZE + 1 + 7
