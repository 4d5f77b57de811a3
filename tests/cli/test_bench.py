"""``tb-mqtt bench``: it measures correct results only, and never takes this package for an SDK."""

import json
import os
import sys
from pathlib import Path

import pytest

from tb_mqtt_client.bench.corpus import Shape, corpus_of, difference, generate, parse_mix, points_of
from tb_mqtt_client.bench.peers import importable_sdks, kind_of, sdk_at
from tb_mqtt_client.bench.running import Bench, Limits

PACKAGES = Path(__file__).parents[2] / "python"
SMALL = ("--sends", "20", "--repetitions", "2")
# Does what the splitter of SDK 1.x does for a device, except for one thing that a test sets.
SDK_ONE = """
class TBDeviceMqttClient:
    @staticmethod
    def _split_message(data, datapoints, size):
        parts = [{{"data": [record]}} for record in data]
        {fault}
        return parts
"""


@pytest.fixture
def sdk(tmp_path):
    """Return a function that writes modules with the names of SDK 1.x, and returns their folder."""

    def write(fault="pass"):
        folder = tmp_path / "sdk"
        folder.mkdir()
        (folder / "tb_device_mqtt.py").write_text(SDK_ONE.format(fault=fault))
        (folder / "tb_gateway_mqtt.py").write_text("")
        return str(folder)

    return write


def shape(**changes):
    return Shape(**({"devices": 0, "keys": 10, "datapoints": 10, "timestamps": 1, "sends": 3, "mix": ("int",)} | changes))


def test_a_corpus_has_its_shape_and_is_equal_in_every_run():
    corpus = generate(shape(devices=2, keys=7, datapoints=10, timestamps=3, sends=5, mix=parse_mix("float=2,str,nested")))
    assert (
        corpus.sends
        == generate(shape(devices=2, keys=7, datapoints=10, timestamps=3, sends=5, mix=parse_mix("float=2,str,nested"))).sends
    )
    assert [name for name, _ in corpus.sends] == ["device 0", "device 1", "device 0", "device 1", "device 0"]
    assert [[len(record["values"]) for record in records] for _, records in corpus.sends] == [[4, 3, 3]] * 5
    assert (corpus.datapoints, len(corpus.points)) == (50, 50)
    assert {key for _, _, key in corpus.points} == {
        f"{kind}_{n}" for n, kind in enumerate(parse_mix("float=2,str,nested") * 2) if n < 7
    }


@pytest.mark.parametrize(
    ("mix", "problem"), [("double", "'double' is not a kind"), ("int=0", "weight"), ("int=x", "weight"), ("", "'' is not a kind")]
)
def test_an_unusable_mix_is_refused(mix, problem):
    with pytest.raises(ValueError, match=problem):
        parse_mix(mix)


@pytest.mark.parametrize(("changes", "problem"), [({"timestamps": 11}, "11 timestamps"), ({"datapoints": 11}, "11 keys")])
def test_an_impossible_shape_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        shape(**changes)


def test_a_difference_names_a_datapoint():
    points = corpus_of([("meter", [{"ts": 5, "values": {"a": 1, "b": 0.12345678901234567}}])]).points
    payload = b'{"meter":[{"ts":5,"values":{"a":1,"b":0.1234567890123457}}]}'
    assert difference(points, points_of(payload, gateway=True)) == ""
    assert "1 of 2 datapoints are missing, such as 'b' at 5 of 'meter'" in difference(
        points, points_of(b'{"meter":{"ts":5,"values":{"a":1}}}', gateway=True)
    )
    assert "'a' at 5 of 'meter' is True instead of 1" in difference(
        points, points_of(payload.replace(b'"a":1', b'"a":true'), gateway=True)
    )
    assert "were not sent" in difference(points, points_of(payload.replace(b'"a"', b'"c":3,"a"'), gateway=True))
    with pytest.raises(ValueError, match="not a payload with timestamps"):
        points_of(b'[{"a":1}]', gateway=False)


def test_this_package_is_not_an_sdk():
    """The package has modules with the names of SDK 1.x and of SDK 2.0."""
    assert (PACKAGES / "tb_device_mqtt.py").exists()
    assert kind_of(PACKAGES) is None
    assert importable_sdks(["", str(PACKAGES), "/does/not/exist"]) == []
    with pytest.raises(ValueError, match="neither SDK"):
        sdk_at(str(PACKAGES))


