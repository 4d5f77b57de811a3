"""The TCP acknowledgement of what was read goes at once while PUBACKs are missing, and only then."""

import socket

import pytest
from gmqtt import Client

from tb_mqtt_client.common.gmqtt_patch import QUICK_ACKNOWLEDGEMENT, _Protocol

PINGRESP = b"\xd0\x00"


class RecordingSocket:
    def __init__(self):
        self.options = []

    def setsockopt(self, *option):
        self.options.append(option)


class ReadingTransport:
    """What a protocol asks of a transport that only reads."""

    def __init__(self):
        self.socket = RecordingSocket()

    def get_extra_info(self, name, default=None):
        return self.socket if name == "socket" else default

    def is_closing(self):
        return False

    def set_write_buffer_limits(self, high):
        assert high > 0


@pytest.mark.skipif(QUICK_ACKNOWLEDGEMENT is None, reason="TCP_QUICKACK is Linux's own")
@pytest.mark.parametrize("missing", [True, False])
async def test_only_while_acknowledgements_are_missing(missing):
    client = Client("client-id", clean_session=True)
    protocol = _Protocol(
        on_lost=lambda _error: None,
        on_writable=lambda _takes_more: None,
        expects_more=lambda: missing,
        connection_state=client._connection_state,
        id_generator=client._package_handler.id_generator,
    )
    transport = ReadingTransport()
    protocol.connection_made(transport)
    protocol._heard_connack = True
    protocol.set_connection(type("Connection", (), {"put_package": lambda _self, _package: None})())
    protocol.data_received(PINGRESP)
    protocol.data_received(PINGRESP)
    expected = [(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)] * 2 if missing else []
    assert transport.socket.options == expected
