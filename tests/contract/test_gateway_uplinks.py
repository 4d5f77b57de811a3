"""Replies to the publishes of a gateway, and their effects (docs/platform_contract.md, section 4)."""

import json

import pytest
from probe import CLOSED, NOTHING, OK, disconnected, probe, refused

TS = 1_700_000_000_000
CONNECT = "v1/gateway/connect"
TELEMETRY = "v1/gateway/telemetry"
ATTRIBUTES = "v1/gateway/attributes"
REQUEST = "v1/gateway/attributes/request"
RESPONSE = "v1/gateway/attributes/response"
# A, B and N are device names; there is no device with the name N.
TAKEN = [
    (CONNECT, '{"device":"A","type":"default"}'),
    (CONNECT, '{"device":"A"}'),
    (CONNECT, '{"device":"A","type":null}'),
    ("v1/gateway/disconnect", '{"device":"A"}'),
    ("v1/gateway/disconnect", '{"device":"N"}'),
    (TELEMETRY, '{"A":[{"a":1}]}'),
    (TELEMETRY, '{"A":[{"ts":1,"values":{"a":1}}],"B":[{"b":2}]}'),
    (TELEMETRY, '{"A":[{"ts":1,"values":{}}]}'),
    (TELEMETRY, '{"A":[{}]}'),
    (TELEMETRY, '{"A":[{"a":null}]}'),
    (ATTRIBUTES, '{"A":{"a":1},"B":{"b":2}}'),
    (ATTRIBUTES, '{"A":{}}'),
    (ATTRIBUTES, '{"A":{},"B":{}}'),
    ("v1/gateway/rpc", '{"device":"A","id":5,"data":{"success":true}}'),
    ("v1/gateway/rpc", '{"device":"A","id":5,"data":null}'),
    ("v1/gateway/claim", '{"A":{}}'),
    ("v1/gateway/claim", '{"A":{"secretKey":"s","durationMs":1000},"B":{}}'),
    (TELEMETRY, '{"A":[{"ts":1,"values":{"a":1},"metadata":{"connector":"c","receivedTs":1,"publishedTs":2}}]}'),
]
INVALID_JSON = [(topic, "{") for topic in (CONNECT, TELEMETRY, ATTRIBUTES, "v1/gateway/rpc", "v1/gateway/claim", REQUEST)]
INVALID_JSON += [(TELEMETRY, payload) for payload in ('{"A":[{"a":1}]} trailing', "two words", "]")]
INCOMPLETE = [
    (CONNECT, "{}"),
    (CONNECT, "[]"),
    (CONNECT, '{"device":""}'),
    ("v1/gateway/disconnect", "{}"),
    (TELEMETRY, "{}"),
    (TELEMETRY, "[]"),
    (TELEMETRY, '{"A":{"a":1}}'),
    # Strings without quotes are accepted.
    pytest.param(TELEMETRY, "word", marks=pytest.mark.emulator_lacks("a word without quotes is a string")),
    (TELEMETRY, "'word'"),
    pytest.param(TELEMETRY, "", marks=pytest.mark.emulator_lacks("an empty payload is null")),
    (ATTRIBUTES, "{}"),
    (ATTRIBUTES, '{"A":[1]}'),
    ("v1/gateway/rpc", '{"device":"A","id":5}'),
    ("v1/gateway/rpc", '{"device":"A","data":1}'),
    ("v1/gateway/rpc", '{"id":5,"data":1}'),
    ("v1/gateway/claim", "{}"),
    (REQUEST, '{"device":"A","client":true,"key":"k"}'),
    (REQUEST, '{"id":1,"client":true,"key":"k"}'),
    (REQUEST, '{"id":1,"device":"A","key":"k"}'),
    (REQUEST, '{"id":1,"device":"A","client":true}'),
    (REQUEST, '{"id":1,"device":"A","client":["k"],"shared":["s"]}'),
]
UNPARSABLE = [
    (TELEMETRY, '{"A":[1]}'),
    (TELEMETRY, '{"A":[{"a":1}],"B":[1]}'),
    (TELEMETRY, '{"A":[{"ts":1,"values":[1]}]}'),
    (TELEMETRY, '{"A":[{"a":1,"metadata":"text"}]}'),
    (TELEMETRY, '{"A":[{"a":1,"metadata":{"connector":"c"}}]}'),
]


@pytest.fixture
def names(platform):
    return {letter: platform.name(letter) for letter in "ABN"}


def named(payload, names):
    for letter, name in names.items():
        payload = payload.replace(f'"{letter}"', json.dumps(name))
    return payload


