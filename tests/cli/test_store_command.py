"""``tb-mqtt store``: what it prints about a store, its integrity, and its data as input for ``send``."""

import asyncio
import json
import time

import pytest

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink, StoreLog
from tb_mqtt_client.emulator import Verdict

OWNER = "platform.example:1883 0123456789abcdef"
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
    assert owner == "for platform.example:1883"
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
        {"device": "meter 1", "ts": 7, "profile": "meter", "values": {"kwh": 1}},
        {"device": "meter 1", "ts": 8, "profile": "meter", "values": {"kwh": [1, {"x": None}]}},
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
        {"device": "meter 1", "profile": "meter", "values": {"state": "on", "mode": {"values": 1}}},
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


def detailed(now):
    """Return sends with everything that the log keeps of one: (uplink, number, accepted, priority, expiry)."""
    expires = now + 3_600_000
    other = DeviceIdentity("meter 2", "default")
    return [
        (EncodedUplink.timeseries({"ts": 5, "values": {"kwh": 1}}, 0, METER, True, ('opc "ü"\n', now)), 1, now, 0, 0),
        (EncodedUplink.timeseries({"ts": 6, "values": {"kwh": 2}}, 0, METER, True, ("opc", 7)), 2, now, 2, expires),
        (EncodedUplink.timeseries({"ts": 7, "values": {"alarm": True, "values": {"ts": 1}}}, 0, other), 3, now, 1, expires),
        (EncodedUplink.timeseries({"ts": 8, "values": {"kwh": 2**70}}, 0, other), 4, now, 0, 0),
        (EncodedUplink.attributes({"mode": "eco"}, METER), 5, now, 1, 0),
        (EncodedUplink.attributes({"mode": 1e22}, other), 6, now, 0, expires),
    ]


@pytest.fixture
def detailed_queue(tmp_path):
    now = time.time_ns() // 1_000_000
    log = StoreLog.open(str(tmp_path / "queue"), OWNER)
    log.commit(detailed(now), [])
    log.close()
    return tmp_path / "queue", now


async def test_export_with_metadata_priority_and_expiry(tb_mqtt, detailed_queue):
    queue, now = detailed_queue
    metadata = {"connector": 'opc "ü"\n', "receivedTs": now}
    expires = now + 3_600_000
    telemetry = (await tb_mqtt("store", "export", str(queue))).lines
    assert sorted(telemetry, key=lambda line: line["ts"]) == [
        {"device": "meter 1", "ts": 5, "profile": "meter", "metadata": metadata, "values": {"kwh": 1}},
        {
            "device": "meter 1",
            "ts": 6,
            "profile": "meter",
            "metadata": {"connector": "opc", "receivedTs": 7},
            "priority": "low",
            "expires": expires,
            "values": {"kwh": 2},
        },
        {"device": "meter 2", "ts": 7, "priority": "high", "expires": expires, "values": {"alarm": True, "values": {"ts": 1}}},
        {"device": "meter 2", "ts": 8, "values": {"kwh": 2**70}},
    ]
    assert (await tb_mqtt("store", "export", str(queue), "--attributes")).lines == [
        {"device": "meter 1", "profile": "meter", "priority": "high", "values": {"mode": "eco"}},
        {"device": "meter 2", "expires": expires, "values": {"mode": 1e22}},
    ]


async def test_an_export_that_is_stored_again_is_the_same(tb_mqtt, detailed_queue, gateway, tmp_path):
    queue, _ = detailed_queue
    for option in ((), ("--attributes",)):
        exported = await tb_mqtt("store", "export", str(queue), *option)
        copy = str(tmp_path / f"copy{len(option)}")
        stored = await tb_mqtt("send", "--store", copy, "--gateway", "--ts-unit", "ms", *option, env=gateway, input=exported.out)
        assert stored.code == 0
        assert (await tb_mqtt("store", "export", copy, *option)).out == exported.out


async def test_an_export_is_sent_with_its_metadata_and_without_what_has_expired(tb_mqtt, detailed_queue, emulator, gateway):
    queue, now = detailed_queue
    exported = (await tb_mqtt("store", "export", str(queue))).lines
    for line in exported:
        if line["ts"] == 7:
            line["expires"] = now - 1000
    again = "".join(f"{json.dumps(line)}\n" for line in exported)
    sent = await tb_mqtt("send", "--gateway", "--ts-unit", "ms", "--json", env=gateway, input=again)
    assert (sent.code, sums(sent)) == (1, {"acknowledged": 3, "dropped": 2})
    assert emulator.device("meter 1").profile == "meter"
    assert emulator.device("meter 2").profile == "default"
    assert [(point.ts, point.value) for point in emulator.device("meter 1").telemetry] == [(5, 1), (6, 2)]
    described = [(one["connector"], one["receivedTs"]) for one in emulator.device("meter 1").metadata]
    assert described == [('opc "ü"\n', now), ("opc", 7)]
    assert [point.ts for point in emulator.device("meter 2").telemetry] == [8]


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


