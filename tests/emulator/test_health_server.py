"""``HealthServer``: the status follows the client, peers without a request do no harm, and stopping waits for none."""

import asyncio
import json

import pytest

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.health_server import HealthServer


async def answer(port, request=b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"):
    """Return the status and the body of a response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(30):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split()[1]), json.loads(body)


@pytest.fixture
def client(emulator):
    emulator.add_device("HEALTH", "health")
    return DeviceClient({"host": emulator.host, "port": emulator.port, "access_token": "HEALTH", "client_id": "hall"})


async def test_the_status_follows_the_client(client, emulator):
    async with HealthServer(client, port=0) as server:
        status, health = await answer(server.port)
        assert (status, health["state"]) == (503, "new")
        await client.connect()
        status, health = await answer(server.port)
        assert (status, health["ready"], health["client_id"]) == (200, True, "hall")
        assert "HEALTH" not in json.dumps(health)
        await client.stop()
        status, health = await answer(server.port)
        assert (status, health["started"]) == (503, False)


async def test_a_lost_connection_is_healthy(client, emulator):
    async with HealthServer(client, port=0) as server:
        await client.connect()
        lost = client.connection_events()
        await emulator.stop()
        async for event in lost:
            if type(event).__name__ == "ConnectionLost":
                break
        status, health = await answer(server.port)
        assert (status, health["connected"]) == (200, False)
        await client.stop(0)


async def test_peers_without_a_request_do_no_harm(client):
    async with HealthServer(client, port=0) as server:
        # The peer has gone, and sends a header that is too long.
        for data in (b"", b"x" * 100_000):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            writer.transport.abort()
        assert (await answer(server.port))[0] == 503


async def test_stopping_closes_connections_that_send_nothing(client):
    async with HealthServer(client, port=0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        # The request after it was accepted, so this connection was accepted too.
        await answer(server.port)
    async with asyncio.timeout(30):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.close()
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_port_in_use_and_impossible_ports_raise(client):
    async with HealthServer(client, port=0) as server:
        with pytest.raises(OSError, match=str(server.port)):
            await HealthServer(client, port=server.port).__aenter__()
    with pytest.raises(ValueError, match="port must be between 0 and 65535, not 65536"):
        HealthServer(client, port=65536)
