"""Rate limits in the emulator: message costs and exceeded limits (docs/platform_contract.md, sections 0, 2, 4 and 5)."""

import json
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import Emulator, OtaPackage, RateLimits, SessionLimits
from tb_mqtt_client.emulator.limits import Buckets, windows

TELEMETRY = "v1/devices/me/telemetry"
SUCCESS = (0x40, b"\0\x01")
OVER_LIMIT = (0xE0, b"\x83\0")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def limited(clock):
    """Return a function that starts an emulator with limits, a device and a gateway."""
    async with AsyncExitStack() as stack:

        async def start(device=None, gateway=None, tenant=None, **options):
            limits = SessionLimits(
                rate_limits=device or RateLimits(),
                gateway_rate_limits=gateway or RateLimits(),
                tenant_rate_limits=tenant or RateLimits(),
            )
            emulator = await stack.enter_async_context(Emulator(limits=limits, clock=clock, **options))
            emulator.add_device("TOKEN", "device")
            emulator.add_gateway("GATEWAY", "gateway")
            return emulator

        yield start


async def claims_left(client):
    """Return the number of messages that the device may still send: send claims, which cost one each, until it is disconnected."""
    sent = 0
    while True:
        client.publish("v1/devices/me/claim", "")
        if await client.read() != SUCCESS:
            return sent
        sent += 1


# Buckets alone.


def test_a_take_succeeds_in_all_windows_or_in_none():
    """Section 5: buckets are initially full and refill continuously at capacity / seconds."""
    buckets = Buckets("2:1,3:60", 0.0)
    assert [buckets.take(1, 0.0) for _ in range(3)] == [True, True, False]
    assert [buckets.take(1, 0.5), buckets.take(1, 0.5)] == [True, False]
    # The long window is empty, so the level of the short one does not matter.
    assert not buckets.take(1, 10.0)
    assert buckets.take(1, 20.5)
    assert not Buckets("5:1", 0.0).take(6, 1000.0)


@given(
    capacity=st.integers(1, 50),
    seconds=st.integers(1, 60),
    takes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 10)), max_size=60),
)
def test_no_window_admits_more_than_its_capacity_and_its_refill(capacity, seconds, takes):
    buckets, now, admitted = Buckets(f"{capacity}:{seconds}", 0.0), 0.0, []
    for passed, amount in takes:
        now += passed
        if buckets.take(amount, now):
            admitted.append((now, amount))
    for start, _ in admitted:
        for end, _ in admitted:
            within = sum(amount for at, amount in admitted if start <= at <= end)
            assert within <= capacity + (end - start) * capacity / seconds + 1e-6 or end < start


@pytest.mark.parametrize("text", [None, "", "10:1", "10:1,300:60", "10:1,"])
def test_valid_limits(text):
    assert all(capacity > 0 and seconds > 0 for capacity, seconds in windows(text))


@pytest.mark.parametrize("text", ["10", "10:", "a:1", "0:1", "10:0", "10:1;20:2", ",", "-1:1"])
async def test_invalid_limits(text):
    with pytest.raises(ValueError, match="is not a rate limit"):
        Emulator(limits=SessionLimits(rate_limits=RateLimits(text)))
    emulator = Emulator()
    with pytest.raises(ValueError, match="is not a rate limit"):
        emulator.limits = SessionLimits(gateway_rate_limits=RateLimits(text))
    assert emulator.limits == SessionLimits()
    # Limits that are only announced are not validated.
    Emulator(limits=SessionLimits(rate_limits=RateLimits(text)), enforce_limits=False)


