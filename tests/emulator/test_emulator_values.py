"""Accepted JSON and stored values in the emulator (docs/platform_contract.md, section 3)."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_mqtt import raw_client

from tb_mqtt_client.emulator import Emulator, ValueKind
from tb_mqtt_client.emulator import payloads as payloads_module
from tb_mqtt_client.emulator.payloads import BadPayloadError, decode_json
from tb_mqtt_client.emulator.values import stored

SUCCESS = (0x40, b"\0\x01")

VALUES = [
    ("null", "DROPPED", None),
    ("true", "BOOLEAN", True),
    ("false", "BOOLEAN", False),
    ("0", "LONG", 0),
    ("-7", "LONG", -7),
    ("9223372036854775807", "LONG", 2**63 - 1),
    ("-9223372036854775808", "LONG", -(2**63)),
    ("9223372036854775808", "STRING", "9223372036854775808"),
    ("-9223372036854775809", "STRING", "-9223372036854775809"),
    ("1e3", "LONG", 1000),
    ("1.5E3", "LONG", 1500),
    ("1e18", "LONG", 10**18),
    ("1e19", "STRING", "10000000000000000000"),
    ("1.0", "DOUBLE", 1.0),
    ("-0.0", "DOUBLE", 0.0),
    ("21.5", "DOUBLE", 21.5),
    ("10000000000000000.0", "DOUBLE", 1e16),
    ("1.5e-3", "DOUBLE", 0.0015),
    ("0.1234567890123456", "DOUBLE", 0.1234567890123456),
    ("0.12345678901234567", "STRING", "0.12345678901234567"),
    ("0.30000000000000004", "STRING", "0.30000000000000004"),
    # Written with more digits than necessary.
    ("0.10000000000000000", "STRING", "0.10000000000000000"),
    ("1e-16", "DOUBLE", 1e-16),
    ("1e-20", "STRING", "0.00000000000000000001"),
    ("NaN", "STRING", "NaN"),
    ("-Infinity", "STRING", "-Infinity"),
    ('"text"', "STRING", "text"),
    ('""', "STRING", ""),
    ('"7"', "LONG", 7),
    ('"007"', "LONG", 7),
    ('"-7"', "LONG", -7),
    ('"1.5"', "DOUBLE", 1.5),
    ('".5"', "DOUBLE", 0.5),
    ('"1.50"', "DOUBLE", 1.5),
    ('"0.12345678901234567"', "STRING", "0.12345678901234567"),
    ('"9223372036854775808"', "STRING", "9223372036854775808"),
    ('"1e3"', "STRING", "1e3"),
    ('"0x1"', "STRING", "0x1"),
    ('"+7"', "STRING", "+7"),
    ('"7."', "STRING", "7."),
    ('" 7"', "STRING", " 7"),
    ('"-"', "STRING", "-"),
    ('"1.2.3"', "STRING", "1.2.3"),
    ('"NaN"', "STRING", "NaN"),
    ('"99999999999999999999.5"', "STRING", "100000000000000000000"),
    ('"a\\u0000b"', "STRING", "ab"),
    ('{"a":[1]}', "JSON", {"a": [1]}),
    ("[]", "JSON", []),
]


@pytest.fixture(params=["fast", "slow"])
def parser(request, monkeypatch):
    """Return the parser with and without orjson."""
    if request.param == "slow":
        monkeypatch.setattr(payloads_module, "fast_loads", None)


@pytest.mark.parametrize(("text", "kind", "value"), VALUES, ids=[text for text, _, _ in VALUES])
@pytest.mark.usefixtures("parser")
async def test_values(emulator, text, kind, value):
    """Section 3: the table of stored values; attribute responses contain stored values."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", f'{{"ts":1,"values":{{"k":{text}}}}}')
        assert await client.read() == SUCCESS
        device = emulator.device("device")
        assert device.stored_telemetry == [(1, "k", kind, value)]
        client.publish("v1/devices/me/attributes", f'{{"k":{text}}}')
        assert await client.read() == SUCCESS
        assert device.stored_attributes == ({} if kind == "DROPPED" else {"k": (kind, value)})
        _, reply = await client.request("v1/devices/me/attributes/request/1", {"clientKeys": "k"})
        assert reply == ({} if kind == "DROPPED" else {"client": {"k": value}})
        assert device.counters.datapoints == (0 if kind == "DROPPED" else 2)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_places_decide_how_floats_are_stored(number):
    text = json.dumps(number)
    kind, value = stored(decode_json(text.encode()))
    if kind == ValueKind.DOUBLE:
        assert value == number
    elif kind == ValueKind.LONG:
        assert float(value) == number
        assert "e" in text
    else:
        assert float(value) == number
        assert len(value.partition(".")[2]) > 16 or abs(number) >= 2**63


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_every_value_has_a_stored_form(value):
    assert stored(value).kind in ValueKind


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("{a:1}", {"a": 1}),
        ("{'a':'it\\'s \"b\"'}", {"a": 'it\'s "b"'}),
        ('{"a":1 /* one */, // two\n "b":2 # three\n}', {"a": 1, "b": 2}),
        ('{"url":"http://host/#a:\'b\'"}', {"url": "http://host/#a:'b'"}),
        ('{"a":"line\nbreak"}', {"a": "line\nbreak"}),
        ('{"a":1,"a":2}', {"a": 2}),
        (b'{"a":"\xff"}', {"a": "\N{REPLACEMENT CHARACTER}"}),
        ("[Infinity]", [math.inf]),
    ],
)
@pytest.mark.usefixtures("parser")
def test_accepted_json(text, document):
    assert decode_json(text if isinstance(text, bytes) else text.encode()) == document


