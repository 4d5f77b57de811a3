"""``tb-mqtt send`` with the emulator: the data that arrives, the output, and the exit code."""

import asyncio
import os
import pty
import signal
import ssl
import sys

import pytest
import trustme
from command_line import Run, finished

from tb_mqtt_client.emulator import BasicCredentials, Emulator, Verdict


def points(device):
    return [(point.ts, point.key, point.value) for point in device.telemetry]


async def test_send_key_value_arguments(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", "temperature=21.5", "state=on", 'list=[1,"x"]', "--ts", "1700000000000", env=device)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "✓ accepted 3 = acknowledged 3 datapoints"
    assert done.out.splitlines()[1].startswith("  1 record, 1 message, ")
    assert points(emulator.device("device")) == [
        (1700000000000, "temperature", 21.5),
        (1700000000000, "state", "on"),
        (1700000000000, "list", [1, "x"]),
    ]


async def test_send_attributes(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", "--attributes", "serial=7", "name=pump", "--json", env=device)
    assert (done.code, done.err) == (0, "")
    assert emulator.device("device").attributes == {"serial": 7, "name": "pump"}
    assert (done.json["accepted"], done.json["acknowledged"], done.json["records"]) == (2, 2, 1)


async def test_send_ndjson_from_standard_input(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", env=device, input='{"a":1}\n\n{"ts":5,"values":{"a":2}}\n{"ts":"1970-01-01T00:00:00.006Z","b":3}')
    assert done.code == 0
    assert points(emulator.device("device"))[1:] == [(5, "a", 2), (6, "b", 3)]


async def test_send_csv_for_many_sub_devices(tb_mqtt, emulator, gateway, tmp_path):
    rows = [f"{ts},meter {ts % 20},{ts / 2},{'on' if ts % 2 else 'off'}" for ts in range(1, 2001)]
    (tmp_path / "history.csv").write_text("\n".join(["ts,meter,kwh,state", *rows]))
    arguments = ("--gateway", "--device-field", "meter", "--device-profile", "meter", "--file", "history.csv", "--json")
    done = await tb_mqtt("send", *arguments, env=gateway, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (done.json["accepted"], done.json["acknowledged"], done.json["records"]) == (4000, 4000, 2000)
    assert emulator.counters.telemetry_datapoints == 4000
    assert emulator.device("meter 7").profile == "meter"
    assert points(emulator.device("meter 7"))[:2] == [(7, "kwh", 3.5), (7, "state", "on")]


async def test_send_arguments_for_a_sub_device(tb_mqtt, emulator, gateway):
    done = await tb_mqtt("send", "--device", "pump 1", "--attributes", "serial=7", env=gateway)
    assert done.code == 0
    assert emulator.device("pump 1").attributes == {"serial": 7}


async def test_slow_input_is_sent_at_once(tb_mqtt, emulator, device):
    arrived = asyncio.Queue()
    emulator.on_publish = lambda publish: arrived.put_nowait(publish.json()) if publish.topic.endswith("/telemetry") else None
    process = await tb_mqtt.start("send", "--timeout", "1", env=device, stdin=asyncio.subprocess.PIPE)
    for number in range(3):
        process.stdin.write(b'{"a":%d}\n' % number)
        assert (await arrived.get())[0]["values"] == {"a": number}
    # Longer than the timeout, which applies to acknowledgements, not to input.
    await asyncio.sleep(1.2)
    done = await finished(process, b'{"a":3}')
    assert done.code == 0
    assert "accepted 4 = acknowledged 4" in done.out


BAD = "device,ts,a\nA,1,1\nB,soon,2\nC,3,NaN\nD,4,4\nE,5,5,5\n"


async def test_bad_line_ends_the_command_and_is_reported_with_its_number(tb_mqtt, emulator, gateway):
    done = await tb_mqtt("send", "--gateway", "--format", "csv", env=gateway, input=BAD)
    assert done.code == 2
    assert "! accepted 1 = acknowledged 1 datapoint\n  bad lines: 1\n" in done.out
    assert "line 3: the field 'ts': 'soon' is not a valid time" in done.err
    assert "--skip-bad" in done.err
    assert points(emulator.device("A")) == [(1, "a", 1)]
    assert "D" not in emulator.devices


async def test_skipped_bad_lines_are_reported_with_exit_code_5(tb_mqtt, emulator, gateway):
    done = await tb_mqtt("send", "--gateway", "--format", "csv", "--skip-bad", env=gateway, input=BAD)
    assert done.code == 5
    assert "accepted 2 = acknowledged 2 datapoints" in done.out
    assert "bad lines: 3" in done.out
    for text in ("line 3: the field 'ts'", "line 4: ", "line 6: it has 4 cells, and the header has 3"):
        assert f"! skipped {text}" in done.err
    assert points(emulator.device("D")) == [(4, "a", 4)]


async def test_only_the_first_bad_lines_are_printed(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", "--skip-bad", "--json", env=device, input="x\n" * 100 + '{"a":1}')
    assert (done.code, done.json["bad_lines"], done.json["acknowledged"]) == (5, 100, 1)
    assert len(done.err.splitlines()) == 21


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "'a' must be KEY=VALUE"),
        (["a=1", "a=2"], "given twice"),
        (["a=1", "--file", "x"], "KEY=VALUE and --file"),
        (["a=1", "--gateway"], "--device NAME is needed"),
        (["a=1", "--ts", "soon"], "'soon' is not a valid time"),
        (["a=1", "--attributes", "--ts", "5"], "attributes have no time"),
        (["--ts", "5"], "--device and --ts need KEY=VALUE"),
        (["--format", "csv", "--delimiter", "ab"], "--delimiter must be one character"),
        (["--format", "csv", "--delimiter", '"'], "--delimiter must be one character, but not a quote or a line end"),
        (["--format", "csv", "--delimiter", "\n"], "--delimiter must be one character, but not a quote or a line end"),
        (["--file", "missing.csv"], "missing.csv cannot be read: No such file"),
        (["--file", "/"], "/ cannot be read: Is a directory"),
        (["a=1", "--host", "a..b"], "host must be a host name or an IP address, not 'a..b'"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--timeout", "0"], "0 is not a positive number"),
        (["--prot", "5"], "No such option"),
        (["--ts-field", "t", "--no-guess-ts"], "--ts-field and --no-guess-ts"),
        (["--ts-unit", "min"], "'min' is not one of 'ms', 's', 'us', 'ns'"),
    ],
)
async def test_unusable_arguments_are_reported(tb_mqtt, emulator, device, arguments, message):
    done = await tb_mqtt("send", *arguments, env=device)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert emulator.counters.datapoints == 0


REFUSED_KEYS = ["CO2 <ppm>", "a<b", "{{name}}", "bell\\u0007", "\U0001f321" * 128, " "]


@pytest.mark.parametrize("key", REFUSED_KEYS)
async def test_key_that_the_platform_would_lose_is_reported_with_its_line(tb_mqtt, emulator, device, key):
    """The platform would acknowledge the record, and lose all its keys."""
    good, bad = '{"a":1}\n', f'{{"{key}":2,"b":3}}\n'
    for options in ([], ["--attributes"]):
        done = await tb_mqtt("send", *options, env=device, input=good + bad)
        assert done.code == 2
        assert "Stopped at line 2: " in done.err
    done = await tb_mqtt("send", "--skip-bad", env=device, input=good + bad + '{"ts":3,"a":3}\n')
    assert done.code == 5
    assert "skipped line 2: " in done.err
    assert {key for _, key, _ in points(emulator.device("device"))} == {"a"}


async def test_value_that_the_platform_cannot_store_is_refused(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", "good=1", "bad=NaN", env=device)
    assert done.code == 2
    assert "bad" in done.err
    assert emulator.counters.datapoints == 0


async def test_unusable_header_is_reported(tb_mqtt, emulator, gateway):
    done = await tb_mqtt("send", "--gateway", "--format", "csv", env=gateway, input="a,b\n1,2\n")
    assert done.code == 2
    assert "the header has no column 'device'" in done.err
    # The sum is correct, but the command did not succeed.
    assert done.out.startswith("! accepted 0 = acknowledged 0 datapoints")


async def test_rejected_datapoints_are_reported_with_the_reason(tb_mqtt, emulator, device):
    emulator.on_publish = lambda publish: Verdict.refuse(0x99) if publish.topic.endswith("/telemetry") else None
    done = await tb_mqtt("send", "a=1", "b=2", env=device)
    assert done.code == 1
    assert "✗ accepted 2 = acknowledged 0 + rejected 2 datapoints" in done.out
    assert "rejected: 2 as Payload format invalid (0x99)" in done.out


async def test_datapoints_of_a_refused_sub_device_are_rejected(tb_mqtt, emulator, gateway):
    emulator.on_publish = lambda publish: (
        Verdict.refuse(0x99) if publish.topic.endswith("/connect") and b"bad" in publish.payload else None
    )
    done = await tb_mqtt("send", "--gateway", env=gateway, input='{"device":"good","a":1}\n{"device":"bad","a":1}\n')
    assert done.code == 1
    assert "✗ accepted 2 = acknowledged 1 + rejected 1 datapoints" in done.out


async def test_send_gives_up_without_an_acknowledgement(tb_mqtt, emulator, device):
    emulator.on_publish = lambda publish: Verdict.ignore() if publish.topic.endswith("/telemetry") else None
    done = await tb_mqtt("send", "a=1", "--timeout", "0.2", env=device)
    assert done.code == 4
    assert "accepted 1 = acknowledged 0 + undelivered 1" in done.out
    assert "No acknowledgement for 0.2 s" in done.err
    assert "marked as a gateway" not in done.err


async def test_send_asks_whether_the_device_is_a_gateway(tb_mqtt, emulator, device):
    """The platform silently drops data for sub-devices from a device that is not a gateway."""
    done = await tb_mqtt("send", "--device", "meter", "a=1", "--timeout", "0.2", env=device)
    assert done.code == 4
    assert "is the device with these credentials marked as a gateway in ThingsBoard?" in done.err


MINUTES = "".join(f"{1700000000000 + i * 60000},{20 + i % 9},{40 + i % 7}\n" for i in range(1000))


async def test_superseded_datapoints_without_times_are_a_loss(tb_mqtt, emulator, device, tmp_path):
    """Most values of a file without times get the same millisecond, and the platform stores one value per millisecond."""
    (tmp_path / "history.csv").write_text("temperature,humidity\n" + "1,2\n" * 1000)
    done = await tb_mqtt("send", "--file", "history.csv", env=device, cwd=tmp_path)
    assert done.code == 5
    lost = 2000 - len(emulator.device("device").telemetry)
    assert lost > 0
    assert done.out.startswith("! accepted 2,000 = acknowledged 2,000 datapoints\n")
    assert f"  superseded: {lost:,}, not stored: a later value has the same key and time\n" in done.out
    assert "  → 1,000 records without a time got the time of sending; --ts-field names the field" in done.out
    assert done.err.startswith("! none of the first 1,000 records has a time")
    done = await tb_mqtt("send", "--file", "history.csv", "--json", "--quiet", env=device, cwd=tmp_path)
    assert (done.code, done.err, done.json["records_without_time"]) == (5, "", 1000)


async def test_superseded_datapoints_with_equal_times_are_a_loss(tb_mqtt, device):
    done = await tb_mqtt("send", env=device, input='{"ts":5,"a":1}\n{"ts":5,"a":2}\n{"ts":6,"a":3}\n')
    assert (done.code, done.err) == (5, "")
    assert "superseded: 1, not stored" in done.out
    assert "--ts-field" not in done.out


async def test_superseded_attributes_are_not_a_loss(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", "--attributes", env=device, input='{"a":1}\n{"a":2}\n')
    assert (done.code, done.err) == (0, "")
    assert "  superseded: 1, not stored: a later value has the same key\n" in done.out
    assert emulator.device("device").attributes == {"a": 2}


@pytest.mark.parametrize(
    ("column", "notation"), [("time", "in milliseconds"), ("Timestamp", "in milliseconds"), ("date", "in milliseconds")]
)
async def test_column_with_the_time_is_guessed_and_reported(tb_mqtt, emulator, device, tmp_path, column, notation):
    (tmp_path / "history.csv").write_text(f"{column},temperature,humidity\n{MINUTES}")
    done = await tb_mqtt("send", "--file", "history.csv", env=device, cwd=tmp_path)
    assert done.code == 0
    assert done.out.startswith("✓ accepted 2,000 = acknowledged 2,000 datapoints\n")
    assert "superseded" not in done.out
    assert done.err.startswith(f"times are read from '{column}', {notation} since the epoch (--no-guess-ts sends it as a value")
    assert points(emulator.device("device"))[-1] == (1700059940000, "humidity", 45)


async def test_ts_field_names_the_column_and_no_guess_ts_prevents_guessing(tb_mqtt, emulator, device, tmp_path):
    (tmp_path / "history.csv").write_text("when,time,a\n2026-01-31T12:00:00Z,1700000000000,1\n")
    done = await tb_mqtt("send", "--file", "history.csv", "--ts-field", "when", env=device, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    done = await tb_mqtt("send", "--file", "history.csv", "--no-guess-ts", env=device, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert points(emulator.device("device"))[:2] == [(1769860800000, "time", 1700000000000), (1769860800000, "a", 1)]
    assert ("when", "2026-01-31T12:00:00Z") in {point[1:] for point in points(emulator.device("device"))}


async def test_times_in_other_units_are_refused_unless_the_unit_is_given(tb_mqtt, emulator, device):
    for ts, unit in (("1700000000", "s"), ("1700000000000000", "us"), ("1700000000000000000", "ns")):
        done = await tb_mqtt("send", "a=1", "--ts", ts, env=device)
        assert (done.code, emulator.counters.datapoints) == (2, 0)
        assert f"--ts-unit {unit} converts it, --ts-unit ms sends it unchanged" in done.err
    done = await tb_mqtt("send", env=device, input='{"ts":1700000000000,"a":1}\n{"ts":1700000060,"a":2}\n')
    assert done.code == 2
    assert "line 2: the field 'ts': 1700000060 looks like seconds, not milliseconds" in done.err
    assert (await tb_mqtt("send", "a=3", "--ts", "1700000000.5", "--ts-unit", "s", env=device)).code == 0
    assert (await tb_mqtt("send", "a=4", "--ts", "1700000000", "--ts-unit", "ms", env=device)).code == 0
    assert points(emulator.device("device")) == [(1700000000000, "a", 1), (1700000000500, "a", 3), (1700000000, "a", 4)]


async def test_lost_connection_is_not_a_failure(tb_mqtt, emulator, device):
    closed = False

    def judge(publish):
        nonlocal closed
        if publish.topic.endswith("/telemetry") and not closed:
            closed = True
            return Verdict.close()
        return None

    emulator.on_publish = judge
    done = await tb_mqtt("send", "a=1", "--json", env=device)
    assert (done.code, done.json["reconnects"], done.json["messages_returned"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("environment", "finding"),
    [
        ({"TB_ACCESS_TOKEN": "another"}, "the server has no device with these credentials"),
        ({"TB_HOST": "nowhere.invalid"}, "the name 'nowhere.invalid' cannot be resolved"),
        ({"TB_PORT": "1"}, "nothing listens on port 1"),
        ({"TB_TLS": "1"}, "or turn TLS off"),
    ],
)
async def test_send_reports_why_it_cannot_connect(tb_mqtt, emulator, device, environment, finding):
    done = await tb_mqtt("send", "a=1", env=device | environment)
    assert (done.code, done.out) == (3, "")
    assert finding in done.err
    assert "→ " in done.err
    assert "Traceback" not in done.err


async def test_send_gives_up_without_a_session(tb_mqtt, silent_server):
    done = await tb_mqtt("send", "a=1", "--host", "127.0.0.1", "--port", silent_server, "--connect-timeout", "0.3")
    assert done.code == 3
    assert "the server did not respond in time" in done.err


async def test_ctrl_c_prints_the_totals(tb_mqtt, emulator, device):
    arrived = asyncio.Event()

    def judge(publish):
        if publish.topic.endswith("/telemetry"):
            arrived.set()

    emulator.on_publish = judge
    process = await tb_mqtt.start("send", env=device, stdin=asyncio.subprocess.PIPE)
    process.stdin.write(b'{"a":1}\n')
    await arrived.wait()
    process.send_signal(signal.SIGINT)
    # The standard input of the command is still open, and the command must not wait for it.
    done = await asyncio.wait_for(finished_open(process), 30)
    assert done.code == 130
    assert done.out.startswith("✓ accepted 1 = acknowledged 1 datapoint")
    assert "Traceback" not in done.err


async def test_sigterm_prints_the_totals(tb_mqtt, emulator, device):
    arrived = asyncio.Event()
    emulator.on_publish = lambda publish: (arrived.set(), Verdict.ignore())[1] if publish.topic.endswith("/telemetry") else None
    process = await tb_mqtt.start("send", "a=1", env=device)
    await arrived.wait()
    process.send_signal(signal.SIGTERM)
    done = await finished(process)
    assert done.code == 143
    assert "✗ accepted 1 = acknowledged 0 + undelivered 1 datapoint" in done.out
    assert "Traceback" not in done.err


async def finished_open(process):
    out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
    code = await process.wait()
    process.stdin.close()
    return Run(code, out.decode(), err.decode())


async def test_send_reports_progress_on_a_terminal_only(tb_mqtt, emulator, device):
    """On a terminal stderr has a progress bar, in colour unless NO_COLOR is set; the result on stdout is always plain text."""
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        leader, follower = pty.openpty()
        env = device | {"TERM": "xterm-256color"} | extra
        process = await tb_mqtt.start("send", "a=1", env=env, stderr=follower)
        os.close(follower)
        out, _ = await process.communicate()
        shown = await asyncio.to_thread(read_all, leader)
        assert process.returncode == 0
        assert out.decode().startswith("✓ accepted 1 = acknowledged 1 datapoint")
        assert ("datapoints acknowledged" in shown) == ("TERM" not in extra)
        assert ("\x1b[32m" in shown or "\x1b[35m" in shown or "\x1b[38;" in shown or "\x1b[1;32m" in shown) == coloured


def read_all(descriptor):
    chunks = []
    try:
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    except OSError:
        # The other end of the terminal is closed.
        pass
    os.close(descriptor)
    return b"".join(chunks).decode()


@pytest.mark.parametrize("arguments", [[], ["--file", "-"]])
async def test_send_reports_missing_standard_input(tb_mqtt, emulator, device, arguments):
    """A service may be started without a standard input."""
    closed = f"exec {sys.executable} -m tb_mqtt_client send {' '.join(arguments)} <&-"
    process = await asyncio.create_subprocess_shell(closed, env=tb_mqtt.environment | device, stderr=asyncio.subprocess.PIPE)
    done = await finished(process)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "--file" in done.err


async def test_ascii_output_uses_plain_symbols(tb_mqtt, emulator, device):
    done = await tb_mqtt("send", "a=1", env=device | {"PYTHONIOENCODING": "ascii"})
    assert (done.code, done.out.splitlines()[0]) == (0, "+ accepted 1 = acknowledged 1 datapoint")


async def test_verbose_shows_the_log(tb_mqtt, emulator, device):
    assert "Connected to" in (await tb_mqtt("send", "a=1", "-v", env=device)).err
    assert "Connected to" not in (await tb_mqtt("send", "a=1", env=device)).err


async def test_send_with_tls_and_a_user_name(tb_mqtt, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    (tmp_path / "password").write_text("pass-word\n")
    async with Emulator(ssl_context=context) as emulator:
        emulator.add_device(BasicCredentials(None, "user", "pass-word"), "device")
        config = f'host = "localhost"\nport = {emulator.port}\nusername = "user"\npassword_file = "password"\nca_cert = "ca.pem"\n'
        (tmp_path / "tb.toml").write_text(f"[test]\n{config}")
        done = await tb_mqtt("send", "a=1", "--config", str(tmp_path / "tb.toml"), "--profile", "test")
        assert (done.code, done.err) == (0, "")
        assert emulator.counters.telemetry_datapoints == 1
