"""Stored values, and values that are lost after the PUBACK (docs/platform_contract.md, section 3)."""

import pytest
from probe import NOTHING, OK, probe

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
TS = 1_700_000_000_000
LOST = object()


# The JSON text and the stored value with its stored type; LOST if no value is stored.
VALUES = [
    ("1", 1),
    ("-9223372036854775808", -(2**63)),
    ("9223372036854775807", 2**63 - 1),
    ("9223372036854775808", "9223372036854775808"),
    ("1e3", 1000),
    ("1e18", 10**18),
    ("1e19", "10000000000000000000"),
    ("1.0", 1.0),
    ("0.1", 0.1),
    ("1.5e-7", 1.5e-07),
    ("0.3000000000000000", 0.3),
    ("0.30000000000000004", "0.30000000000000004"),
    ("0.1234567890123456", 0.1234567890123456),
    ("0.12345678901234567", "0.12345678901234567"),
    ("1e-20", "0.00000000000000000001"),
    ("true", True),
    ("false", False),
    ('"text"', "text"),
    ('""', ""),
    ('"7"', 7),
    ('"007"', 7),
    ('"-7"', -7),
    ('"1.50"', 1.5),
    ('"1e3"', "1e3"),
    ('"0x1F"', "0x1F"),
    ('"+7"', "+7"),
    ('" 7"', " 7"),
    ('"7."', "7."),
    ('".7"', 0.7),
    ('"-"', "-"),
    ('"99999999999999999999"', "99999999999999999999"),
    ('"0.30000000000000004"', "0.30000000000000004"),
    ('"99999999999999999999.5"', "100000000000000000000"),
    ('"true"', "true"),
    ('"a\\u0000b"', "ab"),
    ('"über 𝄞"', "über 𝄞"),
    ('"a\\u0001b"', "a\x01b"),
    ('"a\\nb"', "a\nb"),
    ('{"x":[1,null,0.30000000000000004]}', {"x": [1, None, 0.30000000000000004]}),
    ("[]", []),
    ("{}", {}),
    ("null", LOST),
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
]


async def test_every_value_is_stored_with_its_type(platform, device):
    """Send each value in its own message, so that a lost value does not affect others."""
    expected = {f"k{number}": value for number, (_, value) in enumerate(VALUES) if value is not LOST}
    async with probe(platform, device.token) as client:
        for number, (text, _) in enumerate(VALUES):
            assert (await client.publish(TELEMETRY, f'{{"ts":{TS},"values":{{"k{number}":{text}}}}}')).outcome == OK, text
            assert (await client.publish(ATTRIBUTES, f'{{"k{number}":{text}}}')).outcome == OK, text
    await client.stored(lambda: typed_attributes(platform, device), {key: typed(value) for key, value in expected.items()})
    await client.stored(lambda: typed_telemetry(platform, device), {key: [(TS, typed(value))] for key, value in expected.items()})


def typed(value):
    """Return the value with its type, because Python considers 1, 1.0 and True equal."""
    return type(value).__name__, value


async def typed_attributes(platform, device):
    return {key: typed(value) for key, value in (await platform.attributes(device.name)).items()}


async def typed_telemetry(platform, device):
    found = await platform.telemetry(device.name)
    return {key: [(ts, typed(value)) for ts, value in points] for key, points in found.items()}


async def settled(platform, device, client):
    """Wait until earlier publishes are stored or lost, by waiting for datapoints that follow them."""
    for barrier in ("barrier 1", "barrier 2"):
        assert (await client.publish(TELEMETRY, {"ts": TS, "values": {barrier: 1}})).outcome == OK
        await client.stored(lambda barrier=barrier: has(platform, device, barrier), True)


async def has(platform, device, key):
    return key in await platform.telemetry(device.name)


async def others(platform, device):
    found = await platform.telemetry(device.name)
    return {key: points for key, points in found.items() if not key.startswith("barrier")}


REFUSED_KEYS = {
    "256 characters": "k" * 256,
    "128 emoji": "😀" * 128,
    "blank": " ",
    "empty": "",
    "a tag": "<script>",
    "a unit in brackets": "CO2 <ppm>",
    "a generic type": "List<int>",
    "a chain of comparisons": "0<x<1",
    "a comparison of letters": "a<b",
    "an interpolation": "{{x}}",
    "NUL": "a\0b",
}
NO_TAG = "a comparison with blanks"
TAKEN_KEYS = {
    "255 characters": "k" * 255,
    "127 emoji": "😀" * 127,
    "a comparison": "T<5",
    "a probability": "p<0.05",
    "an ampersand": "a & b",
    NO_TAG: "a < b",
    "a closing tag": "a</b",
    "a closing bracket": "a>b",
    "one brace": "{x}",
    "a dot and a comma": "a.b,c",
    "other alphabets": "Температура 温度",
    "quotes": 'it\'s "quoted"',
}


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, id=name, marks=pytest.mark.emulator_lacks("a tag begins without a blank") if name == NO_TAG else ())
        for name, key in TAKEN_KEYS.items()
    ],
)
async def test_a_key_that_is_stored(platform, device, key):
    async with probe(platform, device.token) as client:
        assert (await client.publish(TELEMETRY, {"ts": TS, "values": {key: 1, "other": 2}})).outcome == OK
        await client.stored(lambda: others(platform, device), {key: [(TS, 1)], "other": [(TS, 2)]})
        assert (await client.publish(ATTRIBUTES, {key: 1, "other": 2})).outcome == OK
        await client.stored(lambda: platform.attributes(device.name), {key: 1, "other": 2})


