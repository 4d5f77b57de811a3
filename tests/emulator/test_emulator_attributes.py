"""Attributes in the emulator: updates, deletions and requests (docs/platform_contract.md, sections 2 and 4)."""

import json

import pytest
from raw_mqtt import raw_client


@pytest.fixture
async def attributes(emulator):
    """Yield an emulator in which a device and a sub-device have attributes in both scopes."""
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        await client.read()
    for name in ("device", "A"):
        emulator.device(name).attributes.update({"a": 1, "b": {"c": [None]}})
        await emulator.set_shared_attributes(name, {"a": "x", "": "empty"})
    return emulator


@pytest.mark.parametrize("topic", ["v1/devices/me/attributes", "v2/a", "v2/a/j"], ids=lambda topic: topic.replace("/", "-"))
async def test_updates_need_a_subscription(emulator, topic):
    assert not await emulator.set_shared_attributes("device", {"a": 0})
    async with raw_client(emulator) as client:
        await client.connect()
        assert not await emulator.set_shared_attributes("device", {"a": 1})
        await client.subscribe(topic)
        assert await emulator.set_shared_attributes("TOKEN", {"b": [2]})
        assert await client.message() == (topic, {"b": [2]})
        assert await emulator.delete_shared_attributes("device", ["b", "unknown"])
        assert await client.message() == (topic, {"deleted": ["b", "unknown"]})
        await client.unsubscribe(topic)
        assert not await emulator.set_shared_attributes("device", {"c": 3})
        assert await client.silent()
    assert emulator.device("device").shared_attributes == {"a": 1, "c": 3}


async def test_updates_follow_the_latest_subscription(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        await client.subscribe("v1/devices/me/attributes", "v2/a")
        await emulator.set_shared_attributes("device", {"a": 1})
        assert await client.message() == ("v2/a", {"a": 1})
        assert await client.silent()


async def test_sub_devices_are_subscribed_by_their_session(emulator):
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/connect", '{"device":"A"}')
        await client.read()
        assert await emulator.set_shared_attributes("A", {"a": 1})
        assert await client.message() == ("v1/gateway/attributes", {"device": "A", "data": {"a": 1}})
        assert await emulator.delete_shared_attributes("A", ["a"])
        assert await client.message() == ("v1/gateway/attributes", {"device": "A", "data": {"deleted": ["a"]}})
        client.publish("v1/gateway/disconnect", '{"device":"A"}')
        await client.read()
        assert not await emulator.set_shared_attributes("A", {"a": 2})
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        assert not await emulator.set_shared_attributes("A", {"a": 3})


@pytest.mark.parametrize(
    ("request_topic", "response_topic"),
    [
        ("v1/devices/me/attributes/request/5", "v1/devices/me/attributes/response/5"),
        ("v2/a/req/5", "v2/a/res/5"),
        ("v2/a/req/j/5", "v2/a/res/j/5"),
    ],
)
async def test_a_response_uses_the_topic_family_of_its_request(attributes, request_topic, response_topic):
    async with raw_client(attributes) as client:
        await client.connect()
        assert await client.request(request_topic, {"sharedKeys": "a"}) == (response_topic, {"shared": {"a": "x"}})


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ({"clientKeys": "a", "sharedKeys": "a"}, {"client": {"a": 1}, "shared": {"a": "x"}}),
        ({"clientKeys": "a,b"}, {"client": {"a": 1, "b": {"c": [None]}}}),
        ({"sharedKeys": "a,unknown"}, {"shared": {"a": "x"}}),
        ({"sharedKeys": "unknown"}, {}),
        ({"sharedKeys": "a,"}, {"shared": {"a": "x"}}),
        ({}, {"client": {"a": 1, "b": {"c": [None]}}, "shared": {"a": "x", "": "empty"}}),
    ],
)
async def test_requests(attributes, request_, reply):
    """Section 2: empty scopes are omitted; `{}` requests all attributes."""
    async with raw_client(attributes) as client:
        await client.connect()
        assert await client.request("v1/devices/me/attributes/request/1", request_) == (
            "v1/devices/me/attributes/response/1",
            reply,
        )


