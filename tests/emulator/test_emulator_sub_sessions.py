"""Sub-device sessions in the emulator: refused by the core, and ended by inactivity (docs/platform_contract.md, section 4)."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import Emulator

SUCCESS = (0x40, b"\0\x01")
UPLINKS = {
    "v1/gateway/telemetry": {"A": [{"a": 1}]},
    "v1/gateway/attributes": {"A": {"a": 1}},
    "v1/gateway/rpc": {"device": "A", "id": 1, "data": 1},
    "v1/gateway/claim": {"A": {}},
    "v1/gateway/attributes/request": {"id": 1, "device": "A", "client": True, "key": "a"},
}
CONNECT = {"v1/gateway/connect": {"device": "A"}}


@pytest.fixture
async def gateway(emulator):
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        yield client


@asynccontextmanager
async def connected_gateway(emulator):
    """Connect a raw client as the gateway of an emulator that the test made."""
    emulator.add_gateway("GATEWAY", "gateway")
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        yield client


def check_inactivity(emulator):
    """Check all open sessions against the clock, as setting the timeout does."""
    emulator.sub_device_inactivity = emulator.sub_device_inactivity


async def exchange(client, topic, payload):
    """Publish and return the PUBACK; for an attribute request also read the response."""
    client.publish(topic, json.dumps(payload))
    reply = await client.read()
    if topic.endswith("request"):
        await client.message()
    return reply


# Refused by the core.


@pytest.mark.parametrize(("topic", "payload"), (UPLINKS | CONNECT).items())
async def test_no_session_opens_while_the_core_is_away(emulator, gateway, topic, payload):
    """The PUBACK has 0x80, or 0x83 for an attribute request, after the core timeout; the connection stays usable."""
    emulator.core_away = True
    emulator.core_timeout = 0.01
    gateway.publish(topic, json.dumps(payload))
    # Other packets are processed in the meantime.
    assert await gateway.silent()
    code = b"\x83" if topic.endswith("request") else b"\x80"
    assert await gateway.read() == (0x40, b"\0\x01" + code + b"\0")
    assert "A" not in emulator.devices
    emulator.core_away = False
    assert await exchange(gateway, topic, payload) == SUCCESS
    emulator.core_away = True
    assert await exchange(gateway, topic, payload) == SUCCESS


async def test_only_a_failure_of_the_core_is_delayed(emulator, gateway):
    """The data of other devices is stored, and other failures are reported immediately."""
    emulator.refused_names.add("refused")
    emulator.core_timeout = 0.01
    gateway.publish("v1/gateway/telemetry", '{"A":[{"a":1}],"refused":[{"a":1}],"B":[{"a":1}]}')
    assert await gateway.silent()
    assert {"A", "B"} <= set(emulator.devices)
    assert await gateway.read() == (0x40, b"\0\x01\x80\0")
    emulator.core_timeout = 60
    gateway.publish("v1/gateway/telemetry", '{"refused":[{"a":1}],"A":[1]}')
    assert await gateway.read() == (0x40, b"\0\x01\x99\0")
    assert "refused" not in emulator.devices


@pytest.mark.parametrize("name", [" ", "n" * 256, "\N{GRINNING FACE}" * 128, "<script>", "{{x}}", "a\0"])
@pytest.mark.parametrize("connect", [{"device": "NAME"}, {"device": "A", "type": "NAME"}])
async def test_names_that_the_core_always_refuses(emulator, gateway, name, connect):
    emulator.core_timeout = 0.001
    connect = {key: value.replace("NAME", name) for key, value in connect.items()}
    assert await exchange(gateway, "v1/gateway/connect", connect) == (0x40, b"\0\x01\x80\0")
    assert set(emulator.devices) == {"device", "gateway"}


@pytest.mark.parametrize(("version", "mqtt", "replies"), [("4.3", 4, [SUCCESS]), ("4.2", 5, []), ("3.7", 4, [])])
async def test_a_refusal_of_the_core_with_older_versions(version, mqtt, replies):
    async with Emulator(version=version, core_timeout=0.001) as emulator, raw_client(emulator, mqtt) as client:
        emulator.add_gateway("GATEWAY")
        emulator.core_away = True
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        assert [await client.read() for _ in replies] == replies
        assert await client.silent()


# Ended for inactivity.


async def until_ended(device):
    while device.connected:  # noqa: ASYNC110  # the platform sends no notice
        await asyncio.sleep(0.001)


async def test_an_inactive_sub_device_is_unreachable(emulator, gateway):
    """The gateway gets no notice, no RPC request and no attribute update."""
    emulator.sub_device_inactivity = 0.05
    await exchange(gateway, "v1/gateway/connect", {"device": "A"})
    assert await emulator.set_shared_attributes("A", {"a": 1})
    await gateway.message()
    await until_ended(emulator.device("A"))
    assert not await emulator.set_shared_attributes("A", {"a": 2})
    with pytest.raises(TimeoutError, match="not subscribed"):
        await emulator.call_rpc("A", "m", timeout=0.001)
    assert await gateway.silent()


@pytest.mark.parametrize(("topic", "payload"), (UPLINKS | CONNECT).items())
async def test_an_uplink_or_a_connect_opens_a_new_session(emulator, gateway, topic, payload):
    emulator.sub_device_inactivity = 0.02
    await exchange(gateway, "v1/gateway/connect", {"device": "A"})
    device = emulator.device("A")
    await until_ended(device)
    emulator.sub_device_inactivity = None
    await exchange(gateway, topic, payload)
    assert (device.connected, device.counters.connections) == (True, 2)
    assert await emulator.set_shared_attributes("A", {"a": 2})


@pytest.mark.parametrize(
    ("topic", "payload", "kept"),
    [(topic, payload, True) for topic, payload in UPLINKS.items()]
    + [
        ("v1/gateway/attributes", {"A": {}}, True),
        ("v1/gateway/attributes", {"A": {}, "B": {}}, True),
        ("v1/gateway/telemetry", {"A": [{"ts": 1, "values": {}}]}, True),
        ("v1/gateway/connect", {"device": "A"}, False),
        ("v1/gateway/telemetry", {"B": [{"a": 1}]}, False),
        ("v1/devices/me/telemetry", {"a": 1}, False),
    ],
)
async def test_uplinks_keep_a_session_alive(topic, payload, kept):
    """A sub-device's own uplinks do, empty ones included; `connect` and uplinks of the gateway or other devices do not."""
    now = 0.0
    async with Emulator(clock=lambda: now, sub_device_inactivity=600) as emulator, connected_gateway(emulator) as gateway:
        await exchange(gateway, "v1/gateway/connect", {"device": "A"})
        device = emulator.device("A")
        for _ in range(2):
            now += 400
            await exchange(gateway, topic, payload)
            check_inactivity(emulator)
        assert (device.connected, device.counters.connections) == (kept, 1)


async def test_sessions_end_one_by_one():
    now = 1000.0
    async with Emulator(clock=lambda: now, sub_device_inactivity=600) as emulator, connected_gateway(emulator) as gateway:
        for name in "ABC":
            await exchange(gateway, "v1/gateway/connect", {"device": name})
            now += 100
        await exchange(gateway, "v1/gateway/attributes", {"A": {}})
        reachable = []
        for _ in range(5):
            reachable.append("".join(name for name in "ABC" if emulator.device(name).connected))
            now += 200
            check_inactivity(emulator)
        assert reachable == ["ABC", "ABC", "AC", "", ""]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_the_inactivity_timeout_must_be_positive(seconds):
    with pytest.raises(ValueError, match="sub_device_inactivity"):
        Emulator(sub_device_inactivity=seconds)
    emulator = Emulator(sub_device_inactivity=None)
    with pytest.raises(ValueError, match="sub_device_inactivity"):
        emulator.sub_device_inactivity = seconds
    assert emulator.sub_device_inactivity is None
