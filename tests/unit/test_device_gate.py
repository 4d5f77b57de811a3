"""Data of a device waits until it is announced, is rejected if it was refused, and follows a device that is renamed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.common.mqtt_message import MqttPublishMessage
from tb_mqtt_client.common.publish_result import PublishResult
from tb_mqtt_client.service.delivery.work_item import WorkItem
from tb_mqtt_client.service.formats.json_gateway import JsonGatewayFormat
from tb_mqtt_client.service.gateway.gate import DeviceGate, RefusedShare
from tb_mqtt_client.service.gateway.traffic import SubDeviceTraffic

A, B, C = (DeviceIdentity(name) for name in "ABC")
REFUSAL = PublishResult("v1/gateway/connect", 1, 1, 1, 0x87)


class PlayedPipeline:
    """Records whether items are queued, undelivered or rejected."""

    def __init__(self):
        self.uplinks, self.messages, self.unresolved, self.refused, self.again = [], [], [], [], []
        self.queue_uplinks, self.queue_message = self.uplinks.extend, self.messages.append
        self.undelivered, self.publish_again = self.unresolved.append, self.again.append

    def rejected(self, item, result):
        self.refused.append((item, result))

    def take_queued_uplinks(self):
        taken, self.uplinks[:] = list(self.uplinks), []
        return taken

    def take_queued_messages(self):
        return []

    def send_in_parts(self, item):
        return item.devices > 1

    def check_packed_again(self):
        """Do nothing: no worker has packed anything."""

    def note_removed(self):
        """Nothing waits for empty queues."""


class Traffic(SubDeviceTraffic):
    """The component, in a played pipeline."""

    def __init__(self):
        self.pipeline = PlayedPipeline()
        super().__init__(self.pipeline, DeviceGate(RefusedShare()), JsonGatewayFormat(), lambda _: None)

    def uplink(self, device, value):
        """Queue a send, which its value identifies."""
        uplink = EncodedUplink.timeseries({"a": value}, 0, device), None, 0, None
        self.put_uplinks([uplink])

    def queued(self):
        return [(uplink[0].device, uplink[0].timeseries_entries()[0].value) for uplink in self.pipeline.take_queued_uplinks()]


async def message_of(device):
    item = WorkItem(MqttPublishMessage("v1/gateway/claim", b"{}"), [])
    item.device = device
    return item


async def test_data_of_a_held_device_waits_for_its_release():
    traffic = Traffic()
    message = await message_of(A)
    traffic.hold(A)
    traffic.uplink(A, 1)
    traffic.uplink(B, 2)
    traffic.put_message(message)
    assert traffic.queued() == [(B, 2)]
    assert traffic.pipeline.messages == []
    assert [bool(held) for held in traffic.gate.all_held()] == [True]
    traffic.release(A)
    traffic.uplink(A, 3)
    assert traffic.queued() == [(A, 1), (A, 3)]
    assert traffic.pipeline.messages == [message]
    assert not traffic.gate.watches


async def test_queued_data_is_held_again():
    traffic = Traffic()
    for value, device in enumerate((A, B, A)):
        traffic.uplink(device, value)
    traffic.hold_all([A, B])
    assert traffic.queued() == []
    traffic.release(A)
    traffic.release(B)
    assert traffic.queued() == [(A, 0), (A, 2), (B, 1)]


async def test_data_of_a_refused_device_is_rejected_until_it_is_held_again():
    traffic = Traffic()
    message = await message_of(A)
    traffic.hold(A)
    traffic.uplink(A, 1)
    traffic.put_message(message)
    traffic.refuse(A, REFUSAL)
    traffic.uplink(A, 2)
    traffic.put_message(message)
    assert [result for _, result in traffic.pipeline.refused] == [REFUSAL] * 4
    assert (traffic.queued(), traffic.pipeline.messages) == ([], [])
    traffic.hold(A)
    traffic.uplink(A, 3)
    traffic.release(A)
    assert traffic.queued() == [(A, 3)]


async def test_renamed_and_held_under_the_new_name():
    traffic = Traffic()
    traffic.hold(A)
    traffic.uplink(A, 1)
    traffic.release(A)
    traffic.uplink(A, 2)
    traffic.move(A, B)
    traffic.hold(B)
    traffic.put_uplinks(traffic.pipeline.take_queued_uplinks())
    traffic.uplink(A, 3)
    assert traffic.queued() == []
    traffic.release(B)
    assert traffic.queued() == [(B, 1), (B, 2), (B, 3)]


async def test_held_data_goes_before_data_that_was_queued_later():
    traffic = Traffic()
    traffic.uplink(B, 0)
    traffic.hold(A)
    traffic.uplink(A, 1)
    traffic.move(A, B)
    assert traffic.queued() == [(B, 1), (B, 0)]


async def test_data_of_a_deleted_device_is_undelivered():
    traffic = Traffic()
    message = await message_of(A)
    traffic.uplink(A, 1)
    traffic.move(A, None)
    traffic.uplink(A, 2)
    traffic.put_message(message)
    assert len(traffic.pipeline.unresolved) == 3
    assert (traffic.queued(), traffic.pipeline.messages) == ([], [])
    # Announced again it is another device of that name.
    traffic.hold(A)
    traffic.release(A)
    traffic.uplink(A, 3)
    assert traffic.queued() == [(A, 3)]


async def data_of(device, devices=1):
    item = WorkItem(MqttPublishMessage("v1/gateway/telemetry", b'{"A":[{"ts":1,"values":{"a":1}}]}'), [], 1)
    item.device, item.devices = device, devices
    return item


async def test_packed_data_of_a_device_that_failed_is_kept_back_and_goes_first():
    traffic = Traffic()
    messages = [await data_of(A) for _ in range(3)]
    assert not traffic.keep_back(messages[0])
    traffic.gate.fail(A)
    assert [traffic.keep_back(message) for message in messages] == [True] * 3
    traffic.uplink(A, 1)
    # Announced again, without an answer yet.
    traffic.hold(A)
    assert traffic.gate.blocks(A)
    assert [bool(held) for held in traffic.gate.all_held()] == [True]
    assert traffic.pipeline.again == []
    traffic.release(A)
    # Each goes to the front of the queue.
    assert traffic.pipeline.again == messages[::-1]
    assert traffic.queued() == [(A, 1)]
    assert not traffic.gate.blocks(A)
    assert not traffic.keep_back(messages[0])


async def test_packed_data_of_a_device_that_is_being_announced_is_kept_back():
    """The worker may have waited for the announcement in the session before."""
    traffic = Traffic()
    message = await data_of(A)
    traffic.hold(A)
    assert traffic.keep_back(message)
    traffic.release(A)
    assert traffic.pipeline.again == [message]
    assert not traffic.keep_back(message)


async def test_packed_data_of_a_device_that_was_refused_for_good_is_rejected():
    traffic = Traffic()
    messages = [await data_of(A) for _ in range(2)]
    traffic.hold(A)
    traffic.gate.fail(A)
    assert traffic.keep_back(messages[0])
    traffic.refuse(A, REFUSAL)
    assert traffic.keep_back(messages[1])
    assert traffic.pipeline.refused == [(message, REFUSAL) for message in messages]


async def test_packed_data_of_several_devices_of_which_one_failed_goes_in_parts():
    traffic = Traffic()
    message = await data_of(A, devices=2)
    traffic.gate.fail(A)
    assert traffic.keep_back(message)
    assert [list(held.packed) for held in traffic.gate.all_held()] == [[]]


async def test_a_request_for_a_device_that_failed_is_kept_back():
    traffic = Traffic()
    message = await message_of(A)
    traffic.gate.fail(A)
    assert traffic.keep_back(message)
    assert traffic.pipeline.messages == []
    traffic.release(A)
    assert traffic.pipeline.messages == [message]


async def test_abandoned_data_is_rejected_and_later_data_is_undelivered():
    traffic = Traffic()
    traffic.gate.fail(A)
    traffic.uplink(A, 1)
    traffic.abandon(A, REFUSAL)
    assert [result for _, result in traffic.pipeline.refused] == [REFUSAL]
    traffic.uplink(A, 2)
    assert len(traffic.pipeline.unresolved) == 1
    traffic.gate.forget_moved()
    assert not traffic.gate.watches


async def test_an_abandoned_device_that_was_renamed_keeps_its_new_name():
    traffic = Traffic()
    traffic.gate.fail(A)
    traffic.uplink(A, 1)
    traffic.move(A, B)
    traffic.abandon(A, REFUSAL)
    traffic.uplink(A, 2)
    assert traffic.queued() == [(B, 1), (B, 2)]


async def test_devices_stay_held_when_their_data_is_taken():
    traffic = Traffic()
    traffic.gate.fail(A)
    traffic.uplink(A, 1)
    [held] = traffic.gate.take_all()
    assert len(held.uplinks) == 1
    assert traffic.gate.blocks(A)
    traffic.uplink(A, 2)
    assert traffic.queued() == []


async def test_nothing_waits_for_a_device_that_failed():
    gate = DeviceGate(RefusedShare())
    gate.hold(B)
    gate.hold(A)
    waiting = asyncio.create_task(gate.wait_announced([A, B]))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.fail(A)
    await waiting
    await gate.wait_announced([A])


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from([A, B, C, None])), max_size=30))
def test_a_device_has_one_name_however_often_it_is_renamed(moves):
    """No chain of names is endless, and the last name of a device is its own."""
    gate = DeviceGate(RefusedShare())
    for device, to in moves:
        gate.move(device, to)
        if to is not None and to != device:
            assert gate.current(to) == to
            assert gate.current(device) == to
    assert {gate.current(device) for device in (A, B, C)} <= {A, B, C, None}


async def test_waiting_ends_after_all_announcements():
    gate = DeviceGate(RefusedShare())
    for device in (A, B):
        gate.hold(device)
    waiting = asyncio.create_task(gate.wait_announced([A, B, C]))
    for release in (lambda: gate.release(A), lambda: gate.move(B, C)):
        await asyncio.sleep(0)
        assert not waiting.done()
        release()
    await waiting
    await gate.wait_announced([])


async def test_a_message_that_is_taken_back():
    gate = DeviceGate(RefusedShare())
    message = await message_of(A)
    gate.hold(A)
    gate.held(A).messages.append(message)
    assert gate.remove_first(lambda item: item is message) is message
    assert gate.remove_first(lambda item: item is message) is None


@pytest.mark.parametrize("name", ["D", 'B"é', "a longer name"])
async def test_a_payload_of_a_renamed_device(name):
    traffic, new = Traffic(), DeviceIdentity(name)
    item = WorkItem(MqttPublishMessage("v1/gateway/telemetry", b'{"A":[{"ts":1,"values":{"A":"A"}}]}'), [])
    item.device = A
    assert not traffic.follow(item)
    traffic.move(B, C)
    assert not traffic.follow(item)
    traffic.move(A, new)
    assert traffic.follow(item)
    assert traffic.pipeline.again == [item]
    renamed = name.replace('"', '\\"')
    assert item.message.payload == f'{{"{renamed}":[{{"ts":1,"values":{{"A":"A"}}}}]}}'.encode()
    assert (item.message.payload_size, item.device) == (len(item.message.payload), new)
    assert not traffic.follow(item)
    traffic.move(new, None)
    assert traffic.follow(item)
    assert traffic.pipeline.unresolved == [item]


async def test_a_message_of_several_devices_goes_in_parts():
    traffic = Traffic()
    item = WorkItem(MqttPublishMessage("v1/gateway/telemetry", b"{}"), [])
    item.device, item.devices = A, 2
    traffic.move(A, B)
    assert traffic.follow(item)
    assert (traffic.pipeline.again, traffic.pipeline.unresolved) == ([], [])


async def test_a_request_under_an_old_name_may_go_unless_the_device_is_deleted():
    traffic = Traffic()
    message = await message_of(A)
    traffic.move(A, B)
    assert not traffic.follow(message)
    traffic.move(B, None)
    assert traffic.follow(message)
    assert traffic.pipeline.unresolved == [message]
