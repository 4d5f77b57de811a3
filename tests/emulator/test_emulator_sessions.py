"""Sessions and injected faults in the emulator (docs/platform_contract.md, sections 0 and 1)."""

import asyncio
import socket
import struct

import pytest
from raw_mqtt import packet, raw_client, text

from tb_mqtt_client.emulator import ConnectVerdict, Emulator, SendVerdict, SessionLimits, Verdict
from tb_mqtt_client.emulator.handshake import Refusal

TELEMETRY = "v1/devices/me/telemetry"
SUCCESS = (0x40, b"\0\x01")


def connect_packet(level, client_id="id", name="MQTT"):
    properties = b"\0" if level == 5 else b""
    return packet(0x10, text(name) + bytes([level, 0x82, 0, 60]) + properties + text(client_id) + text("TOKEN"))


@pytest.mark.parametrize(
    ("level", "name", "client_id", "connack"),
    [
        (3, "MQIsdp", "id", b"\0\0"),
        (3, "MQIsdp", "x" * 23, b"\0\0"),
        (3, "MQIsdp", "x" * 24, None),
        (3, "MQIsdp", "", None),
        (4, "MQTT", "x" * 100, b"\0\0"),
        (4, "MQTT", "", b"\0\0"),
        (5, "MQTT", "x" * 100, b"\0\0\0"),
        # All other levels count as 3.1.1.
        (6, "MQTT", "id", b"\0\0"),
    ],
)
async def test_versions_of_mqtt(emulator, level, name, client_id, connack):
    async with raw_client(emulator) as client:
        client.write(connect_packet(level, client_id, name))
        if connack is not None:
            assert await client.read() == (0x20, connack)
        else:
            assert await client.read() in (None, (0xE0, b"\x81\0"))


async def test_a_session_of_mqtt_3_1(emulator):
    """The packets are those of 3.1.1: without properties, reason codes and DISCONNECT."""
    async with raw_client(emulator, 4) as client:
        client.write(connect_packet(3, name="MQIsdp"))
        await client.read()
        assert await client.subscribe("v1/devices/me/attributes", "no such") == (0x90, b"\0\x01\x01\x80")
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == SUCCESS
        client.publish(TELEMETRY, "nonsense")
        assert await client.read() is None


async def test_unsubscribe(emulator):
    """Section 2: the code is 0x00, or 0x11 without a subscription, also for a filter that SUBSCRIBE refuses."""
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe("v1/devices/me/attributes")
        reply = await client.unsubscribe("v1/devices/me/attributes", "v1/devices/me/attributes", "v1/devices/me/#")
        assert reply == (0xB0, b"\0\x01\0" + bytes([0, 0x11, 0x11]))
    async with raw_client(emulator, 4) as client:
        await client.connect()
        assert await client.unsubscribe("v1/devices/me/attributes") == (0xB0, b"\0\x01")


