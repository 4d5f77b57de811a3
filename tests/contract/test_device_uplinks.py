"""Replies to the publishes of a device (docs/platform_contract.md, sections 2, 3 and 8)."""

import pytest
from probe import CLOSED, NOTHING, OK, disconnected, probe, refused

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
TAKEN = [
    (TELEMETRY, '{"a":1}'),
    (TELEMETRY, "{}"),
    (TELEMETRY, '{"a":null}'),
    (TELEMETRY, '{"ts":1,"values":{}}'),
    (TELEMETRY, '{"ts":1}'),
    (TELEMETRY, '{"values":{"a":1}}'),
    (TELEMETRY, '[{"a":1},{"ts":1,"values":{"b":2}}]'),
    (TELEMETRY, '{"ts":"1700000000000","values":{"a":1}}'),
    # The parser is lenient.
    (TELEMETRY, "{'a':1}"),
    (TELEMETRY, "{a:1}"),
    (TELEMETRY, '{"a":NaN}'),
    (TELEMETRY, '{"a":/* comment */1}'),
    (TELEMETRY, '{"a":1 // comment\n}'),
    (ATTRIBUTES, '{"a":1}'),
    (ATTRIBUTES, "{}"),
    ("v1/devices/me/rpc/response/1", '{"result":1}'),
    ("v1/devices/me/rpc/response/1", "no JSON at all"),
    ("v1/devices/me/claim", ""),
    ("v1/devices/me/claim", "{}"),
    ("v1/devices/me/claim", '{"secretKey":"s","durationMs":1000}'),
]
MALFORMED = [
    (TELEMETRY, "nonsense"),
    (TELEMETRY, "1"),
    (TELEMETRY, '"text"'),
    (TELEMETRY, "[1]"),
    (TELEMETRY, '[{"a":1},2]'),
    (TELEMETRY, '{"ts":1,"values":[1]}'),
    (TELEMETRY, '{"ts":1,"values":1}'),
    (TELEMETRY, '{"a":1} trailing'),
    pytest.param(TELEMETRY, '{"a":1} // comment', marks=pytest.mark.emulator_lacks("a comment behind the document is refused")),
    (TELEMETRY, '{"a":1'),
    (ATTRIBUTES, "nonsense"),
    (ATTRIBUTES, "[]"),
    (ATTRIBUTES, '[{"a":1}]'),
    (ATTRIBUTES, "1"),
    ("v1/devices/me/attributes/request/x", "{}"),
    ("v1/devices/me/rpc/response/x", '{"result":1}'),
]
EXCEPTIONS = [
    (TELEMETRY, '{"ts":"yesterday","values":{"a":1}}'),
    ("v1/devices/me/rpc/request/x", '{"method":"m","params":{}}'),
    ("v1/devices/me/rpc/request/1", "{}"),
    ("v1/devices/me/claim", '{"secretKey":"s","durationMs":"long"}'),
    ("v2/fw/request/1/chunk/0", "many"),
]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(("topic", "payload"), TAKEN)
async def test_valid_payloads_are_acknowledged(platform, device, topic, payload, version):
    async with probe(platform, device.token, version) as client:
        assert (await client.publish(topic, payload)).outcome == OK


@pytest.mark.parametrize(("topic", "payload"), MALFORMED)
async def test_a_malformed_payload_is_refused_without_disconnect(platform, device, topic, payload):
    async with probe(platform, device.token) as client:
        assert (await client.publish(topic, payload)).outcome == refused(0x99)


@pytest.mark.parametrize(("topic", "payload"), [(TELEMETRY, "nonsense"), (TELEMETRY, "[1]"), (ATTRIBUTES, "[]")])
@pytest.mark.parametrize(("version", "qos", "outcome"), [(5, 0, disconnected(0x99)), (4, 0, CLOSED), (4, 1, CLOSED)])
async def test_without_a_reason_code_a_malformed_payload_closes_the_connection(
    platform, device, topic, payload, version, qos, outcome
):
    async with probe(platform, device.token, version) as client:
        assert (await client.publish(topic, payload, qos=qos)).outcome == outcome


@pytest.mark.parametrize(("topic", "payload"), EXCEPTIONS)
async def test_an_exception_in_the_platform_closes_the_connection(platform, device, topic, payload):
    for version, outcome in [(5, disconnected(0x8B)), (4, CLOSED)]:
        async with probe(platform, device.token, version) as client:
            assert (await client.publish(topic, payload)).outcome == outcome


async def test_an_empty_list_is_never_acknowledged(platform, device):
    async with probe(platform, device.token) as client:
        assert (await client.publish(TELEMETRY, "[]")).outcome == NOTHING


