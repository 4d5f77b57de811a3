"""The emulator replies to packets like the platform (docs/platform_contract.md); tested with raw packets."""

import asyncio
import json

import pytest
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import BasicCredentials, Emulator, RateLimits, SessionLimits, Verdict

SUCCESS_PUBACK = (0x40, b"\0\x01")


def puback(code):
    return 0x40, b"\0\x01" + bytes([code, 0])


def disconnect(code):
    return 0xE0, bytes([code, 0])


@pytest.mark.parametrize("clean", [True, False])
async def test_connack(emulator, clean):
    """Fact 8: session present is the opposite of clean start, and there are no properties."""
    async with raw_client(emulator) as client:
        assert await client.connect(clean=clean) == (0x20, bytes([not clean, 0, 0]))
    async with raw_client(emulator, 4) as client:
        assert await client.connect(clean=clean) == (0x20, bytes([not clean, 0]))


@pytest.mark.parametrize(
    ("credentials", "version_5", "version_4"),
    [
        ({"token": "wrong"}, 0x86, 5),
        ({"token": "user", "password": "wrong"}, 0x86, 5),
        ({"token": None, "client_id": "id"}, 0x85, 2),
        ({"token": None, "client_id": ""}, 0x87, 5),
    ],
)
async def test_refused_connack(emulator, credentials, version_5, version_4):
    """Section 1: in MQTT 5 a DISCONNECT with the same code follows the refusal, then the connection closes."""
    async with raw_client(emulator) as client:
        assert await client.connect(**credentials) == (0x20, bytes([0, version_5, 0]))
        assert await client.read() == disconnect(version_5)
        assert await client.read() is None
    async with raw_client(emulator, 4) as client:
        assert await client.connect(**credentials) == (0x20, bytes([0, version_4]))
        assert await client.read() is None
    assert emulator.counters.refused_connections == 2


async def test_basic_credentials(emulator):
    emulator.add_device(BasicCredentials("id", "user", "secret"), "basic")
    async with raw_client(emulator) as client:
        assert (await client.connect("user", client_id="id", password="secret"))[1][1] == 0
    async with raw_client(emulator) as client:
        assert (await client.connect("user", client_id="id", password="other"))[1][1] == 0x86


async def test_only_exact_topic_filters_are_granted(emulator):
    """Section 2: all other filters are refused."""
    async with raw_client(emulator) as client:
        await client.connect()
        filters = ["v1/devices/me/rpc/request/+", "v1/devices/me/#", "v1/gateway/disconnect", "v1/gateway/rpc"]
        assert await client.subscribe(*filters) == (0x90, b"\0\x01\0" + bytes([1, 0x8F, 0x8F, 1]))
    async with raw_client(emulator, 4) as client:
        await client.connect()
        assert await client.subscribe("v1/gateway/+") == (0x90, b"\0\x01\x80")


@pytest.mark.parametrize(
    ("topic", "payload", "replies"),
    [
        ("v1/devices/me/telemetry", '{"a":1}', [SUCCESS_PUBACK]),
        ("v1/devices/me/telemetry", "{}", [SUCCESS_PUBACK]),
        ("v1/devices/me/telemetry", "nonsense", [puback(0x99)]),
        ("v1/devices/me/telemetry", "[1]", [puback(0x99)]),
        ("v1/devices/me/telemetry", '{"ts":"x","values":{}}', [disconnect(0x8B), None]),
        ("v1/devices/me/attributes", "[]", [puback(0x99)]),
        ("v1/devices/me/rpc/request/x", '{"method":"m"}', [disconnect(0x8B), None]),
        ("v1/devices/me/rpc/request/1", "{}", [disconnect(0x8B), None]),
        ("v1/unknown", "{}", [puback(0x90)]),
    ],
)
async def test_replies_to_a_device(emulator, topic, payload, replies):
    """See docs/platform_contract.md, section 8."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(topic, payload)
        assert [await client.read() for _ in replies] == replies


@pytest.mark.parametrize(
    ("topic", "payload", "replies"),
    [
        ("v1/gateway/telemetry", '{"A":[{"a":1}]}', [SUCCESS_PUBACK]),
        ("v1/gateway/telemetry", "nonsense", [puback(0x99)]),
        ("v1/gateway/telemetry", "{}", [puback(0x83), disconnect(0x83), None]),
        ("v1/gateway/telemetry", '{"A":{"a":1}}', [puback(0x83), disconnect(0x83), None]),
        ("v1/gateway/telemetry", '{"A":[1]}', [puback(0x99)]),
        ("v1/gateway/connect", "{}", [puback(0x83), disconnect(0x83), None]),
        ("v1/gateway/disconnect", '{"device":"unknown"}', [SUCCESS_PUBACK]),
    ],
)
async def test_replies_to_a_gateway(emulator, topic, payload, replies):
    """See docs/platform_contract.md, section 4."""
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish(topic, payload)
        assert [await client.read() for _ in replies] == replies


@pytest.mark.parametrize("topic", ["v1/gateway/telemetry", "v1/devices/me/telemetry"])
async def test_some_publishes_are_never_acknowledged(emulator, topic):
    """Sections 3 and 4: `[]`, and gateway topics used by a device that is not a gateway."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(topic, "[]")
        client.write(b"\xc0\0")
        assert await client.read() == (0xD0, b"")


