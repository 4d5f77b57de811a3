"""What a gateway's publish is answered with, and what the platform does with it (docs/platform_contract.md, section 4)."""

import json

import pytest
from probe import CLOSED, NOTHING, OK, disconnected, probe, refused

TS = 1_700_000_000_000
CONNECT = "v1/gateway/connect"
TELEMETRY = "v1/gateway/telemetry"
ATTRIBUTES = "v1/gateway/attributes"
REQUEST = "v1/gateway/attributes/request"
RESPONSE = "v1/gateway/attributes/response"
# A, B and N are names of devices: N is of none.
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
    # Strings are taken without quotes, too.
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
async def test_what_the_platform_takes_is_acknowledged(platform, gateway, names, topic, payload, version):
    async with probe(platform, gateway.token, version) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, named(payload, names))).outcome == OK


@pytest.mark.parametrize(("topic", "payload"), INVALID_JSON)
async def test_invalid_json_is_refused_and_the_connection_stays(platform, gateway, names, topic, payload):
    async with probe(platform, gateway.token) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, payload)).outcome == refused(0x99)


@pytest.mark.parametrize(("topic", "payload"), INCOMPLETE)
async def test_a_message_without_what_it_must_have_ends_the_connection(platform, gateway, names, topic, payload):
    async with probe(platform, gateway.token) as client:
        await connected(platform, gateway, names, client)
        assert (await client.publish(topic, named(payload, names))).outcome == disconnected(0x83, 0x83)


@pytest.mark.parametrize(("topic", "payload"), UNPARSABLE)
async def test_a_device_whose_part_cannot_be_read_decides_the_code(platform, gateway, names, topic, payload):
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
async def test_an_unknown_topic_is_refused_and_the_connection_stays(platform, gateway, topic):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(topic, "{}")).outcome == refused(0x90)


async def test_valid_data_of_qos_0_is_stored_and_answered_with_nothing(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        answers = await client.publish(TELEMETRY, {names["A"]: [{"ts": TS, "values": {"a": 1}}]}, qos=0)
        assert answers.outcome == NOTHING
        assert answers.messages == []
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
async def test_bad_data_of_qos_0(platform, gateway, names, payload, outcome):
    async with probe(platform, gateway.token) as client:
        answers = await client.publish(TELEMETRY, named(payload, names), qos=0)
        assert answers.outcome == outcome
        assert answers.messages == []
    async with probe(platform, gateway.token, version=4) as client:
        answers = await client.publish(TELEMETRY, named(payload, names), qos=0)
        assert (answers.outcome, answers.messages) == (CLOSED, [])


async def test_an_entry_of_the_wrong_container_is_skipped_and_the_others_are_stored(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        payload = {names["A"]: {"a": 1}, names["B"]: [{"ts": TS, "values": {"b": 1}}]}
        assert (await client.publish(TELEMETRY, payload)).outcome == OK
        await client.stored(lambda: platform.telemetry(names["B"]), {"b": [(TS, 1)]})
        assert (await client.publish(ATTRIBUTES, {names["A"]: [1], names["B"]: {"b": 1}})).outcome == OK
        await client.stored(lambda: platform.attributes(names["B"]), {"b": 1})


async def test_a_connect_gives_the_profile_and_an_uplink_alone_the_profile_default(platform, gateway, names):
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


# Requests and messages of the platform.

CLIENT = {"c1": 1, "c2": "two"}
SHARED = {"s1": True, "s2": 1.5}


@pytest.mark.parametrize(
    ("request_fields", "answer"),
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
async def test_the_shape_of_an_attribute_response(platform, gateway, names, request_fields, answer):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        assert (await client.publish(ATTRIBUTES, {names["A"]: CLIENT})).outcome == OK
        await client.stored(lambda: platform.attributes(names["A"]), CLIENT)
        await platform.set_shared(names["A"], SHARED)
        answers = await client.publish(REQUEST, {"id": 7, "device": names["A"]} | request_fields)
        assert answers.outcome == OK
        found = [message for message in answers.messages if message.topic == RESPONSE]
        message = found[0] if found else await client.message(RESPONSE)
        assert message.payload == {"id": 7, "device": names["A"]} | answer


async def test_attribute_updates_and_deletions_name_their_device(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        await client.subscribe(ATTRIBUTES)
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        await client.until_updates(platform, names["A"], ATTRIBUTES)
        await platform.set_shared(names["A"], SHARED)
        assert (await client.message(ATTRIBUTES)).payload == {"device": names["A"], "data": SHARED}
        await platform.delete_shared(names["A"], ["s1"])
        assert (await client.message(ATTRIBUTES)).payload == {"device": names["A"], "data": {"deleted": ["s1"]}}


async def test_messages_come_without_a_subscription(platform, gateway, names):
    """A subscription fixes the QoS only: the platform subscribes a sub-device itself."""
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        await client.until_updates(platform, names["A"], ATTRIBUTES)
        await platform.set_shared(names["A"], SHARED)
        assert (await client.message(ATTRIBUTES)).payload == {"device": names["A"], "data": SHARED}


async def test_rpc_is_numbered_for_each_device(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        await client.subscribe("v1/gateway/rpc")
        await connected(platform, gateway, names, client)
        for letter, number in [("A", 0), ("A", 1), ("B", 0)]:
            await platform.start_rpc(names[letter], "blink", {"times": 2})
            expected = {"device": names[letter], "data": {"id": number, "method": "blink", "params": {"times": 2}}}
            assert (await client.message("v1/gateway/rpc")).payload == expected


async def test_a_renamed_and_a_deleted_device_are_told_to_the_gateway(platform, gateway, names):
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


async def test_after_a_disconnect_nothing_comes_for_the_device(platform, gateway, names):
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": names["A"]})).outcome == OK
        assert (await client.publish("v1/gateway/disconnect", {"device": names["A"]})).outcome == OK
        await platform.set_shared(names["A"], SHARED)
        assert (await client.answers()).messages == []


@pytest.mark.parametrize("device_name", ["<script>", "{{name}}", "n" * 256, " "])
async def test_a_name_that_the_platform_refuses_is_answered_late_with_0x80(platform, gateway, device_name):
    """On a server after 13 to 20 seconds, as if it had no time."""
    patience = 60 if platform.patience else None
    async with probe(platform, gateway.token) as client:
        assert (await client.publish(CONNECT, {"device": device_name}, patience=patience)).outcome == refused(0x80)


@pytest.mark.emulator_lacks("an empty name of data is refused by the core")
async def test_an_empty_name_of_data_is_answered_late_with_0x80(platform, gateway):
    async with probe(platform, gateway.token) as client:
        payload = {"": [{"a": 1}]}
        assert (await client.publish(TELEMETRY, payload, patience=60 if platform.patience else None)).outcome == refused(0x80)
