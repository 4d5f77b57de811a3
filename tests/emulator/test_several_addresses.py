"""If a name has several addresses, one that does not respond does not prevent a connection to the others."""

import asyncio
import socket

import pytest
from device_peer import make_client

from network_peers import resolve_as, serving, swallowing_address
from tb_mqtt_client.common.network import happy_eyeballs
from tb_mqtt_client.common.network.happy_eyeballs import connect_first
from tb_mqtt_client.emulator import Emulator


def test_the_next_address_is_tried_within_half_a_second():
    assert happy_eyeballs.ATTEMPT_DELAY < 0.5


async def test_connect_succeeds_although_the_first_address_does_not_respond(emulator, monkeypatch):
    with swallowing_address() as swallowing:
        asked = resolve_as(monkeypatch, {"tb.test": [swallowing, (emulator.host, emulator.port)]})
        client = make_client(emulator, host="tb.test", connect_timeout=5)
        async with client:
            assert (await client.send_timeseries({"a": 1})).is_successful()
    assert asked == ["tb.test"]


async def test_a_reconnect_succeeds_although_the_first_address_does_not_respond(emulator, monkeypatch):
    with swallowing_address() as swallowing:
        names = {"tb.test": [(emulator.host, emulator.port)]}
        resolve_as(monkeypatch, names)
        async with make_client(emulator, host="tb.test", connect_timeout=5) as client:
            names["tb.test"] = [swallowing, (emulator.host, emulator.port)]
            await emulator.disconnect_device("TOKEN", 0x8B)
            assert (await client.send_timeseries({"a": 1})).is_successful()
            assert client.statistics.connections == 2


async def test_the_address_after_a_refusing_one_is_tried_at_once(emulator):
    async with asyncio.timeout(10):
        connection = await connect_first(addresses(("127.0.0.2", 1), ("::1", 1), (emulator.host, emulator.port)), 1000)
    connection.close()


async def test_the_error_names_the_host_if_all_addresses_fail(emulator, monkeypatch):
    resolve_as(monkeypatch, {"tb.test": [("127.0.0.2", 1), ("127.0.0.1", 1)]})
    client = make_client(emulator, host="tb.test", port=1883)
    with pytest.raises(ConnectionRefusedError, match=r"tb\.test:1883: nothing listens on port 1883"):
        await client.connect()
    await client.stop()


def addresses(*pairs):
    families = {True: socket.AF_INET6, False: socket.AF_INET}
    return [(families[":" in host], socket.SOCK_STREAM, 6, "", (host, port)) for host, port in pairs]


async def test_an_unreachable_address_family_does_not_hide_the_error_of_another():
    with pytest.raises(ConnectionRefusedError):
        await connect_first(addresses(("2001:db8::1", 1), ("127.0.0.1", 1)), 0.001)


async def test_a_name_without_an_address_raises():
    with pytest.raises(socket.gaierror):
        await connect_first([])


async def test_address_families_alternate():
    order = happy_eyeballs.alternate_families(addresses(("::1", 1), ("::2", 1), ("::3", 1), ("127.0.0.1", 1)))
    assert [info[4][0] for info in order] == ["::1", "127.0.0.1", "::2", "::3"]


async def test_only_one_of_several_connections_is_left():
    ended = []

    async def serve(reader, _writer):
        ended.append(await reader.read())

    async with serving(serve, "127.0.0.1") as first, serving(serve, "127.0.0.1") as second:
        with swallowing_address() as swallowing:
            pairs = (swallowing, ("127.0.0.1", first), ("127.0.0.1", second))
            winner = await connect_first(addresses(*pairs), 0)
        assert winner.getpeername()[1] in {first, second}
        winner.close()
        assert not [task for task in asyncio.all_tasks() if "attempt" in task.get_name()]


async def test_a_cancelled_attempt_leaves_no_task():
    with swallowing_address() as swallowing:
        connecting = asyncio.ensure_future(connect_first(addresses(swallowing, swallowing), 0.001))
        await asyncio.sleep(0.01)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
    assert not [task for task in asyncio.all_tasks() if "attempt" in task.get_name()]


async def test_an_address_is_not_resolved(monkeypatch):
    asked = resolve_as(monkeypatch, {})
    async with Emulator() as emulator:
        emulator.add_device("TOKEN", "device")
        async with make_client(emulator):
            assert asked == []