# Devices.


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("limits", "payload"),
    [
        (RateLimits(telemetry_messages="1:10"), '{"a":1}'),
        (RateLimits(telemetry_datapoints="3:10"), '{"a":1,"b":2}'),
        (RateLimits(messages="2:10"), "{}"),
    ],
)
@pytest.mark.parametrize("topic", [TELEMETRY, "v1/devices/me/attributes"])
async def test_a_device_that_exceeds_its_limit(limited, clock, version, limits, payload, topic):
    """Fact 1: DISCONNECT 0x83 or a closed connection without a PUBACK; the message and those behind it are lost."""
    emulator = await limited(limits)
    async with raw_client(emulator, version) as client:
        await client.connect()
        client.publish(topic, payload)
        assert await client.read() == SUCCESS
        client.publish(topic, payload)
        client.publish(topic, payload)
        if version == 5:
            assert await client.read() == OVER_LIMIT
        assert await client.read() is None
    assert emulator.device("device").counters.data_messages == 1
    clock.now += 10
    async with raw_client(emulator, version) as client:
        await client.connect()
        client.publish(topic, payload)
        assert await client.read() == SUCCESS


async def published(client, topic, payload, replies=1):
    client.publish(topic, payload)
    for _ in range(replies):
        await client.read()


COSTS = {
    "nothing": (0, lambda emulator, client: client.silent()),
    "attribute subscription": (1, lambda emulator, client: client.subscribe("v1/devices/me/attributes")),
    "RPC subscription": (1, lambda emulator, client: client.subscribe("v1/devices/me/rpc/request/+")),
    "both subscriptions": (2, lambda emulator, client: client.subscribe("v1/devices/me/attributes", "v1/devices/me/rpc/request/+")),
    "response subscription": (0, lambda emulator, client: client.subscribe("v1/devices/me/attributes/response/+")),
    "gateway subscription": (0, lambda emulator, client: client.subscribe("v1/gateway/rpc", "v1/gateway/attributes")),
    "refused subscription": (0, lambda emulator, client: client.subscribe("v1/devices/me/#")),
    "attribute request": (1, lambda emulator, client: published(client, "v1/devices/me/attributes/request/1", "{}", 2)),
    "refused attribute request": (0, lambda emulator, client: published(client, "v1/devices/me/attributes/request/1", "[]")),
    "RPC request": (1, lambda emulator, client: published(client, "v1/devices/me/rpc/request/1", '{"method":"m"}')),
    "session limits": (
        0,
        lambda emulator, client: published(client, "v1/devices/me/rpc/request/1", '{"method":"getSessionLimits"}', 2),
    ),
    "RPC response": (1, lambda emulator, client: published(client, "v1/devices/me/rpc/response/1", "{}")),
    "claim": (1, lambda emulator, client: published(client, "v1/devices/me/claim", "")),
    "telemetry": (0, lambda emulator, client: published(client, TELEMETRY, '{"a":1}')),
    "attributes": (0, lambda emulator, client: published(client, "v1/devices/me/attributes", '{"a":1}')),
    "telemetry without points": (1, lambda emulator, client: published(client, TELEMETRY, '{"a":null}')),
    "unknown topic": (0, lambda emulator, client: published(client, "v1/unknown", "")),
    "ping": (0, lambda emulator, client: client.silent()),
}


@pytest.mark.parametrize("what", COSTS)
async def test_packets_that_cost_a_message(limited, what):
    """Section 5: the counted packets; connecting costs one message too."""
    cost, act = COSTS[what]
    emulator = await limited(RateLimits("10:1000000"))
    async with raw_client(emulator) as client:
        await client.connect()
        await act(emulator, client)
        assert await claims_left(client) == 9 - cost


async def test_unsubscribing_costs_a_message(limited):
    emulator = await limited(RateLimits("10:1000000"))
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe("v1/devices/me/attributes", "v1/devices/me/attributes/response/+")
        await client.unsubscribe("v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v1/devices/me/rpc/request/+")
        assert await claims_left(client) == 7


async def test_acknowledging_an_rpc_costs_a_message(limited):
    emulator = await limited(RateLimits("10:1000000"))
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe("v1/devices/me/rpc/request/+")
        await emulator.call_rpc("device", "m", oneway=True)
        await client.message()
        assert await claims_left(client) == 7


