"""``tb-mqtt store``: what it prints about a store, its integrity, and its data as input for ``send``."""

import json
import time


import pytest

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, StoreLog

OWNER = "platform.example:1883, credential 0123456789abcdef"
METER = DeviceIdentity("meter 1", "meter")


def uplinks():
    """Return sends of the connected device and of a sub-device, with telemetry and with attributes."""
    return [
        EncodedUplink.timeseries([{"ts": 5, "values": {"a": 1, "b": "ü"}}, {"ts": 6, "values": {"a": 2.5}}], 0),
        EncodedUplink.timeseries({"ts": 7, "values": {"kwh": 1}}, 0, METER),
        EncodedUplink.timeseries({"ts": 8, "values": {"kwh": [1, {"x": None}]}}, 0, METER),
        EncodedUplink.attributes({"serial": 7}),
        EncodedUplink.attributes({"state": "on", "mode": {"values": 1}}, METER),
    ]


def make_store(path, sends, ages=(), settled=()):
    """Make a store in which the sends were accepted some seconds ago."""
    now = time.time_ns() // 1_000_000
    log = StoreLog.open(str(path), OWNER)
    ages = [*ages, *([0] * (len(sends) - len(ages)))]
    log.commit([(send, 1 + index, now - 1000 * ages[index], 0, 0) for index, send in enumerate(sends)], [])
    log.commit([], list(settled))
    log.close()
    return path


@pytest.fixture
def queue(tmp_path):
    """Return the path of a store with all kinds of sends, in the folder in which commands run."""
    return make_store(tmp_path / "queue", uplinks(), ages=[2 * 86_400, 7200, 1])


def damage(queue):
    """Change a byte of the first send."""
    [file] = queue.glob("*.log")
    content = bytearray(file.read_bytes())
    content[content.index(b'"a":1')] ^= 1
    file.write_bytes(content)


