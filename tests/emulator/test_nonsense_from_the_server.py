"""Clients report malformed packets and responses, keep all tasks running, and recover when the server is correct again."""

import asyncio
import json
import logging

import pytest
from device_peer import FAST
from played_server import PlayedServer
from raw_mqtt import packet

from engine_parts import engine_of, own_tasks
from tb_mqtt_client import DeviceClient, GatewayClient
from tb_mqtt_client.common.network.route import Route
from tb_mqtt_client.entities.server_address import ServerAddress
from tb_mqtt_client.service.mqtt_manager import MQTTManager
from tb_mqtt_client.service.requests.dispatch import InboundDispatcher, InboundReport

SHORT = 0.15
"""Seconds to wait for a response that does not come."""
LONG = 10.0
"""Seconds to wait for a correct server, which responds at once unless the machine is busy."""
OPTIONS = FAST | {
    "access_token": "t",
    "ack_timeout": LONG,
    "limits_timeout": LONG,
    "connect_timeout": LONG,
    "backpressure_delay": 0.02,
}
RESPONSE = "v1/devices/me/rpc/response/1"
KINDS = pytest.mark.parametrize("kind", [DeviceClient, GatewayClient])


def instead(data):
    """Replace the packet by ``data``."""
    return lambda *_: data


def in_addition(data):
    """Append ``data`` to the packet."""
    return lambda _connection, correct, _body: correct + data


def other_body(first_byte, body):
    """Replace what follows the packet id."""
    return lambda _connection, _correct, sent: packet(first_byte, sent[:2] + body)


def other_id(first_byte, rest):
    return lambda _connection, _correct, sent: packet(first_byte, bytes([sent[0] ^ 0x40, sent[1]]) + rest)


def reply(payload):
    """Replace the payload of the response to getSessionLimits."""
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()

    def respond(connection, _correct, body):
        topic = body[2 : 2 + int.from_bytes(body[:2], "big")].decode().replace("/request/", "/response/")
        return connection.publish(topic, payload)

    return respond