def sums(run):
    """Return what ``--json`` printed about datapoints, without the counts that are 0."""
    names = ("recovered", "acknowledged", "rejected", "dropped", "undelivered", "queued", "in_flight", "kept")
    return {name: run.json[name] for name in names if run.json[name]}


async def test_store_without_a_network_and_drain_later(tb_mqtt, emulator, device, tmp_path):
    away = device | {"TB_HOST": "platform.invalid"}
    stored = await tb_mqtt("send", "--store", "queue", "a=1", "b=text", "--ts", "1700000000000", env=away, cwd=tmp_path)
    assert (stored.code, stored.err) == (0, "")
    assert stored.out.splitlines()[0] == f"✓ stored 2 datapoints in queue, for platform.invalid:{emulator.port}"
    assert stored.out.splitlines()[1].endswith("; 2 to send in the store")
    # The store is for another platform than the emulator.
    refused = await tb_mqtt("store", "drain", "queue", env=device, cwd=tmp_path)
    assert refused.code == 2
    assert "another platform or another credential" in refused.err
    assert (await tb_mqtt("store", "inspect", "queue", "--json", cwd=tmp_path)).json["telemetry"] == 2


async def test_store_and_drain(tb_mqtt, emulator, device, tmp_path):
    for value in range(3):
        stored = await tb_mqtt("send", "--store", "queue", f"a={value}", "--json", env=device, cwd=tmp_path)
        assert (stored.code, stored.json["stored"], stored.json["in_store"]) == (0, 1, value + 1)
    attributes = await tb_mqtt("send", "--store", "queue", "serial=7", "--attributes", env=device, cwd=tmp_path)
    assert attributes.code == 0
    assert emulator.device("device").telemetry == []
    drained = await tb_mqtt("store", "drain", "queue", env=device, cwd=tmp_path)
    assert (drained.code, drained.err) == (0, "")
    assert drained.out.splitlines()[0] == "✓ found 4 = acknowledged 4 datapoints"
    assert [point.value for point in emulator.device("device").telemetry] == [0, 1, 2]
    assert emulator.device("device").attributes == {"serial": 7}
    again = await tb_mqtt("store", "drain", "queue", env=device | {"TB_PORT": "1"}, cwd=tmp_path)
    assert (again.code, again.out) == (0, "✓ queue is empty\n")


async def test_store_a_file_for_sub_devices_and_drain(tb_mqtt, emulator, gateway, tmp_path):
    rows = [f"{ts},meter {ts % 20},{ts / 2}" for ts in range(1, 3001)]
    (tmp_path / "history.csv").write_text("\n".join(["ts,meter,kwh", *rows]))
    arguments = ("--device-field", "meter", "--device-profile", "meter", "--file", "history.csv", "--json")
    stored = await tb_mqtt("send", "--store", "queue", *arguments, env=gateway, cwd=tmp_path)
    assert (stored.code, stored.json["stored"], stored.json["records"]) == (0, 3000, 3000)
    drained = await tb_mqtt("store", "drain", "queue", "--json", env=gateway, cwd=tmp_path)
    assert (drained.code, sums(drained)) == (0, {"recovered": 3000, "acknowledged": 3000})
    assert emulator.counters.telemetry_datapoints == 3000
    assert emulator.device("meter 7").profile == "meter"


async def test_a_bad_line_does_not_cost_the_records_before_it(tb_mqtt, device, tmp_path):
    records = '{"ts":5,"values":{"a":1}}\n{"ts":"yesterday","a":2}\n{"ts":7,"values":{"a":3}}\n'
    stopped = await tb_mqtt("send", "--store", "queue", env=device, input=records, cwd=tmp_path)
    assert stopped.code == 2
    assert "Stopped at line 2" in stopped.err
    assert "stored 1 datapoint in queue" in stopped.out
    skipped = await tb_mqtt("send", "--store", "queue", "--skip-bad", "--json", env=device, input=records, cwd=tmp_path)
    assert (skipped.code, skipped.json["stored"], skipped.json["bad_lines"], skipped.json["in_store"]) == (5, 2, 1, 3)


async def test_a_device_that_the_platform_can_never_have(tb_mqtt, device, tmp_path):
    """Its records are bad lines, as they are without a store."""
    records = '{"device":"a\\u0000b","values":{"a":1}}\n{"device":"meter","values":{"a":1}}\n'
    arguments = ("--gateway", "--skip-bad", "--json")
    done = await tb_mqtt("send", "--store", "queue", *arguments, env=device, input=records, cwd=tmp_path)
    assert (done.code, done.json["stored"], done.json["bad_lines"]) == (5, 1, 1)
    assert "line 1: Device name must not have a NUL" in done.err


