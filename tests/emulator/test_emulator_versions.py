"""Platform versions, and QoS 0 on gateway topics (docs/platform_contract.md, sections 0, 4, 5 and 6)."""

import json

import pytest
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import VERSIONS, Emulator

SUCCESS = (0x40, b"\0\x01")
AFTER_4_2 = ("4.2.1", "4.3")


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
async def platform(version):
    async with Emulator(version=version, max_devices=3, client_rpc_timeout=0.01) as emulator:
        emulator.add_device("TOKEN", "device")
        emulator.add_gateway("GATEWAY", "gateway")
        yield emulator


def test_unknown_versions():
    with pytest.raises(ValueError, match=r"one of 3\.7, 3\.8, 4\.2, 4\.2\.1, 4\.3"):
        Emulator(version="5.0")


async def test_session_limits(platform, version):
    """Section 5: before 3.8 it is an RPC request without a handler."""
    async with raw_client(platform) as client:
        await client.connect()
        client.publish("v1/devices/me/rpc/request/1", '{"method":"getSessionLimits"}')
        assert await client.read() == SUCCESS
        _, reply = await client.message()
        assert ("maxPayloadSize" in reply, reply == {"error": "timeout"}) == (version != "3.7", version == "3.7")


@pytest.mark.parametrize(
    ("topic", "payload", "each"),
    [
        ("v1/gateway/telemetry", '{"A":[{"a":1}],"device":[{"a":1}],"gateway":[{"a":1}]}', [0, 0, 0]),
        ("v1/gateway/attributes", '{"A":{"a":1},"device":{"a":1}}', [0, 0]),
        ("v1/gateway/claim", '{"A":{},"device":{}}', [0, 0]),
        ("v1/gateway/telemetry", '{"A":[{"a":1}],"device":[1]}', [0, 0x99]),
        ("v1/gateway/telemetry", '{"A":[{"a":1}],"device":[]}', [0]),
    ],
)
async def test_pubacks_of_a_gateway(platform, version, topic, payload, each):
    """Fact 10: before 4.2.1 one per device with the same packet id; since then one for all, or none if an entry is empty."""
    if '"gateway"' in payload:
        payload = payload.replace(',"gateway":[{"a":1}]', ',"A 2":[{"a":1}]')
        platform.add_device("A 2 token", "A 2")
        platform.add_device("A token", "A")
    async with raw_client(platform) as client:
        await client.connect("GATEWAY")
        client.publish(topic, payload)
        if version in AFTER_4_2:
            each = [] if "[]" in payload else [max(each)]
        for code in each:
            assert await client.read() == (SUCCESS if code == 0 else (0x40, bytes([0, 1, code, 0])))
        assert await client.silent()


@pytest.mark.parametrize("mqtt", [4, 5])
@pytest.mark.parametrize("topic", ["v1/gateway/connect", "v1/gateway/telemetry"])
async def test_the_device_limit_of_the_tenant(platform, version, mqtt, topic):
    """Section 4: PUBACK 0x97 since 4.2.1, for a connect message since 4.3; the connection stays open."""
    connects = topic.endswith("connect")
    async with raw_client(platform, mqtt) as client:
        await client.connect("GATEWAY")
        for name, fits in [("A", True), ("B", False), ("A", True)]:
            client.publish(topic, json.dumps({"device": name} if connects else {name: [{"a": 1}]}))
            if fits:
                assert await client.read() == SUCCESS
            elif version == "4.3" or (version == "4.2.1" and not connects):
                assert await client.read() == ((0x40, b"\0\x01\x97\0") if mqtt == 5 else SUCCESS)
            assert await client.silent()
    assert "B" not in platform.devices


async def test_the_device_limit_and_provisioning(platform):
    platform.add_provision_profile("key", "secret")
    keys = {"provisionDeviceKey": "key", "provisionDeviceSecret": "secret"}
    async with raw_client(platform) as client:
        await client.connect("provision")
        assert (await client.request("/provision/request", keys))[1]["status"] == "SUCCESS"
        assert (await client.request("/provision/request", keys))[1]["status"] == "FAILURE"


@pytest.mark.parametrize("mqtt", [4, 5])
@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("v1/gateway/telemetry", {"A": [{"a": 1}]}),
        ("v1/gateway/attributes", {"A": {"a": 1}}),
        ("v1/gateway/claim", {"A": {}}),
        ("v1/gateway/rpc", {"device": "A", "id": 1, "data": 1}),
        ("v1/gateway/attributes/request", {"device": "A", "id": 1, "client": True, "key": "a"}),
    ],
)
async def test_qos_0_on_gateway_topics(platform, mqtt, topic, payload):
    """Section 4: the data is accepted without a PUBACK or a notice."""
    async with raw_client(platform, mqtt) as client:
        await client.connect("GATEWAY")
        client.publish(topic, json.dumps(payload), qos=0)
        if topic.endswith("request"):
            assert (await client.message())[0] == "v1/gateway/attributes/response"
        assert await client.silent()
    assert "A" in platform.devices


@pytest.mark.parametrize("topic", ["v1/gateway/connect", "v1/gateway/disconnect"])
async def test_qos_0_announcements_are_not_acknowledged(platform, topic):
    async with raw_client(platform) as client:
        await client.connect("GATEWAY")
        client.publish(topic, '{"device":"A"}', qos=0)
        assert await client.silent()


@pytest.mark.parametrize(
    ("topic", "payload", "replies"),
    [
        ("v1/gateway/telemetry", "nonsense", [None]),
        ("v1/gateway/telemetry", '{"A":[1]}', [None]),
        ("v1/gateway/telemetry", "{}", [SUCCESS, None]),
        ("v1/gateway/connect", '{"type":"x"}', [SUCCESS, None]),
        ("v1/gateway/attributes/request", '{"device":"A"}', [SUCCESS, None]),
        ("v1/gateway/unknown", "{}", [SUCCESS]),
        ("v1/devices/me/telemetry", "[1]", [None]),
        ("v1/unknown", "{}", [SUCCESS]),
    ],
)
async def test_refusals_in_mqtt_3_1_1(platform, topic, payload, replies):
    """Sections 4 and 8: a PUBACK without a code, or a closed connection."""
    async with raw_client(platform, 4) as client:
        await client.connect("GATEWAY")
        client.publish(topic, payload)
        assert [await client.read() for _ in replies] == replies


@pytest.mark.parametrize("topic", ["v1/devices/me/telemetry", "v1/devices/me/attributes"])
async def test_bad_payloads_at_qos_0(platform, topic):
    """Section 8: the client gets DISCONNECT 0x99."""
    async with raw_client(platform) as client:
        await client.connect("GATEWAY")
        client.publish(topic, "[1", qos=0)
        assert await client.read() == (0xE0, b"\x99\0")


@pytest.mark.parametrize("payload", ["[1", '{"A":[1]}'])
async def test_bad_gateway_payloads_at_qos_0(platform, payload):
    """Section 4: an MQTT 5 client gets no packet, an MQTT 3.1.1 client is disconnected."""
    async with raw_client(platform, 5) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/telemetry", payload, qos=0)
        assert await client.silent()
    async with raw_client(platform, 4) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/telemetry", payload, qos=0)
        assert await client.read() is None
