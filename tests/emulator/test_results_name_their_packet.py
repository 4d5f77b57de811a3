"""The `message_id` of a result is the packet id of its message, if there was only one."""

import asyncio

import pytest

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Emulator, Verdict


@pytest.fixture
def published(emulator):
    """Return a dict that gets the packet ids of each topic, in the order of arrival."""
    ids = {}
    emulator.on_publish = lambda publish: ids.setdefault(publish.topic, []).append(publish.packet_id)
    return ids


@pytest.mark.parametrize("send", ["send_timeseries", "send_attributes"])
async def test_a_send_in_one_message_has_its_packet_id(device, published, send):
    result = await getattr(device, send)({"a": 1, "b": 2})
    assert published[result.topic] == [result.message_id]
    assert result.message_id > 0


async def test_sends_that_share_a_message_have_its_packet_id(device, published):
    results = await asyncio.gather(*(device.send_timeseries({f"key {index}": index}) for index in range(20)))
    ids = published["v1/devices/me/telemetry"]
    assert len(ids) < 20
    assert {result.message_id for result in results} == set(ids)


async def test_a_send_in_several_messages_has_no_packet_id():
    async with Emulator(max_payload_size=200) as emulator:
        emulator.add_device("TOKEN", "device")
        client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
        await client.connect()
        result = await client.send_timeseries({f"key {index}": index for index in range(50)})
        await client.stop()
    assert (result.message_id, result.datapoints_count, result.reason_code) == (-1, 50, 0)


async def test_a_send_with_qos_0_has_no_packet_id(emulator, published):
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "qos": 0})
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).message_id == -1
    await client.stop()


async def test_a_refused_send_has_the_packet_id_of_its_message(emulator, device, published):
    ids = []

    def refuse(publish):
        ids.append(publish.packet_id)
        return Verdict.refuse(0x99)

    emulator.on_publish = refuse
    result = await device.send_timeseries({"a": 1})
    assert (result.reason_code, result.message_id) == (0x99, ids[0])


async def test_a_send_for_a_sub_device_has_the_packet_id(gateway, published):
    meter, _ = await gateway.connect_device("meter")
    result = await gateway.send_device_timeseries(meter, {"a": 1})
    assert published["v1/gateway/telemetry"] == [result.message_id]