async def test_only_the_first_chunk_costs_a_message(limited):
    emulator = await limited(RateLimits("10:1000000"))
    await emulator.assign_package("device", OtaPackage("t", "1", bytes(1000)))
    async with raw_client(emulator) as client:
        await client.connect()
        for number in range(10):
            await client.request(f"v2/fw/request/1/chunk/{number}", "100")
        await client.request("v2/fw/request/2/chunk/0", "100")
        assert await claims_left(client) == 7


@pytest.mark.parametrize(("version", "replies"), [(5, [(0x20, b"\0\x9f\0"), (0xE0, b"\x96\0")]), (4, [(0x20, b"\0\x03")])])
async def test_buckets_survive_reconnects(limited, version, replies):
    """Sections 1 and 5: opening and closing a session cost one message each; opening is refused with 0x9F."""
    emulator = await limited(RateLimits("4:1000000"))
    for _ in range(2):
        async with raw_client(emulator, version) as client:
            assert (await client.connect())[1][1] == 0
            session = emulator.device("device").session
        await session.ended.wait()
    async with raw_client(emulator, version) as client:
        assert await client.connect() == replies[0]
        for reply in replies[1:]:
            assert await client.read() == reply
        assert await client.read() is None


async def test_a_subscription_over_the_limit_is_granted_without_effect(limited):
    """See docs/platform_contract.md, section 2."""
    emulator = await limited(RateLimits("2:1000000"))
    async with raw_client(emulator) as client:
        await client.connect()
        reply = await client.subscribe("v1/devices/me/attributes", "v1/devices/me/rpc/request/+", packet_id=1)
        assert reply == (0x90, b"\0\x01\0\x01\x01")
        assert await emulator.set_shared_attributes("device", {"a": 1})
        assert (await client.message())[1] == {"a": 1}
        with pytest.raises(TimeoutError, match="not subscribed"):
            await emulator.call_rpc("device", "m", timeout=0.01)


async def test_a_message_token_is_lost_when_the_datapoints_are_refused(limited):
    """See docs/platform_contract.md, section 5."""
    emulator = await limited(RateLimits(None, "2:1000000", "5:1000000"))
    for payload, reply in [
        (dict.fromkeys("abcdef", 1), OVER_LIMIT),
        ({"a": 1}, SUCCESS),
        ({"a": 1}, OVER_LIMIT),
    ]:
        async with raw_client(emulator) as client:
            await client.connect()
            client.publish(TELEMETRY, json.dumps(payload))
            assert await client.read() == reply


async def test_the_limits_of_the_tenant_are_checked_first(limited):
    """Section 5: the tenant's limits are not announced, and its token is lost if the device has none left."""
    emulator = await limited(device=RateLimits(None, "1:1000000"), tenant=RateLimits(None, "3:1000000"))
    emulator.add_device("OTHER")
    for token, reply in [
        ("TOKEN", SUCCESS),
        ("TOKEN", OVER_LIMIT),
        ("OTHER", SUCCESS),
        ("OTHER", OVER_LIMIT),
    ]:
        async with raw_client(emulator) as client:
            await client.connect(token)
            client.publish(TELEMETRY, '{"a":1}')
            assert await client.read() == reply
    emulator.add_device("THIRD")
    async with raw_client(emulator) as client:
        await client.connect("THIRD")
        _, reply = await read_limits(client)
        assert reply["rateLimits"] == {"messages": None, "telemetryMessages": "1:1000000", "telemetryDataPoints": None}
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == OVER_LIMIT


async def read_limits(client):
    client.publish("v1/devices/me/rpc/request/1", '{"method":"getSessionLimits"}')
    assert await client.read() == SUCCESS
    return await client.message()


async def test_exceeded_api_usage_counts_as_an_exceeded_limit(limited):
    """See docs/platform_contract.md, section 5."""
    emulator = await limited()
    async with raw_client(emulator) as client:
        await client.connect()
        emulator.api_usage_exceeded = True
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == OVER_LIMIT
    async with raw_client(emulator) as client:
        assert (await client.connect())[1][1] == 0x9F


