"""Uplink messages, publish messages and splitters."""

import copy
import pickle
from collections import OrderedDict
from dataclasses import FrozenInstanceError

import pytest

from tb_mqtt_client import AttributeEntry, PublishResult, TimeseriesEntry
from tb_mqtt_client.common.async_utils import future_map
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.entities.data.device_uplink_message import DeviceUplinkMessage, DeviceUplinkMessageBuilder
from tb_mqtt_client.entities.gateway.gateway_uplink_message import GatewayUplinkMessageBuilder
from tb_mqtt_client.service.delivery.payload_limits import payload_size
from tb_mqtt_client.service.device.message_splitter import MessageSplitter
from tb_mqtt_client.service.gateway.message_splitter import GatewayMessageSplitter


def gateway_message(name, count, start=0, profile="default"):
    builder = GatewayUplinkMessageBuilder().set_device_name(name).set_device_profile(profile)
    for index in range(start, start + count):
        builder.add_timeseries(TimeseriesEntry(f"key_{index:04}", index, 1000))
    return builder


async def test_a_message_is_immutable_and_shows_its_entries():
    builder = DeviceUplinkMessageBuilder().set_device_name("d")
    builder.add_attributes([AttributeEntry("a", 1)])
    builder.add_timeseries([TimeseriesEntry("t", 2, 5), TimeseriesEntry("u", 3)])
    message = builder.build()
    assert message.attributes == (AttributeEntry("a", 1),)
    assert dict(message.timeseries) == {5: (TimeseriesEntry("t", 2, 5),), 0: (TimeseriesEntry("u", 3),)}
    assert (message.timeseries_datapoint_count(), message.attributes_datapoint_count()) == (2, 1)
    with pytest.raises(FrozenInstanceError):
        message.device_name = "x"
    with pytest.raises(TypeError):
        message.timeseries[5] = ()
    with pytest.raises(TypeError, match="DeviceUplinkMessageBuilder"):
        DeviceUplinkMessage()


async def test_the_future_of_a_split_message_waits_for_all_parts():
    splitter = MessageSplitter(max_payload_size=400)
    builder = DeviceUplinkMessageBuilder()
    for index in range(100):
        builder.add_timeseries(TimeseriesEntry(f"key_{index:04}", index, 1000))
    message = builder.build()
    [call] = message.get_delivery_futures()
    parts = splitter.split_timeseries([message])
    assert len(parts) > 1
    keys = [entry.key for part in parts for entries in part.timeseries.values() for entry in entries]
    assert keys == [f"key_{index:04}" for index in range(100)]
    for part in parts:
        [future] = part.get_delivery_futures()
        assert not call.done()
        future.set_result(PublishResult("t", 1, 1, 10, 0, part.timeseries_datapoint_count()))
        future_map.child_resolved(future)
    assert call.result().datapoints_count == 100


async def test_a_message_that_fits_is_not_split():
    message = DeviceUplinkMessageBuilder().add_timeseries(TimeseriesEntry("a", 1, 1)).build()
    assert MessageSplitter().split_timeseries([message]) == [message]
    assert MessageSplitter().split_attributes([message]) == []


@pytest.mark.parametrize("value", [None, 0, -5])
def test_limits_of_splitters_have_defaults(value):
    device, gateway = MessageSplitter(value, value), GatewayMessageSplitter(value, value)
    assert (device.max_payload_size, device.max_datapoints) == (55000, 0)
    assert (gateway.max_payload_size, gateway.max_datapoints) == (54950, 0)
    device.max_payload_size, device.max_datapoints = 100, 3
    device.max_payload_size = device.max_datapoints = value
    assert (device.max_payload_size, device.max_datapoints) == (55000, 0)


@pytest.mark.parametrize(("version", "overhead"), [(5, 5), (4, 4)])
def test_the_payload_leaves_space_for_the_rest_of_the_packet(version, overhead):
    assert payload_size("topic", 100, version) == 100 - len("topic") - overhead


async def test_a_publish_message_has_a_qos_a_kind_and_a_text(caplog):
    message = MqttPublishMessage("v1/devices/me/telemetry", b"12", qos=2, datapoints=1)
    assert (message.qos, message.payload_size, message.is_device_message, message.is_service_message) == (1, 2, True, False)
    assert "qos must be 0 or 1" in caplog.text
    message.mark_as_sent(9)
    assert repr(message) == ("MqttPublishMessage(topic=v1/devices/me/telemetry, payload_size=2, qos=1, datapoints=1, message_id=9)")
    assert len(message.delivery_futures) == 1
    rpc = MqttPublishMessage("v1/gateway/rpc", b"")
    assert (rpc.is_device_message, rpc.is_service_message) == (False, True)


@pytest.mark.parametrize("builder", [DeviceUplinkMessageBuilder, GatewayUplinkMessageBuilder])
async def test_defect_71_uplink_messages_can_be_copied_and_pickled(builder):
    """A copy has the data, but not the futures of the original."""
    made = builder().set_device_name("D1").set_main_ts(5).add_attributes(AttributeEntry("a", [1]))
    message = made.add_timeseries([TimeseriesEntry("b", 2), TimeseriesEntry("c", 3, 7)]).build()
    for again in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert type(again) is type(message)
        assert (again.device_name, again.device_profile) == (message.device_name, message.device_profile)
        assert (again.attributes, dict(again.timeseries)) == (message.attributes, dict(message.timeseries))
        assert (again.main_ts, again.delivery_futures) == (5, ())


async def test_defect_58_the_size_counts_every_entry_and_the_name_once():
    builder = DeviceUplinkMessageBuilder().set_device_name("a longer name").set_device_name("name")
    entries = OrderedDict({5: [TimeseriesEntry("a", 1, 5)], 6: [TimeseriesEntry("b", 22, 6)]})
    by_hand = DeviceUplinkMessageBuilder().set_device_name("name").add_timeseries([entry for [entry] in entries.values()])
    assert builder.add_timeseries(entries).build().size == by_hand.build().size
