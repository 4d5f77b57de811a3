"""What one connection does with the bytes that come: when they are acknowledged, by TCP and by MQTT."""

import socket

import pytest
from gmqtt import Client

from tb_mqtt_client.common.gmqtt_transport import QUICK_ACKNOWLEDGEMENT, PromptConnection, ReadingProtocol

PINGRESP = b"\xd0\x00"
PINGREQ = b"\xc0\x00"
ENDLESS_LENGTH = b"\x30\xff\xff\xff\xff"


class RecordingSocket:
    def __init__(self):
        self.options = []

    def setsockopt(self, *option):
        self.options.append(option)


class RecordingTransport:
    """What a protocol asks of a transport."""

    def __init__(self):
        self.socket = RecordingSocket()
        self.writes = []
        self.aborted = False

    def get_extra_info(self, name, default=None):
        return self.socket if name == "socket" else default

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    def write(self, data):
        self.writes.append(data)

    def set_write_buffer_limits(self, high):
        assert high > 0


def connect(*, heard, missing=False, keepalive=0):
    """The transport and the protocol of a connection after its CONNACK."""
    client = Client("client-id", clean_session=True)
    client.on_message = lambda _client, _topic, payload, _qos, _properties: heard.append(payload)
    transport = RecordingTransport()
    protocol = ReadingProtocol(
        on_lost=lambda _error: None,
        on_writable=lambda _takes_more: None,
        expects_more=lambda: missing,
        connection_state=client._connection_state,
        id_generator=client._package_handler.id_generator,
    )
    protocol.connection_made(transport)
    protocol._heard_connack = True
    client._connection = PromptConnection(transport, protocol, True, keepalive, package_handler=client._package_handler)
    return transport, protocol


def publish(packet_id, payload):
    body = b"\x00\x01t" + packet_id.to_bytes(2) + b"\x00" + payload
    return bytes([0x32, len(body)]) + body


def puback(packet_id):
    return b"\x40\x04" + packet_id.to_bytes(2) + b"\x00\x00"


@pytest.mark.skipif(QUICK_ACKNOWLEDGEMENT is None, reason="TCP_QUICKACK is Linux's own")
@pytest.mark.parametrize("missing", [True, False])
async def test_tcp_acknowledges_at_once_only_while_pubacks_are_missing(missing):
    transport, protocol = connect(heard=[], missing=missing)
    protocol.data_received(PINGRESP)
    protocol.data_received(PINGRESP)
    expected = [(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)] * 2 if missing else []
    assert transport.socket.options == expected


async def test_what_came_at_once_is_acknowledged_in_one_write():
    heard = []
    transport, protocol = connect(heard=heard)
    whole = publish(7, b"first") + publish(8, b"second") + publish(9, b"third")
    protocol.data_received(whole[:-2])
    assert transport.writes == [puback(7) + puback(8)]
    protocol.data_received(whole[-2:])
    assert transport.writes[1:] == [puback(9)]
    assert heard == [b"first", b"second", b"third"]


async def test_what_is_written_between_two_reads_goes_at_once():
    transport, protocol = connect(heard=[])
    protocol.data_received(publish(7, b"first"))
    protocol.send_ping_request()
    assert transport.writes == [puback(7), PINGREQ]


async def test_nothing_is_written_to_a_connection_that_ends_because_of_what_came():
    heard = []
    transport, protocol = connect(heard=heard)
    protocol.data_received(publish(7, b"first") + ENDLESS_LENGTH)
    assert (heard, transport.writes, transport.aborted) == ([b"first"], [], True)
    protocol.send_ping_request()
    assert transport.writes == []


async def test_a_silent_peer_is_given_up_with_its_cause():
    lost = []
    transport, protocol = connect(heard=[], keepalive=30)
    protocol._on_lost = lost.append
    connection = protocol._connection
    connection._last_data_in -= 59
    connection._keep_connection()
    assert (transport.writes, transport.aborted) == ([PINGREQ], False)
    connection._last_data_in -= 2
    connection._keep_connection()
    assert transport.aborted
    protocol.connection_lost(None)
    assert str(lost[0]) == "nothing came for 61 s, with a keep-alive of 30 s"
    connection._keep_connection_callback.cancel()
