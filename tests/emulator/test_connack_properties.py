"""Clients keep to the properties of a CONNACK. The platform and the emulator send none, so a link replaces the CONNACK."""

import asyncio
import logging

import pytest

from engine_parts import engine_of
from faulty_link import FaultyLink
from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.emulator import Emulator

FAST = {"reconnect_delay_min": 0.001, "reconnect_delay_max": 0.01, "limits_timeout": 2.0}


def connack(properties):
    return bytes([0x20, 3 + len(properties), 0, 0, len(properties)]) + properties


def maximum_packet_size(size):
    return b"\x27" + size.to_bytes(4, "big")


RECEIVE_MAXIMUM, MAXIMUM_QOS, RETAIN, KEEP_ALIVE = b"\x21", b"\x24", b"\x25", b"\x13"


def client_of(link, kind=DeviceClient, token="TOKEN", **options):
    return kind(FAST | {"host": link.host, "port": link.port, "access_token": token} | options)


def packet_size(publish):
    return publish.remaining_length + 1 + max(1, -(-publish.remaining_length.bit_length() // 7))


@pytest.mark.parametrize("limits", [True, False])
async def test_no_packet_is_larger_than_the_server_accepts(limits):
    """50 sends of 100 bytes would fit into one message of 5.4 kB."""
    sizes = []
    async with Emulator() if limits else Emulator(limits=None) as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.on_publish = lambda publish: sizes.append(packet_size(publish))
        async with FaultyLink(emulator.host, emulator.port, connack=connack(maximum_packet_size(1000))) as link:
            client = client_of(link, limits_timeout=0.05)
            await client.connect()
            calls = [client.send_timeseries({"ts": ts, "values": {"text": "x" * 100}}) for ts in range(1, 51)]
            results = await asyncio.gather(*calls, client.send_attributes({str(key): "y" * 50 for key in range(50)}))
            assert {result.reason_code for result in results} == {0}
            assert 900 < max(sizes) <= 1000
            assert client.health()["limits"]["max_packet_size"] == 997
            with pytest.raises(ValueError, match="at most"):
                await client.call_rpc("m", "x" * 1000)
            too_large = await client.send_timeseries({"text": "x" * 1000})
            assert too_large.reason_code == 0x95
            assert max(sizes) <= 1000
            await client.stop()


async def test_no_packet_of_a_gateway_is_larger_than_the_server_accepts(emulator):
    sizes = []
    emulator.on_publish = lambda publish: sizes.append(packet_size(publish))
    async with FaultyLink(emulator.host, emulator.port, connack=connack(maximum_packet_size(1000))) as link:
        client = client_of(link, GatewayClient, "GATEWAY")
        await client.connect()
        sessions = [(await client.connect_device(f"device {number}"))[0] for number in range(10)]
        calls = [client.send_device_timeseries(session, {"ts": 1, "values": {"text": "x" * 300}}) for session in sessions]
        results = await asyncio.gather(*calls)
        assert {result.reason_code for result in results} == {0}
        assert max(sizes) <= 1000
        await client.stop()


async def test_data_is_packed_for_the_maximum_packet_size_of_the_current_session(emulator):
    async with FaultyLink(emulator.host, emulator.port) as link:
        client = client_of(link)
        await client.connect()
        link.connack = connack(maximum_packet_size(1000))
        await emulator.disconnect_device("device")
        while client.statistics.connections < 2 or not client.health()["ready"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        sizes = []
        emulator.on_publish = lambda publish: sizes.append(packet_size(publish))
        results = await asyncio.gather(*(client.send_timeseries({"ts": ts, "values": {"text": "x" * 100}}) for ts in range(1, 51)))
        assert {result.reason_code for result in results} == {0}
        assert max(sizes) <= 1000
        await client.stop()


async def test_qos_0_is_used_with_one_warning_if_the_server_does_not_support_qos_1(emulator, caplog):
    publishes = []
    emulator.on_publish = publishes.append
    async with FaultyLink(emulator.host, emulator.port, connack=connack(MAXIMUM_QOS + b"\x00")) as link:
        client = client_of(link)
        with caplog.at_level(logging.WARNING):
            await client.connect()
            for ts in range(1, 4):
                result = await client.send_timeseries({"ts": ts, "values": {"a": ts}})
                assert (result.is_successful(), result.qos) == (True, 0)
            await emulator.disconnect_device("device")
            while client.statistics.connections < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert (await client.send_attributes({"a": 1})).qos == 0
        await client.stop()
    assert {publish.qos for publish in publishes} == {0}
    warnings = [record.getMessage() for record in caplog.records if "QoS 0 only" in record.getMessage()]
    assert len(warnings) == 1
    assert f"{link.host}:{link.port} accepts" in warnings[0]


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (RECEIVE_MAXIMUM + b"\x00\x00", "receive_maximum 0"),
        (RECEIVE_MAXIMUM + b"\x00\x05" + RECEIVE_MAXIMUM + b"\x00\x05", "receive_maximum twice"),
        (maximum_packet_size(0), "maximum_packet_size 0"),
        (maximum_packet_size(20), "20 bytes at most"),
        (MAXIMUM_QOS + b"\x02", "max_qos 2"),
        (RETAIN + b"\x07", "retain_available 7"),
    ],
)
async def test_an_attempt_fails_on_a_connack_that_mqtt_forbids(emulator, properties, reason):
    """connect() raises the cause; a lost connection is retried until the server sends a valid CONNACK."""
    async with FaultyLink(emulator.host, emulator.port, connack=connack(properties)) as link:
        client = client_of(link)
        with pytest.raises(ConnectionError, match=reason):
            await client.connect()
        link.connack = None
        await client.connect()
        link.connack = connack(properties)
        await emulator.disconnect_device("device")
        before = link.connections
        while link.connections < before + 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        link.connack = None
        assert (await client.send_timeseries({"a": 1})).is_successful()
        await client.stop()


async def test_receive_maximum_limits_the_in_flight_window(emulator):
    in_flight = []
    async with FaultyLink(emulator.host, emulator.port, connack=connack(RECEIVE_MAXIMUM + b"\x00\x02")) as link:
        client = client_of(link)
        await client.connect()
        emulator.on_publish = lambda _publish: in_flight.append(engine_of(client).mqtt_manager.in_flight)
        results = await asyncio.gather(
            *(client.send_timeseries({"ts": ts, "values": {"text": "x" * 40_000}}) for ts in range(1, 8))
        )
        assert {result.reason_code for result in results} == {0}
        assert max(in_flight) <= 2
        await client.stop()


async def test_the_keep_alive_of_the_server_is_used(emulator):
    async with FaultyLink(emulator.host, emulator.port, connack=connack(KEEP_ALIVE + b"\x00\x01")) as link:
        client = client_of(link, keepalive=600)
        await client.connect()
        link.silence()
        end = await asyncio.wait_for(engine_of(client).mqtt_manager.wait_lost(), 10)
        link.speak()
        assert "keep-alive 1 s" in end.cause
        await client.stop()


async def test_a_connect_has_the_maximum_packet_size_of_the_client():
    """The bytes of the CONNECT packet are compared."""
    received = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        head = await reader.readexactly(2)
        received.set_result(await reader.readexactly(head[1]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    client = DeviceClient({"host": host, "port": port, "access_token": "t"})
    with pytest.raises(ConnectionError):
        await client.connect()
    connect = await received
    assert connect[:7] == b"\x00\x04MQTT\x05"
    assert connect[10:16] == b"\x05\x27" + (64 * 2**20).to_bytes(4, "big")
    await client.stop()
    server.close()