def test_sdks_are_found_in_folders_and_environments(sdk, tmp_path):
    folder = sdk()
    [found] = importable_sdks([str(PACKAGES), folder, folder])
    assert (found.program, found.interpreter, found.path) == ("sdk1", sys.executable, (folder,))
    site = tmp_path / "venv" / "lib" / "python3.99" / "site-packages"
    (site / "tb_mqtt_client" / "service" / "device").mkdir(parents=True)
    (site / "tb_mqtt_client" / "service" / "device" / "client.py").write_text("")
    (tmp_path / "venv" / "bin").mkdir()
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    found = sdk_at(str(tmp_path / "venv"))
    assert (found.program, found.interpreter, found.path) == ("sdk2", str(tmp_path / "venv/bin/python"), (str(site),))


async def test_split_measures_and_checks(tb_mqtt):
    done = await tb_mqtt("bench", "split", "--devices", "3", "--max-payload", "1000", "--json", *SMALL)
    assert (done.code, done.err) == (0, "")
    found = done.json
    assert (found["bench"], found["from"], found["to"]) == ("split", "dicts", "payloads")
    assert found["corpus"] | {"json_bytes": 0} == {"file": None, "gateway": True, "sends": 20, "datapoints": 200, "json_bytes": 0}
    assert found["limits"] == {"payload_bytes": 1000, "datapoints": 0}
    own, *others = found["results"]
    assert own["name"].startswith("tb_mqtt_client 2.")
    assert {one["name"].split()[0] for one in others} == {"json.dumps", "orjson.dumps"}
    assert all(one["correct"] for one in found["results"])
    assert own["payloads"] > 1
    assert own["payload_bytes"] / own["payloads"] <= 1000
    assert [len(own["seconds_of_rounds"]), len(own["cpu_seconds_of_rounds"])] == [2, 2]
    assert own["datapoints_per_second"] == pytest.approx(200 / own["seconds"])


async def test_encode_prints_a_table(tb_mqtt):
    done = await tb_mqtt("bench", "encode", "--values", "nested,int", *SMALL)
    assert (done.code, done.err) == (0, "")
    first, head, own, *_, last = done.out.splitlines()
    assert first.startswith("dicts to encoded sends: 20 sends, 200 datapoints, ")
    assert head.split() == ["datapoints/s", "CPU/datapoint", "CPU/send", "payloads", "time"]
    assert own.startswith("tb_mqtt_client 2.")
    assert own.endswith("1.00 x")
    assert last.endswith("3 results equal the data")


@pytest.mark.parametrize("devices", ["0", "2"])
async def test_send_uses_emulators_without_a_host(tb_mqtt, devices):
    done = await tb_mqtt("bench", "send", "--devices", devices, "--json", *SMALL)
    assert (done.code, done.err) == (0, "")
    [own] = done.json["results"]
    assert (own["correct"], own["payloads"]) == (True, None)


async def test_send_to_a_server(tb_mqtt, emulator, device):
    done = await tb_mqtt("bench", "send", "--json", *SMALL, env=device)
    assert (done.code, done.err) == (0, "")
    assert done.json["results"][0]["correct"]
    # The checked round, the round that warms up, and two measured rounds.
    assert emulator.device("DEVICE-TOKEN").counters.telemetry_datapoints == 4 * 200