async def connected(platform, gateway, names, client):
    for letter in "AB":
        assert (await client.publish(CONNECT, {"device": names[letter]})).outcome == OK


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(("topic", "payload"), TAKEN)
async def test_valid_payloads_are_acknowledged(platform, gateway, names, topic, payload, version):
    async with probe(platform, gateway.token, version) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, named(payload, names))).outcome == OK


@pytest.mark.parametrize(("topic", "payload"), INVALID_JSON)
async def test_invalid_json_is_refused_without_disconnect(platform, gateway, names, topic, payload):
    async with probe(platform, gateway.token) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, payload)).outcome == refused(0x99)


@pytest.mark.parametrize(("topic", "payload"), INCOMPLETE)
async def test_a_message_without_a_required_part_closes_the_connection(platform, gateway, names, topic, payload):
    async with probe(platform, gateway.token) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, named(payload, names))).outcome == disconnected(0x83, 0x83)


@pytest.mark.parametrize(("topic", "payload"), UNPARSABLE)
async def test_an_invalid_part_of_one_device_sets_the_code(platform, gateway, names, topic, payload):
    async with probe(platform, gateway.token) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, named(payload, names))).outcome == refused(0x99)


@pytest.mark.parametrize(("payload", "outcome"), [("[", CLOSED), ("{}", ([0], None, True))])
async def test_mqtt_3_1_1_has_no_code_for_a_refusal(platform, gateway, payload, outcome):
    async with probe(platform, gateway.token, version=4) as client:
        assert (await client.publish(TELEMETRY, payload)).outcome == outcome


async def test_an_empty_list_is_never_acknowledged(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(TELEMETRY, {names["A"]: []})).outcome == NOTHING


@pytest.mark.parametrize("topic", ["v1/gateway/nonsense", "v1/gateway/provision", "v1/gateway/metrics"])
async def test_an_unknown_topic_is_refused_without_disconnect(platform, gateway, topic):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(topic, "{}")).outcome == refused(0x90)


async def test_valid_data_with_qos_0_is_stored_without_a_puback(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        received = await client.publish(TELEMETRY, {names["A"]: [{"ts": TS, "values": {"a": 1}}]}, qos=0)
        assert received.outcome == NOTHING
        assert received.messages == []
        await client.stored(lambda: platform.telemetry(names["A"]), {"a": [(TS, 1)]})


@pytest.mark.parametrize(
    ("payload", "outcome"),
    [
        pytest.param("{", disconnected(0x99), marks=pytest.mark.emulator_lacks("invalid JSON of QoS 0 ends the connection")),
        ("{}", disconnected(0x83)),
        ('{"A":{}}', disconnected(0x83)),
        ('{"A":[1]}', NOTHING),
    ],
)
async def test_invalid_data_with_qos_0(platform, gateway, names, payload, outcome):
    async with probe(platform, gateway.token) as client:
        received = await client.publish(TELEMETRY, named(payload, names), qos=0)
        assert received.outcome == outcome
        assert received.messages == []
    async with probe(platform, gateway.token, version=4) as client:
        received = await client.publish(TELEMETRY, named(payload, names), qos=0)
        assert (received.outcome, received.messages) == (CLOSED, [])


async def test_an_entry_with_the_wrong_type_is_ignored_and_the_others_are_stored(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        payload = {names["A"]: {"a": 1}, names["B"]: [{"ts": TS, "values": {"b": 1}}]}
        assert (await client.publish(TELEMETRY, payload)).outcome == OK
        await client.stored(lambda: platform.telemetry(names["B"]), {"b": [(TS, 1)]})
        assert (await client.publish(ATTRIBUTES, {names["A"]: [1], names["B"]: {"b": 1}})).outcome == OK
        await client.stored(lambda: platform.attributes(names["B"]), {"b": 1})


async def test_a_connect_sets_the_profile_and_an_uplink_the_profile_default(platform, gateway, names):
    profile = platform.name("profile")
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"], "type": profile})).outcome == OK
        assert (await client.publish(TELEMETRY, {names["B"]: [{"a": 1}]})).outcome == OK
    assert await platform.profile_of(names["A"]) == profile
    assert await platform.profile_of(names["B"]) == "default"


async def test_metadata_is_removed_from_the_data(platform, gateway, names):
    metadata = {"connector": "c", "receivedTs": TS, "publishedTs": TS + 1}
    async with probe(platform, gateway.token) as client:
        payload = {names["A"]: [{"ts": TS, "values": {"a": 1}, "metadata": metadata}, {"b": 2, "metadata": metadata}]}
        assert (await client.publish(TELEMETRY, payload)).outcome == OK

        async def keys():
            return set(await platform.telemetry(names["A"]))

        await client.stored(keys, {"a", "b"})


# Requests, and messages from the platform.

CLIENT = {"c1": 1, "c2": "two"}
SHARED = {"s1": True, "s2": 1.5}


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"client": True, "key": "c1"}, {"value": 1}),
        ({"client": True, "keys": ["c1", "c2"]}, {"values": CLIENT}),
        ({"client": True, "keys": ["c2"]}, {"value": "two"}),
        ({"client": False, "keys": ["s1", "s2"]}, {"values": SHARED}),
        ({"client": False, "keys": ["s1", "missing"]}, {"values": {"s1": True}}),
        ({"client": True, "key": "missing"}, {}),
        ({"client": True, "keys": ["missing", "missing 2"]}, {}),
        ({"client": True, "key": "s1"}, {}),
        ({"client": True, "keys": []}, {"values": CLIENT | SHARED}),
    ],
)
async def test_the_form_of_an_attribute_response(platform, gateway, names, request_fields, expected):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        assert (await client.publish(ATTRIBUTES, {names["A"]: CLIENT})).outcome == OK
        await client.stored(lambda: platform.attributes(names["A"]), CLIENT)
        await platform.set_shared(names["A"], SHARED)
        received = await client.publish(REQUEST, {"id": 7, "device": names["A"]} | request_fields)
        assert received.outcome == OK
        found = [message for message in received.messages if message.topic == RESPONSE]
        message = found[0] if found else await client.message(RESPONSE)
        assert message.payload == {"id": 7, "device": names["A"]} | expected