@pytest.mark.parametrize("qos", [1, 2])
async def test_qos_2_is_treated_as_qos_1(emulator, qos):
    """Section 1: a PUBLISH gets a PUBACK, a SUBSCRIBE is granted QoS 1."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(TELEMETRY, '{"a":1}', qos=qos)
        assert await client.read() == SUCCESS
        client.write(packet(0x82, b"\0\x01\0" + text("v1/gateway/rpc") + bytes([qos])))
        assert await client.read() == (0x90, b"\0\x01\0\x01")


@pytest.mark.parametrize("qos", [0, 1])
async def test_downlinks_have_the_qos_of_the_subscription(emulator, qos):
    async with raw_client(emulator) as client:
        await client.connect()
        client.write(packet(0x82, b"\0\x01\0" + text("v1/devices/me/attributes") + bytes([qos])))
        await client.read()
        await emulator.set_shared_attributes("device", {"a": 1})
        assert (await client.read())[0] == 0x30 | qos << 1


async def test_downlink_ids_pass_through_zero(emulator):
    """Section 1: the counter is not wrapped, so 65536 is sent as packet id 0, and the PUBACK of an RPC request has no effect."""
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe("v1/devices/me/rpc/request/+")
        emulator.device("device").session.last_downlink_id = 65534
        ids = []
        for _ in range(3):
            await emulator.call_rpc("device", "m", oneway=True)
            _, body = await client.read()
            ids.append(struct.unpack_from("!H", body, 2 + struct.unpack_from("!H", body)[0])[0])
        assert ids == [65535, 0, 1]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_puback_with_packet_id_0_closes_the_connection(emulator, version):
    """Section 1: the code is 0x81, although the platform itself publishes with this id."""
    async with raw_client(emulator, version) as client:
        await client.connect()
        client.write(packet(0x40, b"\0\0"))
        if version == 5:
            assert await client.read() == (0xE0, b"\x81\0")
        assert await client.read() is None


@pytest.mark.parametrize("version", [4, 5])
async def test_an_inactive_client_is_disconnected(version):
    """Section 1: the code is 0x83; a missed keep alive has no effect."""
    async with Emulator(inactivity_timeout=0.05, accept_any_token=True) as emulator, raw_client(emulator, version) as client:
        await client.connect()
        if version == 5:
            assert await client.read() == (0xE0, b"\x83\0")
        assert await client.read() is None


async def test_every_packet_counts_as_activity():
    async with Emulator(inactivity_timeout=0.5, accept_any_token=True) as emulator, raw_client(emulator) as client:
        await client.connect()
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.7
        while loop.time() < end:
            assert await client.silent()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "older", "disconnect"),
    [
        (0x85, 2, 0x85),
        (0x86, 5, 0x86),
        (0x87, 5, 0x87),
        (0x88, 3, 0x89),
        (0x89, 3, 0x89),
        (0x9F, 3, 0x96),
    ],
)
async def test_refused_connects(emulator, code, older, disconnect):
    """Section 1: the table of CONNACK codes."""
    emulator.on_connect = lambda _: ConnectVerdict.refuse(code)
    async with raw_client(emulator) as client:
        assert await client.connect() == (0x20, bytes([0, code, 0]))
        assert await client.read() == (0xE0, bytes([disconnect, 0]))
        assert await client.read() is None
    async with raw_client(emulator, 4) as client:
        assert await client.connect() == (0x20, bytes([0, older]))
        assert await client.read() is None
    assert emulator.counters.refused_connections == 2


def test_a_refused_certificate_gets_another_disconnect_code():
    assert Refusal(0x88, by_certificate=True).disconnect_reason == 0x83


async def test_on_connect_gets_every_connect(emulator):
    attempts = []
    emulator.on_connect = attempts.append
    async with raw_client(emulator) as client:
        assert (await client.connect("TOKEN", password="secret"))[1][1] == 0
    [attempt] = attempts
    assert (attempt.client_id, attempt.username, attempt.password) == ("raw", "TOKEN", "secret")
    assert (attempt.version, attempt.certificate) == (5, None)


async def test_dropped_connects(emulator):
    """Section 1: the platform does this to a blocked address."""
    emulator.on_connect = lambda _: ConnectVerdict.drop()
    async with raw_client(emulator) as client:
        assert await client.connect() is None


async def test_packets_before_the_connack_are_queued(emulator):
    """Section 1: they are processed in order after the CONNACK, a ping too."""
    emulator.on_connect = lambda _: ConnectVerdict.delay(0.02)
    async with raw_client(emulator) as client:
        client.write(connect_packet(5))
        client.write(b"\xc0\0")
        client.publish(TELEMETRY, '{"a":1}')
        assert [await client.read() for _ in range(3)] == [(0x20, b"\0\0\0"), (0xD0, b""), SUCCESS]


async def test_the_queue_before_the_connack_is_limited(emulator):
    """Fact 5: `maxInflightMessages` is the size of this queue; one packet more closes the connection with 0x97."""
    emulator.on_connect = lambda _: ConnectVerdict.ignore()
    emulator.limits = SessionLimits(max_inflight_messages=7)
    async with raw_client(emulator) as client:
        client.write(connect_packet(5))
        for _ in range(8):
            client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == (0xE0, b"\x97\0")
        assert await client.read() is None
    assert emulator.counters.publishes == 0


async def test_unacknowledged_messages_are_not_limited_after_the_connack(emulator):
    """See docs/platform_contract.md, fact 5."""
    emulator.on_publish = lambda _: Verdict.ignore(store=True)
    async with raw_client(emulator) as client:
        await client.connect()
        for _ in range(1000):
            client.publish(TELEMETRY, '{"a":1}')
        assert await client.silent()
    assert emulator.counters.datapoints == 1000


async def test_a_reset_connection(emulator):
    emulator.on_publish = lambda _: Verdict.cut(store=True)
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() is None
    assert emulator.counters.datapoints == 1


async def test_a_refusal_that_closes_the_connection(emulator):
    emulator.on_publish = lambda _: Verdict.refuse(0x97, closes=True)
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(TELEMETRY, '{"a":1}')
        assert [await client.read(), await client.read()] == [(0x40, b"\0\x01\x97\0"), None]
    assert emulator.counters.datapoints == 0


async def test_a_second_connect_is_a_protocol_error(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        client.write(connect_packet(5))
        assert await client.read() == (0xE0, b"\x82\0")


async def test_a_rolling_restart(emulator):
    """Every connection is closed with 0x8B; new ones too when they publish before the end of the restart."""
    async with raw_client(emulator) as client:
        await client.connect()
        restart = asyncio.create_task(emulator.rolling_restart(60))
        assert await client.read() == (0xE0, b"\x8b\0")
        assert await client.read() is None
    for _ in range(2):
        async with raw_client(emulator) as client:
            assert (await client.connect())[1][1] == 0
            assert await client.silent()
            client.publish("v1/devices/me/telemetry", '{"a":1}')
            assert [await client.read(), await client.read()] == [(0xE0, b"\x8b\0"), None]
    restart.cancel()
    await asyncio.wait([restart])
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", '{"a":1}')
        assert await client.read() == (0x40, b"\0\x01")
    assert emulator.counters.datapoints == 1


@pytest.mark.parametrize("version", [4, 5])
async def test_a_server_that_stops_sends_no_disconnect(emulator, version):
    """See docs/platform_contract.md, section 1."""
    async with raw_client(emulator, version) as client:
        await client.connect()
        await emulator.stop()
        assert await client.read() is None


# Packets that the emulator sends.


async def test_a_connack_can_have_properties(emulator):
    emulator.on_connect = lambda _: ConnectVerdict.accept(
        {"receive_maximum": 10, "reason_string": "\u00e4", "retain_available": False}
    )
    async with raw_client(emulator) as client:
        assert await client.connect() == (0x20, b"\0\0\x0a" + b"\x21\0\x0a" + b"\x1f\0\x02\xc3\xa4" + b"\x25\0")
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == SUCCESS
    async with raw_client(emulator, 4) as client:
        assert await client.connect() == (0x20, b"\0\0")


async def test_a_connack_can_have_invalid_properties(emulator):
    properties = b"\x21\0\x0a" * 50
    emulator.on_connect = lambda _: ConnectVerdict.accept(properties)
    async with raw_client(emulator) as client:
        assert await client.connect() == (0x20, b"\0\0\x96\x01" + properties)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"receive_max": 1}, "'receive_max' is not a CONNACK property; the properties are session_expiry_interval"),
        ({"receive_maximum": 65536}, "receive_maximum must be from 0 to 65535, not 65536"),
        ({"receive_maximum": "1"}, "receive_maximum must be from 0 to 65535"),
        ({"reason_string": 1}, "reason_string must be a string, not 1"),
    ],
)
def test_unknown_properties_are_refused(properties, message):
    with pytest.raises(ValueError, match=message):
        ConnectVerdict.accept(properties)


@pytest.mark.parametrize("kind", ["CONNACK", "SUBACK", "UNSUBACK", "PUBACK", "PINGRESP", "PUBLISH", "DISCONNECT"])
@pytest.mark.parametrize("verdict", [SendVerdict.drop(), SendVerdict.replace(b"\xf0\0"), SendVerdict.delay(0.01)])
async def test_a_packet_can_be_dropped_replaced_or_delayed(emulator, kind, verdict):
    seen = []

    def on_send(sending):
        seen.append((sending.device and sending.device.name, sending.kind, sending.packet))
        return verdict if sending.kind == kind else None

    emulator.on_send = on_send
    async with raw_client(emulator) as client:
        client.write(connect_packet(5))
        client.write(packet(0x82, b"\0\x02\0" + text("v1/devices/me/attributes") + b"\x01"))
        client.publish(TELEMETRY, '{"a":1}', packet_id=3)
        client.write(packet(0xA2, b"\0\x04\0" + text("v1/devices/me/rpc/request/+")))
        client.write(b"\xc0\0")
        client.publish("v1/devices/me/attributes/request/1", "{}", packet_id=5)
        client.write(b"\xe0\0")
        received = []
        while (one := await client.read()) is not None:
            received.append(one[0])
    sent = {
        "CONNACK": 0x20,
        "SUBACK": 0x90,
        "PUBACK": 0x40,
        "UNSUBACK": 0xB0,
        "PINGRESP": 0xD0,
        "PUBLISH": 0x32,
        "DISCONNECT": 0xE0,
    }
    assert [(device, name) for device, name, _ in seen] == [
        ("device", name) for name in ("CONNACK", "SUBACK", "PUBACK", "UNSUBACK", "PINGRESP", "PUBACK", "PUBLISH", "DISCONNECT")
    ]
    # The connection closes before a delayed packet is due.
    instead = [0xF0] if verdict.packet else []
    expected = [one for _, name, _ in seen for one in (instead if name == kind else [sent[name]])]
    assert received == expected


async def test_a_delayed_suback_comes_late(emulator):
    emulator.on_send = lambda sending: SendVerdict.delay(0.01) if sending.kind == "SUBACK" else None
    async with raw_client(emulator) as client:
        await client.connect()
        client.write(packet(0x82, b"\0\x02\0" + text("v1/devices/me/attributes") + b"\x01"))
        assert await client.silent()
        assert await client.read() == (0x90, b"\0\x02\0\x01")


@pytest.mark.parametrize("turns", range(6))
async def test_stop_closes_connections_that_are_being_accepted(turns):
    emulator, loop = Emulator(), asyncio.get_running_loop()
    await emulator.start()
    with socket.create_connection((emulator.host, emulator.port)) as client:
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        await emulator.stop()
        async with asyncio.timeout(10):
            try:
                assert await loop.sock_recv(client, 1) == b""
            except ConnectionResetError:
                # It was still in the queue of the listening socket, or was aborted.
                return