async def test_a_file_is_measured(tb_mqtt, tmp_path):
    records = [{"device": f"meter {n % 2}", "ts": 1_769_860_800_000 + n, "values": {"kwh": n, "ok": True}} for n in range(10)]
    (tmp_path / "corpus.ndjson").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    done = await tb_mqtt("bench", "split", "--corpus", "corpus.ndjson", "--json", "--repetitions", "1", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.json["corpus"]["file"] == "corpus.ndjson"
    assert (done.json["corpus"]["gateway"], done.json["corpus"]["sends"], done.json["corpus"]["datapoints"]) == (True, 10, 20)
    assert all(one["correct"] for one in done.json["results"])


async def test_records_of_a_file_without_a_time_differ(tb_mqtt, tmp_path):
    (tmp_path / "corpus.ndjson").write_text('{"a": 1}\n{"a": 2}\n')
    done = await tb_mqtt("bench", "split", "--corpus", "corpus.ndjson", "--json", "--repetitions", "1", cwd=tmp_path)
    assert (done.code, done.json["corpus"]["datapoints"]) == (0, 2)
    assert all(one["correct"] for one in done.json["results"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--values", "double"], "'double' is not a kind of values"),
        (["--datapoints", "20", "--timestamps", "1"], "need 20 keys"),
        (["--corpus", "x", "--keys", "5"], "--corpus and --keys"),
        (["--corpus", "missing.ndjson"], "missing.ndjson cannot be read"),
        (["--sdk", "."], "has neither SDK 1.x"),
    ],
)
async def test_unusable_options_are_refused(tb_mqtt, tmp_path, arguments, problem):
    done = await tb_mqtt("bench", "split", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err


async def test_a_bad_line_of_a_file_is_named(tb_mqtt, tmp_path):
    (tmp_path / "corpus.ndjson").write_text('{"a": 1}\n{"a": \n')
    done = await tb_mqtt("bench", "split", "--corpus", "corpus.ndjson", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "corpus.ndjson, line 2: it is not valid JSON" in done.err


async def test_limits_of_datapoints_are_not_for_sending(tb_mqtt):
    done = await tb_mqtt("bench", "send", "--max-datapoints", "5")
    assert (done.code, done.out) == (2, "")
    assert "--max-datapoints" in done.err


async def test_an_sdk_is_measured(tb_mqtt, sdk):
    done = await tb_mqtt("bench", "split", "--sdk", sdk(), "--json", *SMALL)
    assert (done.code, done.err) == (0, "")
    [found] = [one for one in done.json["results"] if one["name"].startswith("SDK 1.")]
    assert (found["correct"], found["payloads"]) == (True, 20)


async def test_an_importable_sdk_is_measured(tb_mqtt, sdk):
    path = os.pathsep.join([os.environ.get("PYTHONPATH", str(PACKAGES)), sdk()])
    done = await tb_mqtt("bench", "split", "--json", *SMALL, env={"PYTHONPATH": path})
    assert [one["name"].split(".")[0] for one in done.json["results"]].count("SDK 1") == 1


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("parts[0]['data'][0] = {'ts': 1, 'values': {'a': 1}}", "200 of 200 datapoints are missing"),
        ("parts.pop()", "200 of 200 datapoints are missing"),
        ("parts = [{'data': data * 9}]", "more than the limit of 1,000"),
    ],
)
async def test_a_wrong_result_of_an_sdk_is_shown(tb_mqtt, sdk, fault, problem):
    done = await tb_mqtt("bench", "split", "--sdk", sdk(fault), "--max-payload", "1000", *SMALL)
    # Its figures are in the table, with the reason why they do not count.
    assert done.code == 0
    assert "is not correct: " in done.out
    assert problem in done.out
    assert "results equal the data" not in done.out


async def test_an_sdk_that_cannot_be_imported_is_a_failure(tb_mqtt, tmp_path):
    (tmp_path / "tb_device_mqtt.py").write_text("import a_module_that_is_missing\nclass TBDeviceMqttClient: pass")
    done = await tb_mqtt("bench", "split", "--sdk", str(tmp_path), "--json", *SMALL)
    assert done.code == 1
    [missing] = done.json["not_measured"]
    assert (missing["name"], missing["reason"]) == ("SDK 1.x", "No module named 'a_module_that_is_missing'")


async def test_a_program_that_hangs_is_given_up(sdk, tmp_path):
    corpus = generate(shape())
    one = Bench("split", corpus, Limits(65_000, 0), 1, tmp_path, 0.5, lambda: None)
    measured = await one.measure(sdk_at(sdk("import time; time.sleep(60)")))
    assert (measured.seconds, measured.problem) == ([], "not finished after 0.5 s")


async def test_a_profile_needs_py_spy(tb_mqtt, tmp_path):
    done = await tb_mqtt("bench", "encode", "--profile", "flame.svg", env={"PATH": str(tmp_path)}, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "pip install py-spy" in done.err


async def test_a_profile_measures_this_package_below_py_spy(tb_mqtt, tmp_path):
    """A program in the place of py-spy runs the command that it is given, and writes a file."""
    (tmp_path / "py-spy").write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nopen(sys.argv[sys.argv.index('--output') + 1], 'w').write('svg')\n"
        "print('py-spy> a line that is not a result', flush=True)\n"
        "sys.exit(subprocess.run(sys.argv[sys.argv.index('--') + 1 :]).returncode)\n"
    )
    (tmp_path / "py-spy").chmod(0o755)
    done = await tb_mqtt("bench", "encode", "--profile", "flame.svg", *SMALL, env={"PATH": f"{tmp_path}:/usr/bin"}, cwd=tmp_path)
    assert (done.code, (tmp_path / "flame.svg").read_text()) == (0, "svg")
    assert "flame graph: flame.svg" in done.err
