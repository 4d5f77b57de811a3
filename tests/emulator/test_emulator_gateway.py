"""Gateways in the emulator: sub-device sessions, invalid entries, notices and claiming.

Source: docs/platform_contract.md, sections 2 and 4.
"""

import json

import pytest
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import Claim, Emulator

DAY_MS = 24 * 60 * 60 * 1000
SUCCESS = (0x40, b"\0\x01")
RPC = "v1/devices/me/rpc/request/+"


@pytest.fixture
async def gateway(emulator):
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        await client.read()
        yield client


@pytest.mark.parametrize(
    ("payload", "claim"),
    [
        ("", Claim("", DAY_MS)),
        ("{}", Claim("", DAY_MS)),
        ('{"secretKey":"s"}', Claim("s", DAY_MS)),
        ('{"secretKey":"s","durationMs":60000}', Claim("s", 60000)),
        ('{"durationMs":"60000"}', Claim("", 60000)),
    ],
)
async def test_claims(emulator, payload, claim):
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/claim", payload)
        assert await client.read() == SUCCESS
    assert emulator.device("device").claims == [claim]


@pytest.mark.parametrize(
    ("payload", "reply"),
    [
        ("[]", (0x40, b"\0\x01\x99\0")),
        ("nonsense", (0x40, b"\0\x01\x99\0")),
        ('{"durationMs":"long"}', (0xE0, b"\x8b\0")),
        ('{"durationMs":null}', (0xE0, b"\x8b\0")),
        ('{"durationMs":true}', (0xE0, b"\x8b\0")),
    ],
)
async def test_invalid_claims(emulator, payload, reply):
    """See docs/platform_contract.md, section 8."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/claim", payload)
        assert await client.read() == reply
    assert emulator.device("device").claims == []


async def test_an_invalid_claim_of_one_device(emulator, gateway):
    """Section 4: the PUBACK has the code, and the connection stays open."""
    gateway.publish("v1/gateway/claim", '{"A":{"durationMs":"long"},"B":{}}')
    assert await gateway.read() == (0x40, b"\0\x01\x99\0")
    assert await gateway.silent()
    assert emulator.device("B").claims == [Claim()]


async def test_claims_of_several_devices(emulator, gateway):
    gateway.publish("v1/gateway/claim", '{"A":{"secretKey":"a","durationMs":1},"B":{},"C":"skipped"}')
    assert await gateway.read() == SUCCESS
    assert emulator.device("A").claims == [Claim("a", 1)]
    assert emulator.device("B").claims == [Claim()]
    assert "C" not in emulator.devices


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("v1/gateway/telemetry", '{"bad":[1],"B":[{"b":2}]}'),
        ("v1/gateway/telemetry", '{"bad":[{"ts":"x","values":{}}],"B":[{"b":2}]}'),
        ("v1/gateway/telemetry", '{"bad":[{"ts":1,"values":1}],"B":[{"b":2}]}'),
        ("v1/gateway/telemetry", '{"bad":[{"a":1,"metadata":{"connector":"c"}}],"B":[{"b":2}]}'),
        ("v1/gateway/telemetry", '{"bad":[{"a":1,"metadata":1}],"B":[{"b":2}]}'),
    ],
)
async def test_an_invalid_entry_does_not_affect_the_others(emulator, gateway, topic, payload):
    """Section 4: one PUBACK has the code of the failure, and the connection stays open."""
    gateway.publish(topic, payload)
    assert await gateway.read() == (0x40, b"\0\x01\x99\0")
    assert await gateway.silent()
    assert [(key, value) for _, key, value in emulator.device("B").telemetry] == [("b", 2)]


@pytest.mark.parametrize("payload", ['{"A":[]}', '{"A":[],"B":[{"b":2}]}'])
async def test_an_empty_entry_is_never_acknowledged(gateway, payload):
    """See docs/platform_contract.md, section 3."""
    gateway.publish("v1/gateway/telemetry", payload)
    assert await gateway.silent()


async def test_an_entry_with_the_wrong_type_is_ignored(emulator, gateway):
    gateway.publish("v1/gateway/telemetry", '{"C":{"c":1},"B":[{"b":2}]}')
    assert await gateway.read() == SUCCESS
    assert "C" not in emulator.devices


METADATA = {"connector": "modbus", "receivedTs": 1, "publishedTs": 2}


@pytest.mark.parametrize(("version", "read"), [("4.3", True), ("3.8", True), ("3.7", False)])
@pytest.mark.parametrize("element", [{"ts": 5, "values": {"a": 1}}, {"a": 1}])
async def test_metadata(version, read, element):
    """Section 4: since 3.8 metadata is separate from the values; before, it is an ordinary key."""
    async with Emulator(version=version) as emulator, raw_client(emulator) as client:
        emulator.add_gateway("GATEWAY")
        await client.connect("GATEWAY")
        client.publish("v1/gateway/telemetry", json.dumps({"A": [element | {"metadata": METADATA}]}))
        assert await client.read() == SUCCESS
        device = emulator.device("A")
        assert list(device.metadata) == ([METADATA] if read else [])
        keys = {key for _, key, _ in device.telemetry}
        assert keys == ({"a"} if read or "ts" in element else {"a", "metadata"})


async def test_a_renamed_device(emulator, gateway):
    """Section 2: the gateway that announced the device gets a one-way RPC request, kept until the gateway acknowledges it."""
    await emulator.rename_device("A", "A 2")
    assert await gateway.silent()
    await gateway.subscribe(RPC)
    notice = ("v1/devices/me/rpc/request/0", {"method": "gateway_device_renamed", "params": {"A": "A 2"}})
    assert await gateway.message(acknowledge=False) == notice
    await gateway.subscribe(RPC)
    assert await gateway.message() == notice
    await gateway.subscribe(RPC)
    assert await gateway.silent()
    # The session keeps the name under which the device was announced until it is announced under the new name.
    await emulator.set_shared_attributes("A 2", {"a": 1})
    assert (await gateway.message())[1]["device"] == "A"
    gateway.publish("v1/gateway/telemetry", '{"A 2":[{"a":1}]}')
    await gateway.read()
    await emulator.set_shared_attributes("A 2", {"a": 2})
    assert (await gateway.message())[1]["device"] == "A 2"
    assert await gateway.silent()
    assert set(emulator.devices) == {"device", "gateway", "A 2"}
    with pytest.raises(ValueError, match="already in use"):
        await emulator.rename_device("A 2", "device")


async def test_a_deleted_device(emulator, gateway):
    """Section 2: the next uplink under the name creates a new device with the default profile."""
    await gateway.subscribe(RPC)
    old = emulator.device("A")
    await emulator.delete_device("A")
    notice = {"method": "gateway_device_deleted", "params": "A"}
    assert await gateway.message() == ("v1/devices/me/rpc/request/0", notice)
    assert (old.connected, "A" in emulator.devices) == (False, False)
    gateway.publish("v1/gateway/telemetry", '{"A":[{"a":1}]}')
    await gateway.read()
    assert emulator.device("A") is not old


@pytest.mark.parametrize("version", [4, 5])
async def test_deleting_a_connected_device_closes_its_connection(emulator, version):
    """Section 1: the reason code is 0x98."""
    async with raw_client(emulator, version) as client:
        await client.connect()
        await emulator.delete_device("device")
        if version == 5:
            assert await client.read() == (0xE0, b"\x98\0")
        assert await client.read() is None
    async with raw_client(emulator) as client:
        assert (await client.connect())[1][1] == 0x86


async def test_disconnect_notices(emulator, gateway):
    """Section 4: the notice on v1/gateway/disconnect exists only in MQTT 5, and the session continues."""
    assert await emulator.send_disconnect_notice("A", 150)
    assert await gateway.message() == ("v1/gateway/disconnect", {"device": "A", "reason": 150})
    assert emulator.device("A").connected
    assert not await emulator.send_disconnect_notice("gateway", 150)
    async with raw_client(emulator, 4) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        await client.read()
        assert not await emulator.send_disconnect_notice("A", 150)


async def test_the_newest_session_of_a_sub_device_wins(emulator, gateway):
    """A device has one session; the gateway that loses it stays connected."""
    emulator.add_gateway("GATEWAY 2")
    async with raw_client(emulator) as other:
        await other.connect("GATEWAY 2")
        other.publish("v1/gateway/connect", '{"device":"A"}')
        await other.read()
        await emulator.set_shared_attributes("A", {"a": 1})
        assert (await other.message())[0] == "v1/gateway/attributes"
        assert await gateway.silent()
        # A device that has its own connection and is announced by a gateway too.
        async with raw_client(emulator) as device:
            await device.connect()
            other.publish("v1/gateway/connect", '{"device":"device"}')
            await other.read()
            assert await device.read() == (0xE0, b"\x8e\0")
        async with raw_client(emulator) as device:
            await device.connect()
            assert await other.silent()


@pytest.mark.parametrize("topic", ["v1/gateway/provision", "v1/gateway/config", "v1/gateway/x"])
async def test_unknown_gateway_topics(gateway, topic):
    gateway.publish(topic, "{}")
    assert await gateway.read() == (0x40, b"\0\x01\x90\0")
    assert await gateway.silent()
