"""CONNECT, subscriptions and closed connections (docs/platform_contract.md, sections 1 and 2, facts 6 and 8)."""

import pytest
from probe import CLOSED, NOTHING, OK, Received, disconnected, probe, refused
from raw_mqtt import packet, text

TELEMETRY = "v1/devices/me/telemetry"


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("clean", [True, False])
async def test_session_present_is_the_opposite_of_clean_start_and_there_are_no_properties(platform, device, version, clean):
    async with probe(platform, version=version) as client:
        connack = await client.raw.connect(device.token, clean=clean)
        assert connack == (0x20, bytes([not clean, 0]) + (b"\0" if version == 5 else b""))


@pytest.mark.parametrize(
    ("credentials", "version_5", "version_4"),
    [
        ({"token": "wrong"}, 0x86, 5),
        ({"token": "user", "password": "wrong"}, 0x86, 5),
        ({"token": None, "client_id": "no such client"}, 0x85, 2),
        ({"token": None, "client_id": ""}, 0x87, 5),
    ],
)
async def test_wrong_credentials_are_refused_with_their_code(platform, credentials, version_5, version_4):
    async with probe(platform) as client:
        assert await client.connect(**credentials) == version_5
        assert (await client.received()).outcome == disconnected(version_5)
    async with probe(platform, version=4) as client:
        assert await client.connect(**credentials) == version_4
        assert (await client.received()).outcome == CLOSED


async def test_basic_credentials_need_their_client_id_and_password(platform):
    client_id, username = platform.name("id"), platform.name("user")
    await platform.basic_device(client_id, username, "secret")
    for password, code in [("secret", 0), ("other", 0x86)]:
        async with probe(platform) as client:
            assert await client.connect(username, client_id=client_id, password=password) == code


ALLOWED = [
    "v1/devices/me/attributes",
    "v1/devices/me/attributes/response/+",
    "v1/devices/me/rpc/request/+",
    "v1/devices/me/rpc/response/+",
    "v1/gateway/attributes",
    "v1/gateway/attributes/response",
    "v1/gateway/rpc",
    "v2/a",
    "v2/a/res/+",
    "v2/a/res/j/+",
    "v2/r/req/+",
    "v2/r/req/j/+",
    "v2/r/res/+",
    "v2/r/res/j/+",
    "v2/fw/response/+/chunk/+",
    "v2/sw/response/+/chunk/+",
    "v2/fw/error",
    "v2/sw/error",
]
FORBIDDEN = [
    "#",
    "v1/devices/me/#",
    "v1/devices/me/+",
    "v1/devices/me/telemetry",
    "v1/devices/me/attributes/response/1",
    "v1/devices/me/rpc/request/#",
    "v1/gateway/+",
    "v1/gateway/disconnect",
    "v1/gateway/connect",
    "v1/gateway/telemetry",
    "v2/fw/response/0/chunk/+",
    "nonsense",
]


async def test_filters_are_granted_as_exact_strings_only(platform, device):
    async with probe(platform, device.token) as client:
        codes = await client.subscribe(*ALLOWED, *FORBIDDEN)
    assert dict(zip(ALLOWED + FORBIDDEN, codes, strict=True)) == dict.fromkeys(ALLOWED, 1) | dict.fromkeys(FORBIDDEN, 0x8F)


async def test_a_refused_filter_has_code_0x80_in_mqtt_3_1_1(platform, device):
    async with probe(platform, device.token, version=4) as client:
        assert await client.subscribe("v1/devices/me/#", "v1/devices/me/attributes") == [0x80, 1]


async def test_qos_2_is_granted_as_1(platform, device):
    async with probe(platform, device.token) as client:
        client.raw.write(packet(0x82, b"\0\x07\0" + text("v1/devices/me/attributes") + b"\x02"))
        assert await client.raw.read() == (0x90, b"\0\x07\0\x01")


async def test_the_unsuback_shows_if_there_was_a_subscription(platform, device):
    async with probe(platform, device.token) as client:
        granted, never, not_allowed = "v1/devices/me/attributes", "v1/devices/me/rpc/request/+", "v1/devices/me/#"
        assert await client.subscribe(granted, not_allowed) == [1, 0x8F]
        assert await client.unsubscribe(granted, never, not_allowed) == [0, 0x11, 0x11]
        assert await client.unsubscribe(granted) == [0x11]


async def test_a_publish_with_qos_2_gets_a_puback(platform, device):
    async with probe(platform, device.token) as client:
        assert (await client.publish(TELEMETRY, {"a": 1}, qos=2)).outcome == OK


async def test_the_newest_session_wins(platform, device):
    async with probe(platform, device.token) as first, probe(platform, device.token) as second:
        assert (await first.received()).outcome == disconnected(0x8E)
        assert (await second.publish(TELEMETRY, {"a": 1})).outcome == OK


async def test_a_disconnect_is_echoed(platform, device):
    async with probe(platform, device.token) as client:
        client.raw.write(b"\xe0\x02\0\0")
        assert (await client.received()).outcome == disconnected(0)
    async with probe(platform, device.token, version=4) as client:
        client.raw.write(b"\xe0\0")
        assert (await client.received()).outcome == CLOSED


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
async def test_the_size_limit_applies_to_the_remaining_length(platform, device, version, qos):
    """Fact 6: topic, packet id and properties count."""
    around = 2 + len(TELEMETRY) + 2 * (qos > 0) + (version == 5)
    for size, outcome in [(65536, OK if qos else NOTHING), (65537, disconnected(0x81) if version == 5 else CLOSED)]:
        async with probe(platform, device.token, version) as client:
            payload = '{"a":"' + "x" * (size - around - 8) + '"}'
            assert (await client.publish(TELEMETRY, payload, qos=qos)).outcome == outcome


async def test_a_puback_with_packet_id_0_closes_the_connection(platform, device):
    async with probe(platform, device.token) as client:
        client.raw.write(b"\x40\x02\0\0")
        assert (await client.received()).outcome == disconnected(0x81)


async def test_a_puback_for_an_unknown_id_is_ignored(platform, device):
    async with probe(platform, device.token) as client:
        client.raw.write(b"\x40\x02\x30\x39")
        assert (await client.received()).outcome == NOTHING


async def test_packets_before_the_connack_are_processed_after_it(platform, device):
    """Fact 5: they are queued, so a client may send packets right after its CONNECT."""
    async with probe(platform) as client:
        raw = client.raw
        written = []
        raw.write, write = written.append, raw.write
        body = text("MQTT") + bytes([5, 0x82, 0, 60, 0]) + text("raw") + text(device.token)
        raw.write(packet(0x10, body))
        for number in range(1, 51):
            raw.publish(TELEMETRY, f'{{"early {number}":1}}', packet_id=number)
        raw.write = write
        raw.write(b"".join(written))
        assert await raw.read() == (0x20, b"\0\0\0")
        received = Received()
        while len(received.pubacks) < 50:
            found = await client.received()
            received.pubacks += found.pubacks
            assert (found.disconnect, found.closed) == (None, False)
        assert received.pubacks == [0] * 50


@pytest.mark.parametrize(("version", "outcome"), [(5, refused(0x90)), (4, OK)])
@pytest.mark.parametrize("topic", ["nonsense", "v1/devices/me/nonsense", "v1/devices/me", "v2/nonsense"])
async def test_an_unknown_topic_is_refused_without_disconnect(platform, device, topic, version, outcome):
    async with probe(platform, device.token, version) as client:
        assert (await client.publish(topic, {"a": 1})).outcome == outcome