async def test_new_limits_apply_immediately(limited):
    """Section 5: a changed tenant profile is not announced."""
    emulator = await limited()
    async with raw_client(emulator) as client:
        await client.connect()
        emulator.limits = SessionLimits(rate_limits=RateLimits(telemetry_messages="1:1000000"))
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == SUCCESS
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == OVER_LIMIT


@pytest.mark.parametrize(
    ("limits", "after"),
    [
        # An unchanged limit keeps its level.
        (RateLimits(telemetry_messages="2:1000000"), [SUCCESS, OVER_LIMIT]),
        (RateLimits(messages="9:1000000", telemetry_messages="2:1000000"), [SUCCESS, OVER_LIMIT]),
        # A changed limit starts with full buckets.
        (RateLimits(telemetry_messages="3:1000000"), [SUCCESS, SUCCESS, SUCCESS, OVER_LIMIT]),
        (RateLimits(), [SUCCESS] * 5),
    ],
)
async def test_only_a_changed_limit_starts_with_full_buckets(limited, limits, after):
    emulator = await limited(RateLimits(telemetry_messages="2:1000000"))
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == SUCCESS
        emulator.limits = SessionLimits(rate_limits=limits)
        for reply in after:
            client.publish(TELEMETRY, '{"a":1}')
            assert await client.read() == reply


async def test_announced_limits_need_not_be_enforced(limited):
    emulator = await limited(RateLimits("1:1000000", "1:1000000"), enforce_limits=False)
    async with raw_client(emulator) as client:
        await client.connect()
        for _ in range(3):
            client.publish(TELEMETRY, '{"a":1}')
            assert await client.read() == SUCCESS


# Gateways.


@pytest.mark.parametrize(
    ("version", "mqtt", "replies"),
    [
        ("4.3", 5, [(0x40, b"\0\x01\x97\0"), None]),
        ("4.2.1", 5, [(0x40, b"\0\x01\x97\0"), None]),
        ("4.3", 4, [SUCCESS, None]),
        # One PUBACK for each accepted device, none for the other.
        ("4.2", 5, [{"device": "B", "reason": 150}, SUCCESS, None]),
        ("3.7", 5, [{"device": "B", "reason": 150}, SUCCESS, None]),
        ("4.2", 4, [SUCCESS, None]),
    ],
)
async def test_a_gateway_that_exceeds_its_limit(limited, version, mqtt, replies):
    """Fact 2 and section 4: the data within the limit is stored."""
    emulator = await limited(gateway=RateLimits(telemetry_datapoints="3:1000000"), version=version)
    async with raw_client(emulator, mqtt) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/telemetry", '{"A":[{"a":1,"b":2}],"B":[{"a":1,"b":2}]}')
        for reply in replies:
            assert (await client.message())[1] == reply if isinstance(reply, dict) else await client.read() == reply
    assert len(emulator.device("A").telemetry) == 2
    assert emulator.device("B").telemetry == []


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("v1/gateway/attributes/request", {"id": 1, "device": "A", "client": True, "key": "k"}),
        ("v1/gateway/rpc", {"id": 1, "device": "A", "data": 1}),
        ("v1/gateway/claim", {"A": {}}),
        ("v1/gateway/telemetry", {"A": [{"a": None}]}),
        ("v1/gateway/attributes", {"A": {}}),
    ],
)
async def test_packets_that_cost_a_message_of_the_sub_devices(limited, topic, payload):
    """Section 4: a new session costs two messages, then each packet costs one; the limits of the gateway itself do not change."""
    emulator = await limited(device=RateLimits("1:1000000"), gateway=RateLimits("4:1000000"))
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        assert await client.read() == SUCCESS
        for reply in [SUCCESS, SUCCESS, (0x40, b"\0\x01\x97\0")]:
            client.publish(topic, json.dumps(payload))
            assert await client.read() == reply
            if topic.endswith("request") and reply == SUCCESS:
                await client.message()
        assert await client.read() is None


