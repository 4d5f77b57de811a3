"""How many bytes of a socket are on their way, as the system says."""

import socket
import sys
from contextlib import suppress

import pytest

from tb_mqtt_client.common.mqtt.transport import unacknowledged_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it")
def test_bytes_that_the_peer_has_not_taken():
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


def test_a_closed_socket_has_nothing_on_its_way():
    client = socket.socket()
    client.close()
    assert unacknowledged_bytes(client) == 0
