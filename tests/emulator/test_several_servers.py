"""With several servers, each attempt tries all of them; the log, errors and ``health()`` name the server."""

import asyncio
import logging

import pytest
from device_peer import FAST

from network_peers import serving
from tb_mqtt_client import ConnectionRefusedByServer, DeviceClient, GatewayClient
from tb_mqtt_client.emulator import Emulator

CLOSED = "127.0.0.1:1"


def at(emulator):
    return f"{emulator.host}:{emulator.port}"


@pytest.fixture
async def second():
    async with Emulator() as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        yield emulator


def make(*hosts, kind=DeviceClient, **options):
    return kind(FAST | {"host": list(hosts), "access_token": "TOKEN" if kind is DeviceClient else "GATEWAY"} | options)


def server_of(client):
    return f"{client.health()['host']}:{client.health()['port']}"


@pytest.mark.parametrize("kind", [DeviceClient, GatewayClient])
async def test_connect_uses_the_first_server_that_works(emulator, caplog, kind):
    caplog.set_level(logging.INFO, "tb_mqtt_client")
    client = make(CLOSED, at(emulator), kind=kind)
    assert server_of(client) == CLOSED
    async with client:
        assert (await client.send_timeseries({"a": 1})).is_successful()
        assert server_of(client) == at(emulator)
    assert f"trying {at(emulator)} next: " in caplog.text
    assert f"{CLOSED}: nothing listens on port 1" in caplog.text
    assert f"Connected to {at(emulator)}" in caplog.text


async def test_a_reconnect_uses_the_first_server_while_it_works(emulator, second):
    async with make(at(emulator), at(second)) as client:
        for _ in range(2):
            assert (await client.send_timeseries({"a": 1})).is_successful()
            await emulator.disconnect_device("TOKEN", 0x8B)
        assert (await client.send_timeseries({"a": 1})).is_successful()
        assert server_of(client) == at(emulator)
    assert second.counters.connections == 0


async def test_a_reconnect_uses_the_next_server_and_stays_there(emulator, second):
    async with make(at(emulator), at(second)) as client:
        port = emulator.port
        await emulator.stop()
        assert (await client.send_timeseries({"a": 1})).is_successful()
        assert server_of(client) == at(second)
        # The first server is running again; the client stays with the second while it works.
        async with Emulator(port=port) as back:
            back.add_device("TOKEN", "device")
            await second.disconnect_device("TOKEN", 0x8B)
            assert (await client.send_timeseries({"a": 2})).is_successful()
            assert server_of(client) == at(second)
            await second.stop()
            assert (await client.send_timeseries({"a": 3})).is_successful()
            assert server_of(client) == at(back)


async def test_data_sent_during_an_outage_of_all_servers_arrives_at_the_first_that_is_back(emulator, second):
    async with make(at(emulator), at(second)) as client:
        port = second.port
        await emulator.stop()
        await second.stop()
        [delivery] = await client.send_timeseries({"a": 1}, wait_for_publish=False)
        await asyncio.sleep(0.02)
        async with Emulator(port=port) as back:
            back.add_device("TOKEN", "device")
            assert (await delivery).is_successful()


async def closes(_reader, writer):
    writer.close()


async def is_silent(reader, _writer):
    await reader.read()


async def test_a_server_that_closes_connections_or_is_silent_is_skipped(emulator):
    """A load balancer without a backend does this."""
    async with serving(closes) as closing, serving(is_silent) as silent:
        # This is also the timeout of the working server, on a busy machine.
        client = make(f"127.0.0.1:{closing}", f"127.0.0.1:{silent}", at(emulator), connect_timeout=1)
        async with client:
            assert (await client.send_timeseries({"a": 1})).is_successful()


async def test_a_server_that_refuses_the_credentials_is_skipped(emulator):
    async with Emulator() as other, make(at(other), at(emulator)) as client:
        assert server_of(client) == at(emulator)


async def test_the_error_names_all_servers_if_none_works():
    async with serving(closes) as closing:
        client = make(CLOSED, f"127.0.0.1:{closing}")
        with pytest.raises(ConnectionResetError) as raised:
            await client.connect()
        await client.stop()
    text = str(raised.value)
    assert text.startswith(f"127.0.0.1:{closing}: the server closed the connection before sending a CONNACK")
    assert f"; the other servers: [Errno 111] {CLOSED}: nothing listens on port 1" in text


async def test_the_error_of_a_refusal_has_precedence_over_a_closed_port():
    async with Emulator() as other:
        client = make(at(other), CLOSED)
        with pytest.raises(ConnectionRefusedByServer) as raised:
            await client.connect()
        await client.stop()
    assert str(raised.value).startswith(f"{at(other)}: the server has no device with these credentials")
    assert f"; the other servers: [Errno 111] {CLOSED}: nothing listens" in str(raised.value)


async def test_connect_can_be_called_again_after_it_raised(emulator):
    client = make(CLOSED, "127.0.0.2:1")
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
    await client.stop()