async def test_each_device_entry_costs_a_message(limited):
    emulator = await limited(gateway=RateLimits(None, "3:1000000"))
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/telemetry", '{"A":[{"a":1},{"a":2}],"B":[{"a":1}]}')
        assert await client.read() == SUCCESS
        client.publish("v1/gateway/attributes", '{"A":{"a":1},"B":{"a":1}}')
        assert await client.read() == (0x40, b"\0\x01\x97\0")


@pytest.mark.parametrize(
    ("version", "mqtt", "replies"),
    [("4.3", 5, [(0xE0, b"\x8b\0"), None]), ("4.3", 4, [None]), ("4.2", 5, [(0xD0, b"")])],
)
@pytest.mark.parametrize("topic", ["v1/gateway/connect", "v1/gateway/telemetry"])
@pytest.mark.parametrize("tokens", [2, 3])
async def test_a_sub_device_session_over_the_limit(limited, version, mqtt, replies, topic, tokens):
    """Section 4: a new session costs two messages; since 4.2.1 the gateway is disconnected, earlier it is not notified."""
    emulator = await limited(gateway=RateLimits(f"{tokens}:1000000"), version=version)
    async with raw_client(emulator, mqtt) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        assert await client.read() == SUCCESS
        client.publish(topic, '{"device":"B"}' if topic.endswith("connect") else '{"B":[{"a":1}]}')
        client.write(b"\xc0\0")
        for reply in replies:
            assert await client.read() == reply
    assert "B" not in emulator.devices


async def test_closing_a_sub_device_session_costs_a_message(limited):
    """Section 5: this applies to a disconnect message and to the end of the gateway's connection."""
    emulator = await limited(gateway=RateLimits("6:1000000"))
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        client.publish("v1/gateway/disconnect", '{"device":"A"}')
        client.publish("v1/gateway/connect", '{"device":"A"}')
        assert [await client.read() for _ in range(3)] == [SUCCESS] * 3
        session = emulator.device("gateway").session
    await session.ended.wait()
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        assert await client.read() == (0xE0, b"\x8b\0")


async def test_gateways_share_the_limits_of_the_tenant(limited):
    """Section 5: the limits are not announced; the use by one gateway reduces them for the other."""
    emulator = await limited(tenant=RateLimits(telemetry_datapoints="5:1000000"))
    emulator.add_gateway("SECOND")
    for token, replies in [("GATEWAY", [SUCCESS]), ("SECOND", [(0x40, b"\0\x01\x97\0"), None])]:
        async with raw_client(emulator) as client:
            await client.connect(token)
            client.publish("v1/gateway/telemetry", json.dumps({f"of {token}": [{"a": 1, "b": 2, "c": 3}]}))
            assert [await client.read() for _ in replies] == replies


async def test_a_message_larger_than_a_window_is_always_refused(limited, clock):
    emulator = await limited(tenant=RateLimits(telemetry_datapoints="10:1,3:60"))
    for _ in range(3):
        clock.now += 1000
        async with raw_client(emulator) as client:
            await client.connect()
            client.publish(TELEMETRY, '{"a":1,"b":2,"c":3,"d":4}')
            assert await client.read() == OVER_LIMIT
    assert emulator.counters.datapoints == 0


@pytest.mark.parametrize(
    ("token", "topic", "payload", "ending"),
    [
        ("TOKEN", TELEMETRY, '{"a":1}', [OVER_LIMIT, None]),
        ("GATEWAY", "v1/gateway/telemetry", '{"A":[{"a":1}]}', [(0x40, b"\0\x0b\x97\0"), None]),
    ],
)
async def test_a_burst_over_a_limit_loses_the_pubacks_of_accepted_messages(limited, token, topic, payload, ending):
    """Section 4: 10 messages are stored and none is acknowledged; messages pipelined behind are lost."""
    emulator = await limited(tenant=RateLimits(telemetry_messages="10:1000000"))
    async with raw_client(emulator) as client:
        await client.connect(token)
        for packet_id in range(1, 14):
            client.publish(topic, payload, packet_id=packet_id)
        assert [await client.read() for _ in ending] == ending
    assert emulator.counters.data_messages == 10
    assert emulator.counters.pubacks == emulator.counters.refusals == (0 if token == "TOKEN" else 1)