@pytest.mark.parametrize("topic", ["telemetry", "attributes", "connect", "nonsense"])
async def test_gateway_topics_are_silently_dropped_if_the_device_is_not_a_gateway(platform, device, topic):
    name = platform.name("sub-device")
    async with probe(platform, device.token) as client:
        payload = {"device": name} if topic == "connect" else {name: [{"a": 1}]}
        assert (await client.publish(f"v1/gateway/{topic}", payload)).outcome == NOTHING
    assert not await platform.exists(name)


# Requests and their responses.


async def response(client, topic, payload, response_topic):
    received = await client.publish(topic, payload)
    assert received.outcome == OK
    # Under load the response may arrive late, and after the response to an earlier request.
    found = [message for message in received.messages if message.topic == response_topic]
    return (found[0] if found else await client.message(response_topic)).payload


async def test_session_limits_have_null_for_no_limit(platform, device, gateway):
    """Section 5: the response needs no subscription."""
    names = {"messages", "telemetryMessages", "telemetryDataPoints"}
    for token, is_gateway in [(device.token, False), (gateway.token, True)]:
        async with probe(platform, token) as client:
            request = {"method": "getSessionLimits", "params": {}}
            limits = await response(client, "v1/devices/me/rpc/request/7", request, "v1/devices/me/rpc/response/7")
        assert limits.pop("maxPayloadSize") >= 1024
        assert limits.pop("maxInflightMessages") >= 1
        parts = [limits.pop("rateLimits")] + ([limits.pop("gatewayRateLimits")] if is_gateway else [])
        assert not limits
        for part in parts:
            assert part.keys() == names
            assert all(limit is None or isinstance(limit, str) for limit in part.values())


SCOPES = {"client": {"c1": 1, "c2": "two"}, "shared": {"s1": True, "s2": 1.5}}


@pytest.mark.parametrize(
    ("request_payload", "expected"),
    [
        ({}, SCOPES),
        ({"clientKeys": "c1", "sharedKeys": "s2"}, {"client": {"c1": 1}, "shared": {"s2": 1.5}}),
        ({"clientKeys": "c1,c2"}, {"client": SCOPES["client"]}),
        ({"sharedKeys": "s1,missing"}, {"shared": {"s1": True}}),
        ({"clientKeys": "missing", "sharedKeys": "missing"}, {}),
        # A key that contains a comma cannot be requested, and spaces are part of a key.
        ({"clientKeys": "c1, c2"}, {"client": {"c1": 1}}),
    ],
)
async def test_attribute_responses_have_scopes(platform, device, request_payload, expected):
    await platform.set_shared(device.name, SCOPES["shared"])
    async with probe(platform, device.token) as client:
        assert (await client.publish(ATTRIBUTES, SCOPES["client"])).outcome == OK
        await client.stored(lambda: platform.attributes(device.name), SCOPES["client"])
        # The first request of a session may lose its response.
        await client.publish("v1/devices/me/attributes/request/1", {"clientKeys": "missing"})
        topic = "v1/devices/me/attributes/{}/2"
        assert await response(client, topic.format("request"), request_payload, topic.format("response")) == expected


async def test_a_request_with_an_empty_list_of_keys_gets_no_response(platform, device):
    async with probe(platform, device.token) as client:
        received = await client.publish("v1/devices/me/attributes/request/1", {"clientKeys": "", "sharedKeys": ""})
        assert received.outcome == OK
        assert received.messages == []


# Messages from the platform.


async def test_attribute_updates_and_deletions_have_different_forms(platform, device):
    async with probe(platform, device.token) as client:
        await client.subscribe("v1/devices/me/attributes")
        await client.until_updates(platform, device.name, "v1/devices/me/attributes")
        await platform.set_shared(device.name, {"a": 1, "b": "x"})
        assert (await client.message()).payload == {"a": 1, "b": "x"}
        await platform.delete_shared(device.name, ["a"])
        assert (await client.message()).payload == {"deleted": ["a"]}


async def test_rpc_request_ids_start_at_0(platform, device):
    async with probe(platform, device.token) as client:
        await client.subscribe("v1/devices/me/rpc/request/+")
        for number in range(2):
            await platform.start_rpc(device.name, "blink", {"times": number})
            message = await client.message()
            assert message.topic == f"v1/devices/me/rpc/request/{number}"
            assert message.payload == {"method": "blink", "params": {"times": number}}


async def test_a_deleted_device_is_disconnected(platform, device):
    async with probe(platform, device.token) as client:
        await platform.delete(device.name)
        assert (await client.received(patience=30 if platform.patience else None)).outcome == disconnected(0x98)
