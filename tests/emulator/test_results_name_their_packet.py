"""A result names the packet that carried the call, if there was a single one."""

import asyncio

import pytest

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.emulator import Emulator, Verdict


@pytest.fixture
def published(emulator):
    """Packet ids by topic, in the order of arrival."""
    ids = {}
    emulator.on_publish = lambda publish: ids.setdefault(publish.topic, []).append(publish.packet_id)
    return ids


@pytest.mark.parametrize("send", ["send_timeseries", "send_attributes"])
async def test_a_call_in_one_message_has_its_packet_id(device, published, send):
    result = await getattr(device, send)({"a": 1, "b": 2})
    assert published[result.topic] == [result.message_id]
    assert result.message_id > 0


async def test_calls_that_share_a_message_have_its_packet_id(device, published):
    results = await asyncio.gather(*(device.send_timeseries({f"key {index}": index}) for index in range(20)))
    ids = published["v1/devices/me/telemetry"]
    assert len(ids) < 20
    assert {result.message_id for result in results} == set(ids)


async def test_a_call_in_several_messages_has_none():
    async with Emulator(max_payload_size=200) as emulator:
        emulator.add_device("TOKEN", "device")
        client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN"})
        await client.connect()
        result = await client.send_timeseries({f"key {index}": index for index in range(50)})
        await client.stop()
    assert (result.message_id, result.datapoints_count, result.reason_code) == (-1, 50, 0)


async def test_a_call_with_qos_0_has_none(emulator, published):
    client = DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "TOKEN", "qos": 0})
    await client.connect()
    assert (await client.send_timeseries({"a": 1})).message_id == -1
    await client.stop()


async def test_a_refused_call_has_the_packet_id_of_what_was_refused(emulator, device, published):
    ids = []

    def refuse(publish):
        ids.append(publish.packet_id)
        return Verdict.refuse(0x99)

    emulator.on_publish = refuse
    result = await device.send_timeseries({"a": 1})
    assert (result.reason_code, result.message_id) == (0x99, ids[0])


async def test_a_sub_devices_call_has_the_packet_id(gateway, published):
    meter, _ = await gateway.connect_device("meter")
    result = await gateway.send_device_timeseries(meter, {"a": 1})
    assert published["v1/gateway/telemetry"] == [result.message_id]
