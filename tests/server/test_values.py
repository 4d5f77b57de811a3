"""The table in docs/values.md is correct for the server: clients send each row, and the REST API returns the stored value."""

import json
import re
from pathlib import Path

import pytest

from tb_mqtt_client import DeviceClient, GatewayClient, TimeseriesEntry

DOCUMENT = (Path(__file__).parents[2] / "docs" / "values.md").read_text()
ROWS = re.findall(r"^\| `(.*)` \| `(.*)` \| (\w+)(?: `(.*)`)? \|$", DOCUMENT, re.MULTILINE)
KINDS = {int: "LONG", float: "DOUBLE", bool: "BOOLEAN", str: "STRING", list: "JSON", dict: "JSON"}
TS = 1_700_000_000_000
# The stored strings of rows that have no text in the table.
STRINGS = {"1e-20": "0.00000000000000000001", '""': ""}

SAFE_KEYS = ["T<5", "p<0.05", "a & b", "a>b", "{x}", "{", "}}", "<1", "a<", "1 <", "a.b"]
SAFE_KEYS += ['it\'s "quoted"', "Температура 温度 😀", "k" * 255]


def values():
    return {f"row {number}": eval(row[0]) for number, row in enumerate(ROWS)}  # the text is from this repository


def expected():
    return {
        f"row {number}": (kind, text or STRINGS.get(expression, ""))
        for number, (expression, _, kind, text) in enumerate(ROWS)
        if kind != "nothing"
    }


def shown(value):
    """Return the kind and the text of a stored value in the form of the table."""
    kind = KINDS[type(value)]
    return kind, json.dumps(value, separators=(",", ":")) if kind == "JSON" else str(value)


def test_all_rows_are_read():
    assert len(ROWS) == len(re.findall(r"^\| `", DOCUMENT, re.MULTILINE)) > 20


@pytest.mark.parametrize("kind", ["telemetry", "attributes"])
async def test_a_devices_values(tenant, device, client, eventually, kind):
    if kind == "telemetry":
        await client.send_timeseries({"ts": TS, "values": values()})
    else:
        await client.send_attributes(values())
    await eventually(lambda: stored(tenant, device.id, kind), expected())


@pytest.mark.parametrize("kind", ["telemetry", "attributes"])
async def test_a_sub_devices_values(tenant, gateway, eventually, kind):
    session, _ = await gateway.connect_device(tenant.name("sub-device"))
    if kind == "telemetry":
        await gateway.send_device_timeseries(session, {"ts": TS, "values": values()})
    else:
        await gateway.send_device_attributes(session, values())
    device = await tenant.until_device(session.device_info.device_name)
    await eventually(lambda: stored(tenant, device.id, kind), expected())


async def stored(tenant, device_id, kind):
    if kind == "attributes":
        return {key: shown(value) for key, value in (await tenant.attributes(device_id)).items()}
    return {key: shown(point.value) for key, point in (await tenant.latest(device_id)).items()}


async def test_floats_are_kept_as_text_without_rounding(tenant, address, device, eventually):
    async with DeviceClient(address | {"access_token": device.token, "round_floats": False}) as client:
        await client.send_attributes({"sum": 0.1 + 0.2, "plain": 0.25})
        assert client.statistics.values_stored_as_text == 1
    await eventually(lambda: tenant.attributes(device.id), {"sum": "0.30000000000000004", "plain": 0.25})


async def test_every_key_that_the_client_accepts_is_stored(tenant, device, client, eventually):
    """The client refuses keys that would lose their record, so all other keys can be sent together."""
    taken = {}
    for key in [
        "T<5",
        "p<0.05",
        "a & b",
        "a>b",
        "{x}",
        "a.b",
        'it\'s "quoted"',
        "Температура 温度 😀",
        "k" * 255,
        "{",
        "}}",
        "<1",
        "a<",
        "1 <",
    ]:
        TimeseriesEntry(key, 1)
        taken[key] = len(taken)
    await client.send_timeseries({"ts": TS, "values": taken})
    await client.send_attributes(taken)
    await eventually(lambda: tenant.attributes(device.id), taken)

    async def latest():
        return {key: point.value for key, point in (await tenant.latest(device.id)).items()}

    await eventually(latest, taken)


async def test_the_newest_timestamp_stays_the_latest(tenant, device, client, eventually):
    await client.send_timeseries({"ts": TS, "values": {"a": "newer"}})
    await client.send_timeseries({"ts": TS - 1000, "values": {"a": "older", "end": 1}})
    await eventually(lambda: keys(tenant, device), {"a", "end"})
    assert (await tenant.latest(device.id))["a"] == (TS, "newer")
    assert (await tenant.telemetry(device.id, ["a"]))["a"] == [(TS - 1000, "older"), (TS, "newer")]


async def keys(tenant, device):
    return set(await tenant.latest(device.id))


async def test_values_of_the_gateway_itself(tenant, address, gateway_device, eventually):
    async with GatewayClient(address | {"access_token": gateway_device.token}) as gateway:
        await gateway.send_timeseries({"ts": TS, "values": {"own": 1}})
        await gateway.send_attributes({"own": 2})
    await eventually(lambda: keys(tenant, gateway_device), {"own"})
    await eventually(lambda: tenant.attributes(gateway_device.id), {"own": 2})
