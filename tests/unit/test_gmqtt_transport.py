"""A connection handles received bytes: it acknowledges them with TCP and MQTT, and ends if a packet violates MQTT."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_connection import CONNACK, PINGREQ, PINGRESP, PlayedConnection, ack, packet, puback, publish

from tb_mqtt_client.common.mqtt.transport import QUICK_ACKNOWLEDGEMENT

ENDLESS_LENGTH = b"\x30\xff\xff\xff\xff"


def disconnect(reason_code):
    return bytes([0xE0, 2, reason_code, 0])


@pytest.mark.skipif(QUICK_ACKNOWLEDGEMENT is None, reason="only Linux has TCP_QUICKACK")
@pytest.mark.parametrize("missing", [True, False])
async def test_tcp_acknowledges_at_once_only_while_pubacks_are_missing(missing):
    played = await PlayedConnection().open()
    if missing:
        played.publish()
    played.say(PINGRESP)
    played.say(PINGRESP)
    expected = [(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)] * 2 if missing else []
    assert played.transport.socket.options == expected


async def test_messages_received_together_are_acknowledged_in_one_write():
    played = await PlayedConnection().open()
    whole = publish(7, b"first") + publish(8, b"second") + publish(9, b"third")
    played.say(whole[:-2])
    assert played.writes == [puback(7) + puback(8)]
    played.say(whole[-2:])
    assert played.writes[1:] == [puback(9)]
    assert played.received == [b"first", b"second", b"third"]


async def test_a_packet_between_two_reads_is_written_at_once():
    played = await PlayedConnection().open()
    played.say(publish(7, b"first"))
    played.protocol.send_ping_request()
    assert played.writes == [puback(7), PINGREQ]


async def test_after_a_malformed_packet_only_a_disconnect_is_written():
    played = await PlayedConnection().open()
    played.say(publish(7, b"first") + ENDLESS_LENGTH)
    assert (played.received, played.writes, played.transport.aborted) == ([b"first"], [disconnect(0x81)], True)
    played.protocol.send_ping_request()
    assert len(played.writes) == 1


async def test_a_disconnect_is_left_out_if_it_could_not_be_written_at_once():
    played = await PlayedConnection().open()
    played.transport.unsent = 1
    played.say(ENDLESS_LENGTH)
    assert (played.writes, played.transport.aborted) == ([], True)


async def test_the_connection_to_a_silent_server_ends_with_that_cause():
    played = await PlayedConnection(keepalive=30).open()
    played.connection.end_silent(61.2)
    assert played.transport.aborted
    played.protocol.connection_lost(None)
    assert str(played.lost[0].error) == "the server sent nothing for 61 s and did not respond to a ping; keep-alive 30 s"
    assert not played.connection.keep_alive.is_watching


@pytest.mark.parametrize(("wanted", "used"), [(None, 60), (5, 5), (300, 300), (0, 60)])
async def test_the_keep_alive_of_the_server_replaces_that_of_the_client(wanted, used):
    """With 0 the server does not need pings; the client keeps its own, to notice the end of the server."""
    properties = b"" if wanted is None else b"\x13" + wanted.to_bytes(2, "big")
    played = await PlayedConnection(keepalive=60).open(packet(0x20, b"\x00\x00" + bytes([len(properties)]) + properties))
    assert played.connection.keep_alive.seconds == used
    played.connection.keep_alive.stop()


# Packets that end a connection, with the reason code for the DISCONNECT, for MQTT 5 and 3.1.1.

MALFORMED, PROTOCOL_ERROR, TOO_LARGE, ALIAS = 0x81, 0x82, 0x95, 0x94
BROKEN = {
    "PUBLISH without its topic": (packet(0x30, b"\x00\x09"), MALFORMED),
    "PUBLISH of one byte": (packet(0x30, b"\x00"), MALFORMED),
    "PUBLISH with an empty topic": (publish(1, b"x", topic=b""), PROTOCOL_ERROR),
    "PUBLISH whose topic is not UTF-8": (publish(1, b"x", topic=b"\xff"), MALFORMED),
    "PUBLISH of QoS 3": (publish(1, b"x", qos=3), MALFORMED),
    "PUBACK of one byte": (packet(0x40, b"\x00"), MALFORMED),
    "PUBREC of one byte": (packet(0x50, b"\x00"), MALFORMED),
    "PUBREL of one byte": (packet(0x62, b"\x00"), MALFORMED),
    "PUBCOMP without a body": (packet(0x70, b""), MALFORMED),
    "SUBACK without a reason code": (ack(0x90, 1, b"\x00"), MALFORMED),
    "SUBACK of one byte": (packet(0x90, b"\x00"), MALFORMED),
    "UNSUBACK without a body": (packet(0xB0, b""), MALFORMED),
    "a second CONNACK": (CONNACK, PROTOCOL_ERROR),
    "CONNECT": (packet(0x10, b""), PROTOCOL_ERROR),
    "SUBSCRIBE": (ack(0x82, 1), PROTOCOL_ERROR),
    "UNSUBSCRIBE": (ack(0xA2, 1), PROTOCOL_ERROR),
    "PINGREQ": (PINGREQ, PROTOCOL_ERROR),
    "AUTH": (packet(0xF0, b"\x18\x00"), PROTOCOL_ERROR),
    "type 0": (packet(0x00, b""), PROTOCOL_ERROR),
    "an endless length": (ENDLESS_LENGTH, MALFORMED),
    "a packet over the limit": (b"\x30\xff\xff\xff\x7f", TOO_LARGE),
}
BROKEN_PROPERTIES = {
    "PUBLISH with an unknown property": (packet(0x30, b"\x00\x01t\x02\x7f\x00"), MALFORMED),
    "PUBLISH whose property ends too early": (packet(0x30, b"\x00\x01t\x02\x02\x00"), MALFORMED),
    "PUBLISH with a topic alias": (packet(0x30, b"\x00\x01t\x03\x23\x00\x01x"), ALIAS),
    "PUBACK with properties beyond its end": (ack(0x40, 1, b"\x00\x05\xff"), MALFORMED),
    "PUBACK with an unknown property": (ack(0x40, 1, b"\x00\x02\x7f\x00"), MALFORMED),
    "PUBACK with two reasons": (ack(0x40, 1, b"\x00\x08\x1f\x00\x01a\x1f\x00\x01b"), PROTOCOL_ERROR),
    "SUBACK with an unknown property": (ack(0x90, 1, b"\x02\x7f\x00\x00"), MALFORMED),
    "UNSUBACK with an unknown property": (ack(0xB0, 1, b"\x02\x7f\x00\x00"), MALFORMED),
}
CASES = [(5, name, *case) for name, case in (BROKEN | BROKEN_PROPERTIES).items()]
CASES += [(4, name, *case) for name, case in BROKEN.items() if name != "SUBACK without a reason code"]
CASES += [(4, "SUBACK without a return code", ack(0x90, 1, b""), MALFORMED)]


@pytest.mark.parametrize(("version", "broken", "reason_code"), [(version, broken, code) for version, _, broken, code in CASES],
                         ids=[f"MQTT {version}, {name}" for version, name, _, _ in CASES])  # fmt: skip
async def test_a_packet_that_violates_mqtt_ends_the_connection_with_that_cause(version, broken, reason_code, caplog):
    errors = []
    played = await PlayedConnection(version=version).open(CONNACK if version == 5 else b"\x20\x02\x00\x00")
    if version == 4 and broken == CONNACK:
        broken = b"\x20\x02\x00\x00"
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    played.say(broken)
    assert played.transport.aborted
    assert played.writes == ([disconnect(reason_code)] if version == 5 else [])
    played.protocol.connection_lost(None)
    [loss] = played.lost
    assert isinstance(loss.error, ConnectionError)
    assert str(loss.error)
    assert (caplog.records, errors) == ([], [])


ANY_PACKETS = st.lists(
    st.tuples(st.integers(0, 255), st.binary(max_size=30)).map(lambda one: packet(*one))
    | st.sampled_from([puback(1), publish(7, b"{}"), publish(8, b"{}", qos=0), ack(0x90, 2), ack(0xB0, 3), PINGRESP])
    | st.binary(max_size=10),
    max_size=8,
)


@given(ANY_PACKETS, st.sampled_from([4, 5]))
def test_any_packets_are_handled_or_end_the_connection_with_a_cause(pieces, version):
    async def play():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        played = await PlayedConnection(version=version).open(CONNACK if version == 5 else b"\x20\x02\x00\x00")
        played.publish()
        played.client.subscribe("t")
        played.client.unsubscribe("t")
        for piece in pieces:
            played.say(piece)
        played.protocol.connection_lost(None)
        assert errors == []
        [loss] = played.lost
        assert (loss.error is not None or loss.reason_code is not None) == played.transport.aborted

    asyncio.run(play())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (0, {})),
        (b"\x8b", (0x8B, {})),
        (b"\x8b\x04\x1f\x00\x01x", (0x8B, {"reason_string": ["x"]})),
        (b"\x8b\x02\x7f\x00", (0x8B, {})),
        (b"\x8b\x09", (0x8B, {})),
    ],
)
async def test_the_reason_code_of_a_disconnect_is_kept_although_its_properties_are_malformed(body, expected):
    played = await PlayedConnection().open()
    played.say(packet(0xE0, body))
    assert (played.writes, played.transport.aborted) == ([], True)
    played.protocol.connection_lost(None)
    [loss] = played.lost
    assert (loss.error, (loss.reason_code, loss.properties)) == (None, expected)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_an_error_in_a_callback_is_reported_and_does_not_end_the_connection(qos):
    errors = []
    played = await PlayedConnection().open()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    played.client.on_message = lambda *_: 1 / 0
    played.say(publish(7, b"first", qos=qos) + PINGRESP)
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    assert not played.transport.aborted


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_downlink_with_packet_id_0_is_delivered_and_not_acknowledged(qos):
    """After 65,535 downlinks the platform sends packet id 0, and it disconnects a client that acknowledges it."""
    played = await PlayedConnection().open()
    played.say(publish(0xFFFF, b"last", qos=qos) + publish(0, b"zero", qos=qos) + publish(1, b"first", qos=qos))
    assert played.received == [b"last", b"zero", b"first"]
    kind = 0x40 if qos == 1 else 0x50
    assert b"".join(played.writes) == ack(kind, 0xFFFF) + ack(kind, 1)


async def test_a_message_of_qos_2_is_delivered_once():
    """The client does not subscribe with QoS 2; if a server uses it anyway, the client follows the rules of MQTT."""
    played = await PlayedConnection().open()
    played.say(publish(7, b"once", qos=2) + publish(7, b"once", qos=2) + ack(0x62, 7) + ack(0x62, 7) + publish(7, b"new", qos=2))
    assert played.received == [b"once", b"new"]
    assert b"".join(played.writes) == ack(0x50, 7) * 2 + ack(0x70, 7) + ack(0x50, 7)


async def test_the_connection_to_a_server_that_sends_before_the_connect_ends():
    played = PlayedConnection()
    await played.open(connack=None)
    played.protocol._connection = None
    played.say(CONNACK)
    assert played.transport.aborted
