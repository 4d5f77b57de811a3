"""The bytes of a socket that the peer has not acknowledged, as the system reports them."""

import socket
import sys
from contextlib import suppress

import pytest

from tb_mqtt_client.common.mqtt.transport import unacknowledged_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports them")
def test_unread_bytes_of_a_peer_are_counted():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        assert unacknowledged_bytes(client) == 0
        client.setblocking(False)
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += client.send(bytes(65536))
        assert 0 < unacknowledged_bytes(client) <= written
        peer.close()


def test_a_closed_socket_has_no_unacknowledged_bytes():
    client = socket.socket()
    client.close()
    assert unacknowledged_bytes(client) == 0