async def test_the_size_limit_applies_to_the_remaining_length(emulator):
    """Fact 6: topic, packet id and properties count."""
    topic = "v1/devices/me/telemetry"
    around = 2 + len(topic) + 2 + 1
    for size, reply in [(65536, SUCCESS_PUBACK), (65537, disconnect(0x81))]:
        async with raw_client(emulator) as client:
            await client.connect()
            client.publish(topic, '{"a":"' + "x" * (size - around - 8) + '"}')
            assert await client.read() == reply
    assert emulator.counters.largest_remaining_length == 65536


async def test_session_limits(emulator):
    """Section 5: the reply to a gateway also has the limits of its sub-devices."""
    emulator.limits = SessionLimits(
        rate_limits=RateLimits(messages="10:1"), gateway_rate_limits=RateLimits(telemetry_datapoints="5:1")
    )
    device = {"messages": "10:1", "telemetryMessages": None, "telemetryDataPoints": None}
    gateway = {"messages": None, "telemetryMessages": None, "telemetryDataPoints": "5:1"}
    expected = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": device}
    for token, reply in [("TOKEN", expected), ("GATEWAY", expected | {"gatewayRateLimits": gateway})]:
        async with raw_client(emulator) as client:
            await client.connect(token)
            client.publish("v1/devices/me/rpc/request/7", '{"method":"getSessionLimits","params":{}}')
            # The PUBACK comes first.
            assert await client.read() == SUCCESS_PUBACK
            first_byte, body = await client.read()
            topic = b"v1/devices/me/rpc/response/7"
            assert first_byte == 0x32
            assert body.startswith(bytes([0, len(topic)]) + topic)
            assert json.loads(body[2 + len(topic) + 3 :]) == reply


async def test_an_old_server_does_not_reply_to_get_session_limits(emulator):
    emulator.limits = None
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/rpc/request/7", '{"method":"getSessionLimits","params":{}}')
        assert await client.read() == SUCCESS_PUBACK