async def test_delayed_pubacks_are_lost_too(limited):
    """The messages of a burst reach the platform in several pieces."""
    emulator = await limited(RateLimits(telemetry_messages="2:1000000"), puback_delay=60)
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.silent()
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.silent()
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.read() == OVER_LIMIT
    assert (emulator.counters.datapoints, emulator.counters.pubacks) == (2, 0)


async def test_a_puback_can_be_delayed(emulator):
    emulator.puback_delay = 0.01
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(TELEMETRY, '{"a":1}')
        assert await client.silent()
        assert await client.read() == SUCCESS
    with pytest.raises(ValueError, match="puback_delay"):
        emulator.puback_delay = -1


async def test_further_devices_over_the_limit_get_a_notice(limited):
    """Section 4: the PUBACK reports the first of them."""
    emulator = await limited(gateway=RateLimits(telemetry_messages="1:1000000"))
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/telemetry", json.dumps({name: [{"a": 1}] for name in "ABCD"}))
        assert await client.read() == (0x40, b"\0\x01\x97\0")
        for name in "CD":
            notice = await client.message(acknowledge=False)
            assert notice == ("v1/gateway/disconnect", {"device": name, "reason": 150})
        assert await client.read() is None


@pytest.mark.parametrize("topic", ["v1/gateway/connect", "v1/gateway/telemetry"])
async def test_new_sub_device_sessions_can_be_limited(limited, clock, topic):
    """The fifth session within two seconds gets DISCONNECT 0x8B; the limit is not announced, and open sessions cost nothing."""
    emulator = await limited()
    emulator.limits = SessionLimits(sub_sessions="4:2")
    payloads = [json.dumps({"device": name} if topic.endswith("connect") else {name: [{"a": 1}]}) for name in "ABCDE"]
    for attempt in range(2):
        async with raw_client(emulator) as client:
            await client.connect("GATEWAY")
            for payload in payloads[:4] * 2:
                client.publish(topic, payload)
                assert await client.read() == SUCCESS
            client.publish(topic, payloads[4])
            assert [await client.read(), await client.read()] == [(0xE0, b"\x8b\0"), None]
        clock.now += 2
        assert (attempt, "E" in emulator.devices) == (attempt, False)


@pytest.mark.parametrize(
    ("token", "topic", "payload"),
    [
        ("TOKEN", TELEMETRY, '{"a":1,"b":2}'),
        ("TOKEN", "v1/devices/me/claim", "{}"),
        ("GATEWAY", "v1/gateway/telemetry", '{"A":[{"a":1,"b":2}]}'),
        ("GATEWAY", "v1/gateway/connect", '{"device":"A"}'),
    ],
)
async def test_over_limit_can_refuse_or_close(limited, token, topic, payload):
    """The setting `over_limit` imitates other versions and other servers."""
    emulator = await limited(tenant=RateLimits("2:1000000", "1:1000000", "1:1000000"), over_limit="refuse")
    async with raw_client(emulator) as client:
        await client.connect(token)
        if topic.endswith(("claim", "connect")):
            client.publish("v1/devices/me/claim", "")
            assert await client.read() == SUCCESS
        for _ in range(2):
            client.publish(topic, payload)
            assert await client.read() == (0x40, b"\0\x01\x97\0")
            assert await client.silent()
        emulator.over_limit = "close"
        client.publish(topic, payload)
        assert await client.read() is None
    with pytest.raises(ValueError, match="over_limit must be one of platform, refuse, close"):
        emulator.over_limit = "ignore"
    with pytest.raises(ValueError, match="over_limit"):
        Emulator(over_limit="ignore")