async def test_attribute_updates_and_deletions_name_their_device(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        await client.subscribe(ATTRIBUTES)
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        await client.until_updates(platform, names["A"], ATTRIBUTES)
        await platform.set_shared(names["A"], SHARED)
        assert (await client.message(ATTRIBUTES)).payload == {"device": names["A"], "data": SHARED}
        await platform.delete_shared(names["A"], ["s1"])
        assert (await client.message(ATTRIBUTES)).payload == {"device": names["A"], "data": {"deleted": ["s1"]}}


async def test_messages_arrive_without_a_subscription(platform, gateway, names):
    """A subscription only sets the QoS, because the platform subscribes sub-devices itself."""
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        await client.until_updates(platform, names["A"], ATTRIBUTES)
        await platform.set_shared(names["A"], SHARED)
        assert (await client.message(ATTRIBUTES)).payload == {"device": names["A"], "data": SHARED}


async def test_each_device_has_its_own_rpc_request_ids(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        await client.subscribe("v1/gateway/rpc")
        await connected(platform, gateway, names, client)
        for letter, number in [("A", 0), ("A", 1), ("B", 0)]:
            await platform.start_rpc(names[letter], "blink", {"times": 2})
            expected = {"device": names[letter], "data": {"id": number, "method": "blink", "params": {"times": 2}}}
            assert (await client.message("v1/gateway/rpc")).payload == expected


async def test_the_gateway_is_notified_of_renamed_and_deleted_devices(platform, gateway, names):
    topic = "v1/devices/me/rpc/request/+"
    async with probe(platform, gateway.token) as client:
        await client.subscribe(topic)
        await connected(platform, gateway, names, client)
        new_name = platform.name("renamed")
        await platform.rename(names["A"], new_name)
        message = await client.message()
        assert message.payload == {"method": "gateway_device_renamed", "params": {names["A"]: new_name}}
        await platform.delete(names["B"])
        message = await client.message()
        assert message.payload == {"method": "gateway_device_deleted", "params": names["B"]}


async def test_no_messages_arrive_for_a_disconnected_device(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        assert (await client.publish("v1/gateway/disconnect", {"device": names["A"]})).outcome == OK
        await platform.set_shared(names["A"], SHARED)
        assert (await client.received()).messages == []


@pytest.mark.parametrize("device_name", ["<script>", "{{name}}", "n" * 256, " "])
async def test_an_invalid_name_is_refused_late_with_0x80(platform, gateway, device_name):
    """A server sends the PUBACK after 13 to 20 seconds, as after a timeout."""
    patience = 60 if platform.patience else None
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": device_name}, patience=patience)).outcome == refused(0x80)


@pytest.mark.emulator_lacks("an empty name of data is refused by the core")
async def test_data_with_an_empty_name_is_refused_late_with_0x80(platform, gateway):
    async with probe(platform, gateway.token) as client:
        payload = {"": [{"a": 1}]}
        assert (await client.publish(TELEMETRY, payload, patience=60 if platform.patience else None)).outcome == refused(0x80)
