"""Shells complete the commands and options of ``tb-mqtt``, and the demo and the emulator are pages of the same program."""

import re
import shutil
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_documented_line_prints_a_script(tb_mqtt, shell):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    assert f"_TB_MQTT_COMPLETE={shell}_source tb-mqtt" in DOCUMENT
    done = await tb_mqtt(env={"_TB_MQTT_COMPLETE": f"{shell}_source"})
    assert (done.code, done.err) == (0, "")
    assert f"_TB_MQTT_COMPLETE={shell}_complete" in done.out


async def completions(tb_mqtt, *words):
    """Return what bash offers for the last word."""
    line = {"COMP_WORDS": " ".join(("tb-mqtt", *words)), "COMP_CWORD": str(len(words))}
    done = await tb_mqtt(env={"_TB_MQTT_COMPLETE": "bash_complete"} | line)
    assert (done.code, done.err) == (0, "")
    return [row.partition(",")[2] for row in done.out.splitlines() if row]


async def test_commands_and_options_are_completed(tb_mqtt):
    assert await completions(tb_mqtt, "d") == ["demo", "diag", "doctor"]
    assert await completions(tb_mqtt, "store", "ins") == ["inspect"]
    assert await completions(tb_mqtt, "doctor", "--tok") == ["--token-file", "--token"]
    assert await completions(tb_mqtt, "doctor", "--mqtt-version", "") == ["5", "3.1.1"]


async def test_options_of_the_demo_and_the_emulator_are_completed(tb_mqtt):
    assert await completions(tb_mqtt, "emulator", "--tls-c") == ["--tls-certificate", "--tls-client-ca"]
    assert await completions(tb_mqtt, "emulator", "--port", "0", "--any") == ["--any-token"]
    assert await completions(tb_mqtt, "emulator", "--server-version", "4.2") == ["4.2", "4.2.1"]
    # "" stands for the shell's own completion of files.
    assert await completions(tb_mqtt, "emulator", "--tls-key", "") == [""]
    assert await completions(tb_mqtt, "emulator", "--device", "") == []
    assert {"--help", "--points", "--duration"} <= set(await completions(tb_mqtt, "demo", "--"))
    assert await completions(tb_mqtt, "demo", "x") == []


@pytest.mark.parametrize("command", ["emulator", "demo"])
async def test_help_of_the_programs_names_the_command(tb_mqtt, command):
    done = await tb_mqtt(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: tb-mqtt {command} ")
    assert "python -m" not in done.out
    wrong = await tb_mqtt(command, "--no-such-option")
    assert wrong.code == 2
    assert f"tb-mqtt {command}: error: " in wrong.err


async def test_the_list_of_commands_has_a_line_for_each(tb_mqtt):
    done = await tb_mqtt("--help")
    listed = dict(re.findall(r"^  ([a-z]+) +(.+)$", done.out.partition("Commands:")[2], re.MULTILINE))
    assert {"demo", "emulator", "diag", "doctor"} <= set(listed)
    assert not [text for text in listed.values() if "--help" in text]