@pytest.mark.parametrize("key", REFUSED_KEYS.values(), ids=REFUSED_KEYS)
async def test_a_key_that_loses_its_acknowledged_record(platform, device, key):
    async with probe(platform, device.token) as client:
        records = [{"ts": TS, "values": {key: 1, "same record": 2}}, {"ts": TS + 1, "values": {"other record": 3}}]
        assert (await client.publish(TELEMETRY, records)).outcome == OK
        assert (await client.publish(ATTRIBUTES, {key: 1, "other": 2})).outcome == OK
        await settled(platform, device, client)
        assert await others(platform, device) == {"other record": [(TS + 1, 3)]}
        assert await platform.attributes(device.name) == {}


async def test_an_acknowledged_timestamp_from_the_year_10000_on_is_lost(platform, device):
    last = 253_402_300_799_999
    async with probe(platform, device.token) as client:
        records = [{"ts": ts, "values": {"k": ts - last}} for ts in (TS, last, last + 1)]
        assert (await client.publish(TELEMETRY, records)).outcome == OK
        await settled(platform, device, client)
        assert await others(platform, device) == {"k": [(TS, TS - last), (last, 0)]}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"ts": TS, "values": {"a": 1, "b": None}}, {"a": [(TS, 1)]}),
        ([{"ts": TS, "values": {"a": 1}}, {"ts": TS + 1, "values": {"a": 2}}], {"a": [(TS, 1), (TS + 1, 2)]}),
        ({"ts": str(TS), "values": {"a": 1}}, {"a": [(TS, 1)]}),
        ('{"ts":1700000000000,"values":{"a":1,"a":2}}', {"a": [(TS, 2)]}),
        ('{"ts":1700000000000.9,"values":{"a":1}}', {"a": [(TS, 1)]}),
    ],
)
async def test_forms_of_telemetry(platform, device, payload, expected):
    async with probe(platform, device.token) as client:
        assert (await client.publish(TELEMETRY, payload)).outcome == OK
        await client.stored(lambda: others(platform, device), expected)


@pytest.mark.parametrize(
    ("payload", "keys"), [({"ts": TS}, {"ts"}), ({"values": {"a": 1}}, {"values"}), ({"ts": TS, "a": 1}, {"ts", "a"})]
)
async def test_ts_and_values_have_a_meaning_only_together(platform, device, payload, keys):
    async with probe(platform, device.token) as client:
        assert (await client.publish(TELEMETRY, payload)).outcome == OK

        async def found():
            return set(await others(platform, device))

        await client.stored(found, keys)


async def test_all_records_of_a_message_without_ts_get_one_time_of_arrival(platform, device):
    """Of two values of one key, one is left; the client sends them in two messages."""
    async with probe(platform, device.token) as client:
        records = [{"a": 1}, {"b": 2}, {"ts": TS, "values": {"a": 3}}, {"a": 4}]
        assert (await client.publish(TELEMETRY, records)).outcome == OK

        async def found():
            return {key: [value for _, value in sorted(points)] for key, points in (await others(platform, device)).items()}

        await client.stored(found, {"a": [3, 4], "b": [2]})
        points = await others(platform, device)
        assert max(ts for ts, _ in points["a"]) == points["b"][0][0] > TS


async def test_the_last_value_of_a_timestamp_wins(platform, device):
    async with probe(platform, device.token) as client:
        for value in (1, 2, 3):
            assert (await client.publish(TELEMETRY, {"ts": TS, "values": {"a": value}})).outcome == OK
        await settled(platform, device, client)
        assert await others(platform, device) == {"a": [(TS, 3)]}


async def test_an_empty_list_stores_no_values_and_the_next_publish_is_acknowledged(platform, device):
    async with probe(platform, device.token) as client:
        assert (await client.publish(TELEMETRY, "[]")).outcome == NOTHING
        assert (await client.publish(TELEMETRY, {"ts": TS, "values": {"a": 1}})).outcome == OK
        await client.stored(lambda: others(platform, device), {"a": [(TS, 1)]})