ENDS_THE_SESSION = {
    "CONNACK missing": ("CONNACK", instead(b"")),
    "CONNACK empty": ("CONNACK", instead(b"\x20\0")),
    "CONNACK of one byte": ("CONNACK", instead(b"\x20\x01\0")),
    "CONNACK with Receive Maximum twice": ("CONNACK", instead(packet(0x20, b"\0\0\x06\x21\0\x0a\x21\0\x0b"))),
    "CONNACK with an unknown property": ("CONNACK", instead(packet(0x20, b"\0\0\x02\x7f\0"))),
    "CONNACK whose properties are longer than it": ("CONNACK", instead(packet(0x20, b"\0\0\x40\x21\0\x0a"))),
    "CONNACK twice": ("CONNACK", in_addition(packet(0x20, b"\0\0\0"))),
    "CONNACK of an unknown refusal": ("CONNACK", instead(packet(0x20, b"\0\xfe\0"))),
    "CONNACK with an endless length": ("CONNACK", instead(b"\x20\xff\xff\xff\xff\xff\xff")),
    "CONNECT instead of CONNACK": ("CONNACK", instead(packet(0x10, b"\0\x04MQTT\x05\0\0\0\0\0\0"))),
    "HTTP instead of CONNACK": ("CONNACK", instead(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "TLS alert instead of CONNACK": ("CONNACK", instead(b"\x15\x03\x01\0\x02\x02\x0a")),
    "SUBACK missing": ("SUBACK", instead(b"")),
    "SUBACK for another id": ("SUBACK", other_id(0x90, b"\0\x01")),
    "SUBACK without codes": ("SUBACK", other_body(0x90, b"\0")),
    "SUBACK without properties": ("SUBACK", other_body(0x90, b"")),
    "SUBACK empty": ("SUBACK", instead(b"\x90\0")),
    "SUBACK of one byte": ("SUBACK", instead(b"\x90\x01\0")),
    "SUBACK with an unknown property": ("SUBACK", other_body(0x90, b"\x02\x7f\0\x01")),
    "SUBACK whose properties are longer than it": ("SUBACK", other_body(0x90, b"\x40\x01")),
    "UNSUBACK instead of SUBACK": ("SUBACK", other_body(0xB0, b"\0\0")),
    "PUBACK instead of SUBACK": ("SUBACK", other_body(0x40, b"")),
    "PUBLISH that ends too early": ("SUBACK", instead(b"\x30\x02\0\x09")),
    "PUBLISH of QoS 3": ("SUBACK", instead(b"\x36\x07\0\x01a\0\x01\0x")),
    "PUBLISH with a topic that is not UTF-8": ("SUBACK", instead(b"\x30\x04\0\x01\xff\0")),
    "packet of the reserved type": ("SUBACK", instead(b"\0\0")),
    "SUBSCRIBE from the server": ("SUBACK", instead(packet(0x82, b"\0\x01\0\0\x01a\0"))),
    "DISCONNECT with malformed properties": ("SUBACK", instead(packet(0xE0, b"\x8b\x40\x01"))),
    "DISCONNECT of an unknown reason": ("SUBACK", instead(packet(0xE0, b"\xfe"))),
    "PUBACK empty": ("PUBACK", instead(b"\x40\0")),
    "PUBACK with an unknown property": ("PUBACK", lambda _c, correct, _b: packet(0x40, correct[2:4] + b"\0\x02\x7f\0")),
}
"""Packets with which an attempt to connect fails."""

USED_WITHOUT = {
    "no reply": (instead(b""), "limits"),
    "a reply that is not JSON": (reply(b"no json"), "limits"),
    "a reply that is not UTF-8": (reply(b'"\xff"'), "limits"),
    "an empty reply": (reply(b""), "limits"),
    "a reply nested without end": (reply(b"[" * 50_000), "limits"),
    "a number of many digits": (reply(b'{"maxPayloadSize":' + b"9" * 5000 + b"}"), "limits"),
    "a list": (reply([1, 2]), "limits"),
    "an error": (reply({"error": "timeout"}), "limits"),
    "null": (reply(None), "limits"),
} | {
    f"{name}={json.dumps(value):.40}": (reply({name: value}), f"{name}")
    for name, values in {
        "maxPayloadSize": [0, -1, 1, True, 1.5, "65536", [1], {"a": 1}, 2**31, 2**63, 2**64, 10**300, float("inf"), float("nan")],
        "rateLimits": [200, [1], True, "10:1", {"messages": 200}, {"messages": [1]}, {"messages": True}, {"messages": {"a": 1}}],
        "gatewayRateLimits": [200, {"telemetryMessages": 1}, {"telemetryDataPoints": f"{2**64}:1"}, {"messages": f"1:{10**30}"}],
    }.items()
    for value in values
}
"""Responses to getSessionLimits that are used without their invalid part, and the name of that part in the warning."""


@pytest.fixture(autouse=True)
async def nothing_reaches_the_exception_handler():
    """Check that no error reached the exception handler of the loop, and no task is left."""
    contexts = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    yield
    assert contexts == []
    await asyncio.sleep(0)
    assert client_tasks() == set()


@pytest.fixture
async def server():
    async with PlayedServer() as server:
        yield server


def make(kind, server, **options):
    return kind(OPTIONS | {"host": server.host, "port": server.port} | options)


def set_timeouts(client, seconds):
    """Set the time limit of a CONNACK and a SUBACK, from the next attempt on."""
    engine = engine_of(client)
    engine.config.connect_timeout = engine.mqtt_manager.ack_timeout = seconds


def client_tasks():
    return {task.get_name() for task in asyncio.all_tasks() if "tb-mqtt-client" in task.get_name()}


def lasting(names):
    """Return the tasks that a client has between connect() and stop(); the watch for PUBACKs has the life of a connection."""
    return {name for name in names if not name.endswith("acknowledgements")}


async def assert_works(client, server, value):
    async with asyncio.timeout(10):
        assert (await client.send_timeseries({"key": value}, timeout=None)).is_successful()
    assert value in server.values()


@KINDS
@pytest.mark.parametrize("nonsense", [name for name in ENDS_THE_SESSION if not name.startswith("PUBACK ") or "instead" in name])
async def test_connect_raises_and_works_when_the_server_is_correct_again(kind, server, nonsense):
    name, wrong = ENDS_THE_SESSION[nonsense]
    client = make(kind, server)
    set_timeouts(client, SHORT)
    server.wrong[name] = wrong
    for _ in range(2):
        async with asyncio.timeout(10):
            with pytest.raises(OSError):  # noqa: PT011  # the texts have tests of their own
                await client.connect()
        assert client_tasks() == set()
    server.wrong.clear()
    set_timeouts(client, LONG)
    await client.connect()
    await assert_works(client, server, 1)
    await client.stop()


@KINDS
@pytest.mark.parametrize("nonsense", ENDS_THE_SESSION)
async def test_a_lost_connection_is_retried_until_the_server_is_correct_again(kind, server, nonsense, caplog):
    name, wrong = ENDS_THE_SESSION[nonsense]
    client = make(kind, server)
    await client.connect()
    before = lasting(client_tasks())
    set_timeouts(client, SHORT)
    server.wrong[name] = wrong
    with caplog.at_level(logging.WARNING):
        server.close_connections()
        [future] = await client.send_timeseries({"key": 7}, wait_for_publish=False)
        await server.wait_connections(4)
    # The cause of each failed attempt is logged; without a traceback, because the client has no defect.
    reports = [record for record in caplog.records if "failed" in record.getMessage() or "ended" in record.getMessage()]
    assert len(reports) >= 3
    assert not any(record.exc_info for record in caplog.records)
    assert lasting(client_tasks()) == before
    assert not future.done()
    server.wrong.clear()
    set_timeouts(client, LONG)
    async with asyncio.timeout(10):
        assert (await future).is_successful()
    assert server.values() == [7]
    await assert_works(client, server, 8)
    await client.stop()
    assert client.statistics.acknowledged == client.statistics.accepted == 2


@pytest.mark.parametrize(
    ("nonsense", "missing"),
    [("SUBACK missing", "SUBACK"), ("SUBACK for another id", "SUBACK"), ("UNSUBACK instead of SUBACK", "SUBACK")],
)
@pytest.mark.parametrize("version", [4, 5])
async def test_the_timeout_for_a_missing_packet_names_the_server_and_the_packet(server, nonsense, missing, version):
    name, wrong = ENDS_THE_SESSION[nonsense]
    server.wrong[name] = wrong
    client = make(DeviceClient, server, mqtt_version=version, ack_timeout=SHORT)
    with pytest.raises(TimeoutError, match=rf"{server.host}:{server.port} did not acknowledge.*{missing}.*{SHORT:g} s"):
        await client.connect()
    await client.stop()


@KINDS
@pytest.mark.parametrize("nonsense", USED_WITHOUT)
async def test_limits_are_used_without_their_invalid_part(kind, server, nonsense, caplog):
    wrong, named = USED_WITHOUT[nonsense]
    client = make(kind, server, limits_timeout=SHORT if nonsense == "no reply" else LONG)
    server.wrong["limits"] = wrong
    with caplog.at_level(logging.INFO):
        await client.connect()
    lines = [record for record in caplog.records if named in record.getMessage() and "limits" in record.getMessage()]
    assert len(lines) == 1
    assert not any(record.exc_info for record in caplog.records)
    await assert_works(client, server, 1)
    before = lasting(client_tasks())
    for value in (2, 3):
        server.close_connections()
        await assert_works(client, server, value)
    assert lasting(client_tasks()) == before
    await client.stop()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("wrong", [instead(b""), other_id(0xB0, b"\0\0"), other_body(0x90, b"\0\x01")])
async def test_an_unsuback_has_a_timeout(server, version, wrong):
    inbound = InboundDispatcher(InboundReport(), own_tasks())
    manager = MQTTManager("client", inbound=inbound, tasks=own_tasks(), mqtt_version=version, ack_timeout=LONG)
    await manager.connect_by(Route(ServerAddress(server.host, server.port)))
    await manager.subscribe("a")
    manager.subscriptions.timeout = SHORT
    server.wrong["UNSUBACK"] = wrong
    with pytest.raises(TimeoutError, match=f"{server.host}:{server.port} did not acknowledge.*UNSUBACK"):
        await manager.unsubscribe("a")
    server.wrong["SUBACK"] = instead(b"")
    with pytest.raises(TimeoutError, match=r"subscription to b \(no SUBACK\)"):
        await manager.subscribe("b")
    server.wrong.clear()
    manager.subscriptions.timeout = LONG
    await manager.subscribe("b")
    await manager.unsubscribe("b")
    await manager.stop()


async def test_mqtt_5_is_used_again_after_an_upgrade_of_the_server(server, caplog):
    """A refusal of MQTT 5 applies to one connection only."""
    old = {"CONNACK": lambda connection, correct, _: b"\x20\x02\0\x01" if connection.version == 5 else correct}
    server.wrong.update(old)
    client = make(DeviceClient, server)
    with caplog.at_level(logging.INFO):
        await client.connect()
    assert client.health()["mqtt_version"] == 4
    assert any(f"{server.host}:{server.port} does not support MQTT 5" in message for message in caplog.messages)
    server.close_connections()
    await assert_works(client, server, 1)
    assert client.health()["mqtt_version"] == 4
    server.wrong.clear()
    server.close_connections()
    await assert_works(client, server, 2)
    assert client.health()["mqtt_version"] == 5
    server.wrong["CONNACK"] = lambda connection, correct, _: packet(0x20, b"\0\x84\0") if connection.version == 5 else correct
    server.close_connections()
    await assert_works(client, server, 3)
    assert client.health()["mqtt_version"] == 4
    await client.stop()


@pytest.mark.parametrize(("kind", "warnings"), [(GatewayClient, 1), (DeviceClient, 0)])
@pytest.mark.parametrize("configured", [True, False])
async def test_a_gateway_with_mqtt_3_1_1_warns_once_about_its_acknowledgements(server, caplog, kind, warnings, configured):
    """A PUBACK of MQTT 3.1.1 has no reason code: data dropped for a limit looks acknowledged (docs/platform_contract.md,
    fact 2)."""
    if not configured:
        server.wrong["CONNACK"] = lambda connection, correct, _: b"\x20\x02\0\x01" if connection.version == 5 else correct
    client = make(kind, server, mqtt_version=4 if configured else 5)
    with caplog.at_level(logging.WARNING):
        await client.connect()
        server.close_connections()
        await assert_works(client, server, 1)
    assert ["MQTT 3.1.1" in message and "counts as acknowledged" in message for message in caplog.messages].count(True) == warnings
    await client.stop()
    caplog.clear()
    server.wrong.clear()
    client = make(kind, server)
    await client.connect()
    assert caplog.messages == []
    await client.stop()