@pytest.mark.parametrize("text", ["", "{", '{"a":1}}', '{"a":1} {}', "nonsense", "{'a:1}", "[" * 100_000, '{"a" 1}'])
@pytest.mark.usefixtures("parser")
def test_refused_json(text):
    with pytest.raises(BadPayloadError):
        decode_json(text.encode())


@pytest.mark.parametrize(
    "key",
    ["", "  ", "k" * 256, "\N{GRINNING FACE}" * 128, "CO2 <ppm>", "List<int>", "0<x<1", "a<b", "< b", "{{x}}", "a\0b", "a\x1bb"],
)
async def test_an_invalid_key_loses_its_whole_record(emulator, key):
    """Section 3: the rule engine rejects the record after the PUBACK."""
    async with raw_client(emulator) as client:
        await client.connect()
        records = [{"ts": 1, "values": {key: 1, "b": 2}}, {"ts": 2, "values": {"k" * 255: 3}}]
        client.publish("v1/devices/me/telemetry", json.dumps(records))
        assert await client.read() == SUCCESS
        client.publish("v1/devices/me/attributes", json.dumps({key: 1, "b": 2}))
        assert await client.read() == SUCCESS
    device = emulator.device("device")
    assert [(point.ts, point.kind) for point in device.stored_telemetry] == [(1, "DROPPED"), (1, "DROPPED"), (2, "LONG")]
    assert device.stored_attributes == {}


@pytest.mark.parametrize("key", ["T<5", "p<0.05", "a & b", "a > b", "{x}", "\N{GRINNING FACE}" * 127 + "k"])
async def test_unusual_keys_that_are_stored(emulator, key):
    """See docs/platform_contract.md, section 3."""
    async with raw_client(emulator) as client:
        await client.connect()
        client.publish("v1/devices/me/telemetry", json.dumps({"ts": 1, "values": {key: 1}}))
        assert await client.read() == SUCCESS
    assert emulator.device("device").stored_telemetry == [(1, key, "LONG", 1)]


async def test_telemetry_from_the_year_10000_on_is_not_stored(emulator):
    """Section 3: it is acknowledged and lost; other records of the message are stored."""
    async with raw_client(emulator) as client:
        await client.connect()
        times = [253402300799999, 253402300800000, 2**62]
        client.publish("v1/devices/me/telemetry", json.dumps([{"ts": ts, "values": {"a": 1}} for ts in times]))
        assert await client.read() == SUCCESS
    assert [point.kind for point in emulator.device("device").stored_telemetry] == ["LONG", "DROPPED", "DROPPED"]


async def test_strings_may_be_limited():
    """Section 3: longer strings are refused; by default there is no limit."""
    async with Emulator(max_string_length=5, accept_any_token=True) as emulator, raw_client(emulator) as client:
        await client.connect()
        for topic in ("v1/devices/me/telemetry", "v1/devices/me/attributes"):
            client.publish(topic, '{"a":"12345"}')
            assert await client.read() == SUCCESS
            client.publish(topic, '{"a":"123456"}')
            assert await client.read() == (0x40, b"\0\x01\x99\0")