@pytest.mark.parametrize("request_", [{"clientKeys": ""}, {"sharedKeys": ""}, {"clientKeys": "a", "sharedKeys": ",a"}])
async def test_a_request_with_an_empty_key_gets_no_response(attributes, request_):
    """Section 2: the request is acknowledged, but the platform does not report its error."""
    async with raw_client(attributes) as client:
        await client.connect()
        client.publish("v1/devices/me/attributes/request/1", json.dumps(request_))
        assert await client.read() == (0x40, b"\0\x01")
        assert await client.silent()


@pytest.mark.parametrize("payload", ["", "[]", "1", "nonsense", '{"clientKeys":["a"]}', '{"sharedKeys":null}'])
async def test_bad_requests(attributes, payload):
    async with raw_client(attributes) as client:
        await client.connect()
        client.publish("v1/devices/me/attributes/request/1", payload)
        assert await client.read() == (0x40, b"\0\x01\x99\0")
        assert await client.silent()


async def test_a_request_id_must_be_a_number(emulator):
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/attributes/request/x", "{}")
        assert await client.read() == (0x40, b"\0\x01\x99\0")


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ({"client": True, "key": "a"}, {"value": 1}),
        ({"client": True, "keys": ["a"]}, {"value": 1}),
        ({"client": False, "key": "a"}, {"value": "x"}),
        ({"client": True, "keys": ["a", "b"]}, {"values": {"a": 1, "b": {"c": [None]}}}),
        ({"client": False, "keys": ["a", "unknown"]}, {"values": {"a": "x"}}),
        ({"client": False, "keys": ["unknown", "other"]}, {}),
        ({"client": False, "key": "unknown"}, {}),
        # Without a key the response has all attributes of both scopes, independently of `client`.
        ({"client": True, "keys": []}, {"values": {"a": "x", "b": {"c": [None]}, "": "empty"}}),
        ({"client": False, "keys": []}, {"values": {"a": "x", "b": {"c": [None]}, "": "empty"}}),
    ],
)
async def test_gateway_requests(attributes, request_, reply):
    """Section 4: the response has `value` for one key, `values` for several, and neither if no attribute was found."""
    async with raw_client(attributes) as client:
        await client.connect("GATEWAY")
        assert await client.request("v1/gateway/attributes/request", {"id": 7, "device": "A"} | request_) == (
            "v1/gateway/attributes/response",
            {"id": 7, "device": "A"} | reply,
        )


@pytest.mark.parametrize(
    "payload",
    [
        "[]",
        "{}",
        '{"id":1,"device":"A","client":true}',
        '{"id":1,"device":"A","key":"a"}',
        '{"id":1,"client":true,"key":"a"}',
        '{"device":"A","client":true,"key":"a"}',
        '{"id":1,"device":"A","client":["a"],"shared":["b"]}',
    ],
)
async def test_invalid_gateway_requests_close_the_connection(emulator, payload):
    """Sections 4 and 9: `client` and the keys are required; the form in ThingsBoard's documentation is refused."""
    async with raw_client(emulator) as client:
        await client.connect("GATEWAY")
        client.publish("v1/gateway/attributes/request", payload)
        assert await client.read() == (0x40, b"\0\x01\x83\0")
        assert await client.read() == (0xE0, b"\x83\0")
        assert await client.read() is None


@pytest.mark.parametrize("topic", ["v2/t/p", "v2/a/p", "v2/a/req/p/1", "v2/r/req/p/1", "v2/r/res/p/1"])
async def test_protobuf_is_refused(emulator, topic):
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish(topic, b"\x08\x01")
        assert await client.read() == (0x40, b"\0\x01\x99\0")