async def test_data_is_kept_and_counted(emulator):
    """Section 3: all forms of telemetry are kept; nulls are dropped and not counted."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", '[{"ts":1,"values":{"a":1,"b":null}},{"ts":2,"c":3}]')
        await client.read()
        client.publish("v1/devices/me/attributes", '{"serial":"x","none":null}')
        await client.read()
    device = emulator.device("TOKEN")
    assert device.telemetry[0] == (1, "a", 1)
    assert [(key, value) for _, key, value in device.telemetry[1:]] == [("ts", 2), ("c", 3)]
    assert device.attributes == {"serial": "x"}
    assert (device.counters.telemetry_datapoints, device.counters.attribute_datapoints) == (3, 1)
    assert (emulator.counters.publishes, emulator.counters.pubacks, emulator.counters.datapoints) == (2, 2, 4)


async def test_gateway_data_belongs_to_the_devices(emulator):
    """Section 4: a connect message sets the profile; an uplink of an unknown device creates it with the profile "default"."""
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A","type":"meter"}')
        await client.read()
        client.publish("v1/gateway/telemetry", '{"A":[{"ts":1,"values":{"a":1}}],"B":[{"b":2}]}')
        await client.read()
        assert emulator.device("A").connected
    assert (emulator.device("A").profile, emulator.device("B").profile) == ("meter", "default")
    assert emulator.device("A").telemetry == [(1, "a", 1)]
    assert emulator.counters.data_messages == 2


async def test_takeover(emulator):
    """Section 1: the newest session wins, the previous one is disconnected with 0x8E."""
    async with raw_client(emulator) as first, raw_client(emulator) as second:
        await first.connect()
        await second.connect()
        assert await first.read() == disconnect(0x8E)
        assert await first.read() is None
        second.publish("v1/devices/me/telemetry", '{"a":1}')
        assert await second.read() == SUCCESS_PUBACK


async def test_disconnect_is_echoed(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        client.write(b"\xe0\x02\0\0")
        assert await client.read() == (0xE0, b"")
        assert await client.read() is None


async def test_some_downlinks_need_a_subscription(emulator):
    """Fact 7: attribute updates and RPC requests need a subscription; all other downlinks arrive at QoS 1 without one."""
    async with raw_client(emulator) as client:
        assert not await emulator.publish_to("device", "v1/devices/me/attributes", {"a": 1})
        await client.connect()
        assert not await emulator.publish_to("device", "v1/devices/me/attributes", {"a": 1})
        await client.subscribe("v1/devices/me/attributes")
        assert await emulator.publish_to("device", "v1/devices/me/attributes", {"a": 1})
        assert (await client.read())[0] == 0x32
        assert await emulator.publish_to("TOKEN", "v1/devices/me/rpc/response/1", b"{}")
        assert (await client.read())[0] == 0x32


@pytest.mark.parametrize(
    ("verdict", "replies", "stored"),
    [
        (Verdict.acknowledge(0x10), [puback(0x10)], 1),
        (Verdict.refuse(0x97), [puback(0x97)], 0),
        (Verdict.delay(0.01), [SUCCESS_PUBACK], 1),
        (Verdict.close(0x83), [disconnect(0x83), None], 0),
        (Verdict.close(), [None], 0),
        (None, [SUCCESS_PUBACK], 1),
    ],
)
async def test_hooks(emulator, verdict, replies, stored):
    seen = []
    emulator.on_publish = lambda publish: seen.append(publish) or verdict
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", '{"a":1}')
        assert [await client.read() for _ in replies] == replies
    assert [(publish.topic, publish.json(), publish.device.name) for publish in seen] == [
        ("v1/devices/me/telemetry", {"a": 1}, "device")
    ]
    assert emulator.counters.datapoints == stored


async def test_ignored_publish(emulator):
    emulator.on_publish = lambda _: Verdict.ignore()
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", '{"a":1}')
        client.write(b"\xc0\0")
        assert await client.read() == (0xD0, b"")


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n" + b"x" * 100, b"\x10\xff\xff\xff\xff\xff", b"\x30\x02\0\0"])
async def test_garbage_ends_the_connection(emulator, garbage):
    async with raw_client(emulator) as client:
        client.write(garbage)
        while await client.read() is not None:
            pass


async def test_packets_in_pieces(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        whole = []
        client.write, write = whole.append, client.write
        client.publish("v1/devices/me/telemetry", '{"a":1}')
        for byte in b"".join(whole):
            write(bytes([byte]))
            await asyncio.sleep(0)
        assert await client.read() == SUCCESS_PUBACK


async def test_no_task_remains_after_the_emulator_stops(emulator):
    async with Emulator() as other:
        other.add_device("TOKEN")
        async with raw_client(other) as client:
            await client.connect()
            await other.stop()
            assert await client.read() is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_in_a_hook_is_raised_on_exit():
    def fail(_publish):
        raise RuntimeError("in a hook")

    emulator = Emulator(accept_any_token=True)
    emulator.on_publish = fail
    await emulator.start()
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", "{}")
        assert await client.read() == disconnect(0x8B)
    with pytest.raises(ExceptionGroup, match="errors inside the emulator"):
        await emulator.__aexit__(None, None, None)


async def test_fixture(tb_emulator):
    tb_emulator.add_device("token")
    with pytest.raises(ValueError, match="already in use"):
        tb_emulator.add_device("token")
    with pytest.raises(LookupError, match="there is no device 'unknown'; devices: 'token'"):
        tb_emulator.device("unknown")


@pytest.mark.parametrize(
    ("argument", "number"),
    [("port", -1), ("port", 65536), ("max_payload_size", 0), ("max_string_length", -1), ("max_devices", -1), ("history_limit", -1)],
)
def test_numbers_out_of_range_are_refused(argument, number):
    with pytest.raises(ValueError, match=f"{argument} must be at least"):
        Emulator(**{argument: number})
