"""The program as a whole: help, missing extras, secrets, and the forwarded programs."""

import asyncio
import logging
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from command_line import finished

from tb_mqtt_client import __version__
from tb_mqtt_client.emulator import Verdict
from tb_mqtt_client.program import main
from tb_mqtt_client.program import tb_mqtt as program

COMMANDS = program.list_commands(click.Context(program))
SECRET = "s3cret-of-a-device"


async def test_help_lists_every_command_and_the_exit_codes(tb_mqtt):
    done = await tb_mqtt("--help")
    assert (done.code, done.err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in done.out
    assert "Exit codes: 0 everything done and acknowledged" in done.out
    assert (await tb_mqtt("--version")).out == f"tb-mqtt, version {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_has_help(tb_mqtt, command):
    done = await tb_mqtt(command, "--help", env={"TB_ACCESS_TOKEN": SECRET, "TB_PASSWORD": SECRET})
    assert (done.code, done.err) == (0, "")
    assert done.out.lower().startswith("usage: ")
    assert SECRET not in done.out


@pytest.mark.parametrize(
    "arguments", [["sned"], ["send", "--hots", "h"], ["send", "a=1"], ["doctor", "--port", "0"], ["doctor", "x"]]
)
async def test_usage_errors_are_short(tb_mqtt, arguments):
    done = await tb_mqtt(*arguments)
    assert (done.code, done.out) == (2, "")
    assert 0 < len(done.err.splitlines()) <= 5
    assert "Traceback" not in done.err


def test_a_command_imports_no_other():
    """The other commands take longer to import than all that a short command needs."""
    imported = """
import sys
from tb_mqtt_client.program import main
assert main(["watch", "--help"]) == 0
print(*sorted(name for name in sys.modules if name.startswith("tb_mqtt_client.")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stderr.split())
    assert "tb_mqtt_client.cli.watch" in modules
    others = {f"tb_mqtt_client.cli.{name}" for name in ("agent", "bench", "doctor", "send", "store")}
    assert not modules & (others | {"tb_mqtt_client.emulator"})


def test_script_runs_the_module():
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"tb-mqtt": "tb_mqtt_client.__main__:main"}


@pytest.mark.parametrize("missing", ["click", "rich", "cryptography"])
def test_missing_extra_is_reported_in_one_line(missing):
    """Without the extra, as in an environment where only the library is installed, the message names the package."""
    without = f"""
import importlib.util as util
found = util.find_spec
util.find_spec = lambda name, *others: None if name == {missing!r} else found(name, *others)
import runpy
runpy.run_module("tb_mqtt_client", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", without], capture_output=True, text=True, check=False)
    message = f"The command line needs {missing}: pip install {missing}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_importing_the_library_needs_no_extra():
    """``import tb_mqtt_client`` imports no package of an extra."""
    extras = "click", "rich", "cryptography", "prometheus_client", "psutil"
    source = f"import sys, tb_mqtt_client; print([name for name in {extras!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def own_logger():
    """Restore the logger after the test, because the program reconfigures the logger of this process."""
    logger = logging.getLogger("tb_mqtt_client")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.mark.usefixtures("own_logger")
def test_traceback_of_a_bug_does_not_contain_secrets(monkeypatch, capsys):
    def fail(options, redactor):
        redactor.add(SECRET)
        raise RuntimeError(f"something with {SECRET} went wrong")

    monkeypatch.setattr("tb_mqtt_client.cli.doctor.load", fail)
    assert main(["doctor"]) == 70
    shown = capsys.readouterr().err
    assert "RuntimeError: something with *** went wrong" in shown
    assert "This is a bug in tb-mqtt" in shown


CASES = {
    "a refused token": ["send", "a=1", "-vv"],
    "a token on the command line": ["send", "a=1", "-vv", "--token", SECRET],
    "a closed port": ["send", "a=1", "-vv", "--port", "1"],
    "doctor": ["doctor", "-vv"],
    "doctor as JSON": ["doctor", "-vv", "--json"],
    "doctor, closed port": ["doctor", "-vv", "--port", "1"],
    "a config with a number for a token": ["send", "a=1", "--config", "number.toml"],
    "a config that is not TOML": ["send", "a=1", "--config", "broken.toml"],
    "a config with a profile": ["doctor", "-vv", "--config", "good.toml", "--profile", "test"],
    "a config with an unknown key": ["send", "a=1", "--config", "unknown.toml"],
    "a token file": ["send", "a=1", "-vv", "--token-file", "token"],
    "a password file": ["send", "a=1", "-vv", "--username", "u", "--password-file", "token"],
}


@pytest.mark.parametrize("case", CASES)
async def test_secrets_are_never_printed(tb_mqtt, emulator, device, tmp_path, case):
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "number.toml").write_text("access_token = 12345678901")
    (tmp_path / "broken.toml").write_text(f"access_token = {SECRET}")
    (tmp_path / "good.toml").write_text(f'[test]\nhost = "127.0.0.1"\nport = {emulator.port}\naccess_token = "{SECRET}"')
    (tmp_path / "unknown.toml").write_text(f'access_toke = "{SECRET}"')
    done = await tb_mqtt(*CASES[case], env=device | {"TB_ACCESS_TOKEN": SECRET}, cwd=tmp_path)
    assert done.code != 0
    assert done.err or done.out
    assert SECRET not in done.out + done.err
    assert "12345678901" not in done.out + done.err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_token_file_keeps_the_token_out_of_the_process_list(tb_mqtt, emulator, device, tmp_path):
    (tmp_path / "token").write_text("DEVICE-TOKEN")
    arrived = asyncio.Event()
    emulator.on_publish = lambda publish: (arrived.set(), Verdict.ignore())[1] if publish.topic.endswith("/telemetry") else None
    del device["TB_ACCESS_TOKEN"]
    process = await tb_mqtt.start("send", "a=1", "--token-file", str(tmp_path / "token"), env=device)
    async with asyncio.timeout(60):
        await arrived.wait()
    listed = await asyncio.to_thread(Path(f"/proc/{process.pid}/cmdline").read_bytes)
    # Nothing is acknowledged: it would wait for that before it ends.
    process.kill()
    await finished(process)
    assert b"send" in listed
    assert b"DEVICE-TOKEN" not in listed


@pytest.fixture
def full_disk():
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    with Path("/dev/full").open("w") as full:
        yield full


@pytest.mark.parametrize("arguments", [["send", "a=1"], ["send", "a=1", "--json"], ["attributes", "get"], ["doctor"]])
async def test_full_disk_is_reported_as_a_failure_to_write_the_result(tb_mqtt, device, arguments, full_disk):
    process = await tb_mqtt.start(*arguments, env=device, stdout=full_disk)
    done = await finished(process)
    assert (done.code, done.err) == (1, "✗ The result cannot be written: No space left on device\n")


async def test_help_does_not_list_arguments_as_options(tb_mqtt):
    assert "Options:\n  -f, --file" in (await tb_mqtt("send", "--help")).out


async def test_demo_reports_a_server_that_it_cannot_reach(tb_mqtt):
    done = await tb_mqtt("demo", "--host", "127.0.0.1", "--port", "1", "--token", SECRET)
    assert (done.code, done.out) == (3, "")
    assert "nothing listens on port 1" in done.err
    done = await tb_mqtt("demo", "--host", "127.0.0.1", "--port", "99999", "--token", SECRET)
    assert (done.code, done.out) == (2, "")
    assert "port must be from 1 to 65535" in done.err


async def test_demo_reports_a_device_that_is_not_a_gateway(tb_mqtt, emulator):
    where = ("--host", emulator.host, "--port", str(emulator.port), "--token", "DEVICE-TOKEN")
    done = await tb_mqtt("demo", *where, "--duration", "0", "--points", "1", "--devices", "1")
    assert (done.code, done.out) == (2, "")
    assert "no acknowledgement for the sub-device" in done.err
    assert "marked as a gateway" in done.err


@pytest.mark.parametrize("arguments", [["--points", "1e6"], ["--points", "-1"], ["--duration", "long"]])
async def test_demo_rejects_an_invalid_amount(tb_mqtt, arguments):
    done = await tb_mqtt("demo", *arguments)
    assert (done.code, done.out) == (2, "")
    assert f"argument {arguments[0]}: '{arguments[1]}' is not a" in done.err


async def test_demo_counts_every_datapoint_on_both_sides(tb_mqtt):
    done = await tb_mqtt("demo", "--duration", "0", "--points", "2000", "--devices", "5")
    assert (done.code, "acknowledged and counted on both sides" in done.out) == (0, True)
    done = await tb_mqtt("demo", "--devices", "0")
    assert (done.code, "--devices: at least 1" in done.err) == (2, True)


async def test_emulator_accepts_a_client_and_ends_on_ctrl_c(tb_mqtt):
    process = await tb_mqtt.start("emulator", "--port", "0", "--device", "TOKEN")
    line = (await process.stdout.readline()).decode()
    host, port = re.search(r"(127\.0\.0\.1):(\d+)", line).groups()
    done = await tb_mqtt("send", "a=1", "--host", host, "--port", port, "--token", "TOKEN")
    assert done.code == 0
    taken = await tb_mqtt("emulator", "--port", port)
    assert (taken.code, "in use" in taken.err, "Traceback" in taken.err) == (2, True, False)
    process.send_signal(signal.SIGINT)
    ended = await finished(process)
    assert (ended.code, ended.err) == (0, "")