async def test_a_value_that_cannot_be_stored_on_the_platform(tb_mqtt, device, tmp_path):
    done = await tb_mqtt("send", "--store", "queue", "bad\tkey=1", env=device, cwd=tmp_path)
    assert done.code == 2
    assert "bad" in done.err
    assert "stored 0 datapoints" in done.out


async def test_store_waits_for_another_process(tb_mqtt, device, tmp_path):
    assert (await tb_mqtt("send", "--store", "queue", "a=1", env=device, cwd=tmp_path)).code == 0
    owner = json.loads((tmp_path / "queue" / "store.json").read_text())["owner"]
    log = StoreLog.open(str(tmp_path / "queue"), owner)
    waited = await tb_mqtt("send", "--store", "queue", "a=2", "--timeout", "0.3", env=device, cwd=tmp_path)
    assert waited.code == 4
    assert "Nothing was stored within 0.3 s" in waited.err
    in_use = await tb_mqtt("store", "drain", "queue", env=device, cwd=tmp_path)
    assert in_use.code == 1
    assert "is in use" in in_use.err
    waiting = asyncio.create_task(tb_mqtt("send", "--store", "queue", "a=3", "--json", env=device, cwd=tmp_path))
    await asyncio.sleep(0.5)
    log.close()
    assert ((await waiting).code, (await waiting).json["in_store"]) == (0, 2)


async def test_two_processes_store_at_the_same_time(tb_mqtt, device, tmp_path):
    done = await asyncio.gather(
        *(tb_mqtt("send", "--store", "queue", f"a={value}", env=device, cwd=tmp_path) for value in range(4))
    )
    assert [one.code for one in done] == [0] * 4
    assert (await tb_mqtt("store", "inspect", "queue", "--json", cwd=tmp_path)).json["telemetry"] == 4


async def test_a_full_store_takes_nothing(tb_mqtt, device, tmp_path):
    (tmp_path / "meter.toml").write_text('store = {path = "unused", max_bytes = 1048576, min_free = 0}')
    command = ("send", "--store", "queue", "--config", "meter.toml", "--json")
    records = "".join(f'{{"ts":{ts},"values":{{"a":"{"x" * 60_000}"}}}}\n' for ts in range(17))
    assert (await tb_mqtt(*command, env=device, input=records, cwd=tmp_path)).code == 0
    full = await tb_mqtt(*command, env=device, input=records, cwd=tmp_path)
    assert (full.code, full.json["stored"], full.json["in_store"]) == (1, 0, 17)
    assert "The store cannot take the data: the store queue is full" in full.err
    drained = await tb_mqtt("store", "drain", "queue", "--json", env=device, cwd=tmp_path)
    assert (drained.code, sums(drained)) == (0, {"recovered": 17, "acknowledged": 17})


async def test_drain_reports_rejected_data(tb_mqtt, emulator, device, tmp_path):
    assert (await tb_mqtt("send", "--store", "queue", "a=1", "b=2", env=device, cwd=tmp_path)).code == 0
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if publish.topic.endswith("/telemetry") else None
    drained = await tb_mqtt("store", "drain", "queue", "--json", env=device, cwd=tmp_path)
    assert (drained.code, sums(drained)) == (1, {"recovered": 2, "rejected": 2})


async def test_drain_gives_up_without_an_acknowledgement(tb_mqtt, emulator, device, tmp_path):
    assert (await tb_mqtt("send", "--store", "queue", "a=1", env=device, cwd=tmp_path)).code == 0
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    drained = await tb_mqtt("store", "drain", "queue", "--timeout", "0.3", "--json", env=device, cwd=tmp_path)
    assert (drained.code, sums(drained)) == (4, {"recovered": 1, "kept": 1})
    assert "No acknowledgement for 0.3 s; the rest stays in the store" in drained.err


async def test_drain_keeps_what_is_not_acknowledged(tb_mqtt, device, tmp_path, silent_server):
    assert (await tb_mqtt("send", "--store", "queue", "a=1", env=device | {"TB_PORT": silent_server}, cwd=tmp_path)).code == 0
    drained = await tb_mqtt(
        "store", "drain", "queue", "--connect-timeout", "0.5", env=device | {"TB_PORT": silent_server}, cwd=tmp_path
    )
    assert drained.code == 3
    assert "kept 1 datapoint" in drained.out
    assert (await tb_mqtt("store", "inspect", "queue", "--json", cwd=tmp_path)).json["telemetry"] == 1


async def test_other_commands_leave_the_store_of_the_environment_alone(tb_mqtt, emulator, device, tmp_path):
    assert (await tb_mqtt("send", "a=1", env=device | {"TB_STORE": "queue"}, cwd=tmp_path)).code == 0
    assert not list(tmp_path.iterdir())
    assert len(emulator.device("device").telemetry) == 1