async def test_inspect_counts_by_device_and_age(tb_mqtt, queue, tmp_path):
    done = await tb_mqtt("store", "inspect", "queue", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    total, owner, _, *rows = done.out.splitlines()
    assert total.startswith("queue: 8 datapoints in 5 sends, ")
    assert owner == f"for {OWNER}"
    cells = [row.split() for row in rows]
    assert ["(connected", "device)", "2", "3", "1"] in [row[:5] for row in cells]
    assert ["meter", "1", "3", "2", "2"] in [row[:5] for row in cells]
    assert [row[1:4] for row in cells if row[:1] == ["under"]] == [["1", "minute", "3"], ["1", "day", "1"], ["1", "week", "1"]]


async def test_inspect_as_json(tb_mqtt, queue):
    done = await tb_mqtt("store", "inspect", str(queue), "--json")
    found = done.json
    assert (found["path"], found["owner"]) == (str(queue), OWNER)
    assert (found["sends"], found["telemetry"], found["attributes"]) == (5, 5, 3)
    assert found["disk_bytes"] == sum(file.stat().st_size for file in queue.glob("*.log"))
    assert [(one["device"], one["sends"], one["telemetry"], one["attributes"]) for one in found["devices"]] == [
        (None, 2, 3, 1),
        ("meter 1", 3, 2, 2),
    ]
    assert [(one["under_seconds"], one["sends"]) for one in found["ages"]] == [
        (60, 3),
        (3600, 0),
        (86_400, 1),
        (604_800, 1),
        (None, 0),
    ]
    assert found["newest_ms"] - found["oldest_ms"] >= 2 * 86_400_000


async def test_settled_sends_are_not_shown(tb_mqtt, tmp_path):
    make_store(tmp_path / "queue", uplinks(), settled=[1, 4])
    done = await tb_mqtt("store", "inspect", "queue", "--json", cwd=tmp_path)
    assert [one["device"] for one in done.json["devices"]] == ["meter 1"]


async def test_an_empty_store(tb_mqtt, tmp_path):
    make_store(tmp_path / "queue", uplinks(), settled=[1, 2, 3, 4, 5])
    done = await tb_mqtt("store", "inspect", "queue", cwd=tmp_path)
    assert done.out.splitlines()[0].startswith("queue: 0 datapoints in 0 sends, 0 bytes")
    assert len(done.out.splitlines()) == 2
    exported = await tb_mqtt("store", "export", "queue", cwd=tmp_path)
    assert (exported.code, exported.out) == (0, "")
    assert exported.err == "queue has no telemetry to export\n"


async def test_verify_a_sound_store(tb_mqtt, queue, tmp_path):
    done = await tb_mqtt("store", "verify", "queue", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("✓ 1 file, ")
    assert done.out.endswith("with correct checksums, 8 datapoints to send\n")


async def test_verify_a_damaged_store(tb_mqtt, queue, tmp_path):
    damage(queue)
    before = {file.name: file.read_bytes() for file in queue.iterdir()}
    done = await tb_mqtt("store", "verify", "queue", cwd=tmp_path)
    assert done.code == 1
    assert "cannot be read" in done.out
    assert "3 datapoints to send" in done.out.splitlines()[-1]
    found = (await tb_mqtt("store", "verify", "queue", "--json", cwd=tmp_path)).json
    assert found["damaged_places"] + len(found["faults"]) == 1
    assert found["damaged_bytes"] + sum(fault["nbytes"] for fault in found["faults"]) > 0
    assert {file.name: file.read_bytes() for file in queue.iterdir()} == before


async def test_inspect_shows_damage_and_the_quarantine(tb_mqtt, queue, tmp_path):
    damage(queue)
    done = await tb_mqtt("store", "inspect", "queue", cwd=tmp_path)
    assert done.code == 0
    assert "bytes cannot be read; tb-mqtt store verify has details" in done.err
    # The client moves the damage aside when it opens the store.
    StoreLog.open(str(queue), OWNER).close()
    done = await tb_mqtt("store", "inspect", "queue", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith("quarantine: 1 file with ")
    assert (await tb_mqtt("store", "verify", "queue", cwd=tmp_path)).code == 0


async def test_export_telemetry(tb_mqtt, queue, tmp_path):
    done = await tb_mqtt("store", "export", "queue", cwd=tmp_path)
    assert done.code == 0
    assert done.lines == [
        {"ts": 5, "values": {"a": 1, "b": "ü"}},
        {"ts": 6, "values": {"a": 2.5}},
        {"device": "meter 1", "ts": 7, "values": {"kwh": 1}},
        {"device": "meter 1", "ts": 8, "values": {"kwh": [1, {"x": None}]}},
    ]
    assert "export --own and --sub-devices into two files" in done.err


@pytest.mark.parametrize(
    ("arguments", "times"),
    [(["--own"], [5, 6]), (["--sub-devices"], [7, 8]), (["--device", "meter 1"], [7, 8]), (["--device", "meter 2"], [])],
)
async def test_export_of_some_devices(tb_mqtt, queue, arguments, times):
    done = await tb_mqtt("store", "export", str(queue), *arguments)
    assert [line["ts"] for line in done.lines] == times
    assert ("two files" in done.err) is False


async def test_export_attributes(tb_mqtt, queue):
    done = await tb_mqtt("store", "export", str(queue), "--attributes")
    assert done.lines == [
        {"values": {"serial": 7}},
        {"device": "meter 1", "values": {"state": "on", "mode": {"values": 1}}},
    ]


async def test_a_key_that_occurs_twice_in_a_send_is_exported_twice(tb_mqtt, tmp_path):
    send = EncodedUplink.timeseries([{"ts": 5, "values": {"a": 1}}, {"ts": 5, "values": {"a": 2}}], 0)
    make_store(tmp_path / "queue", [send])
    done = await tb_mqtt("store", "export", "queue", cwd=tmp_path)
    assert [line["values"] for line in done.lines] == [{"a": 1}, {"a": 2}]


async def test_what_export_prints_can_be_sent(tb_mqtt, queue, emulator, device, gateway):
    own = await tb_mqtt("store", "export", str(queue), "--own")
    sent = await tb_mqtt("send", "--ts-unit", "ms", input=own.out, env=device)
    assert sent.code == 0
    assert [(point.ts, point.key, point.value) for point in emulator.device("device").telemetry] == [
        (5, "a", 1),
        (5, "b", "ü"),
        (6, "a", 2.5),
    ]
    of_sub_devices = await tb_mqtt("store", "export", str(queue), "--sub-devices")
    assert (await tb_mqtt("send", "--gateway", "--ts-unit", "ms", input=of_sub_devices.out, env=gateway)).code == 0
    assert [point.value for point in emulator.device("meter 1").telemetry] == [1, [1, {"x": None}]]
    attributes = await tb_mqtt("store", "export", str(queue), "--sub-devices", "--attributes")
    assert (await tb_mqtt("send", "--gateway", "--attributes", input=attributes.out, env=gateway)).code == 0
    assert emulator.device("meter 1").attributes == {"state": "on", "mode": {"values": 1}}


async def test_names_of_devices_cannot_act_on_the_terminal(tb_mqtt, tmp_path):
    send = EncodedUplink.timeseries({"a": 1}, 0, DeviceIdentity("\x1b[2Jevil\nname"))
    make_store(tmp_path / "queue", [send])
    done = await tb_mqtt("store", "inspect", "queue", cwd=tmp_path)
    assert "\x1b" not in done.out
    assert r"\u001b[2Jevil\u000aname" in done.out or r"\x1b" in done.out
    exported = await tb_mqtt("store", "export", "queue", cwd=tmp_path)
    assert "\x1b" not in exported.out
    assert json.loads(exported.out)["device"] == "\x1b[2Jevil\nname"


@pytest.mark.parametrize("command", ["inspect", "verify", "export"])
async def test_there_is_no_store(tb_mqtt, tmp_path, command):
    done = await tb_mqtt("store", command, "nosuch", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "nosuch is not a store" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["inspect", "verify", "export"])
async def test_a_store_that_a_client_uses_can_be_read(tb_mqtt, queue, command):
    log = StoreLog.open(str(queue), OWNER)
    assert (await tb_mqtt("store", command, str(queue))).code == 0
    log.close()


async def test_two_choices_of_devices_are_refused(tb_mqtt, queue):
    done = await tb_mqtt("store", "export", str(queue), "--own", "--device", "meter 1")
    assert done.code == 2
    assert "--own, --sub-devices and --device: give only one of them" in done.err
