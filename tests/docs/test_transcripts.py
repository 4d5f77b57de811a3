"""The commands of docs/cli.md print what the page shows, apart from numbers, when they are typed one after the other."""

import asyncio
import os
import re
import sys

import pytest
from documents import ROOT, read

from tb_mqtt_client.emulator import Emulator, OtaPackage

SECTIONS = ("diag", "send", "store", "agent and config", "rpc", "attributes", "provision", "claim", "firmware")
"""Those of commands whose output depends only on what was typed before."""
TIMEOUT = 60


def transcripts():
    """Return the blocks of the page that show commands: of each command, the line and the lines that it prints."""
    found = []
    for block in read(ROOT / "docs" / "cli.md").blocks:
        if block.heading not in SECTIONS or not block.source.startswith("$ ") or "store inspect" in block.source:
            continue
        commands = []
        for line in block.source.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
        found.append(pytest.param(commands, id=f"{block.heading.replace(' ', '-')}-{block.line}"))
    return found


def shape(lines):
    """Return lines without the numbers and paths, which differ from run to run."""
    text = re.sub(r"/\S*/", "DIRECTORY/", "\n".join(lines))
    text = re.sub(r"\d[\d,.:]*\d|\d", "N", text)
    return re.sub(r"\b(datapoint|message|record)s\b", r"\1", text).splitlines()


def files(folder, commands):
    """Write the files that the page supposes."""
    at = range(1_769_860_800, 1_769_861_800)
    (folder / "measured.csv").write_text("time,a,b\n" + "".join(f"{ts},{ts % 60},{ts % 7}\n" for ts in at))
    (folder / "timeless.csv").write_text("a,b\n" + "".join(f"{ts % 60},{ts % 7}\n" for ts in at))
    rows = "".join(f"{1_769_860_801_000 + number},meter {number % 7 + 1},1.5,on\n" for number in range(2000))
    (folder / "history.csv").write_text(f"ts,meter,kwh,state\n{rows}")
    (folder / "broken.csv").write_text("ts,meter,kwh\n1769860801000,meter 1,1.5\nyesterday,meter 1,2\n1769860801001,,3\n")
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o600)
    for command, shown in commands:
        if name := re.fullmatch(r"cat (\w+\.toml)", command):
            (folder / name[1]).write_text("".join(f"{line}\n" for line in shown))
    (folder / "spool").mkdir()
    (folder / "spool" / "1.ndjson").write_text('{"ts": 1769860800000, "a": 1}\n{"ts": 1769860800001, "a": 2}\n')
    (folder / "spool" / "2.ndjson").write_text('{"ts": 1769860800000, "b": 1}\nnot JSON\n')


def answer(_device, _method, _params):
    return {"time": 1_795_564_800_000}


@pytest.fixture
async def emulator():
    async with Emulator(port=0) as emulator:
        emulator.add_device("DEVICE_TOKEN", name="device")
        emulator.add_gateway("GATEWAY_TOKEN", name="gateway")
        emulator.add_provision_profile("key", "secret")
        emulator.on_client_rpc = answer
        await emulator.set_shared_attributes("device", {"mode": "eco"})
        await emulator.assign_package("device", OtaPackage("pump.bin", "1.2", bytes(300_000)))
        yield emulator


async def typed(command, folder, environment):
    """Return the exit code of a command and the lines that it prints."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode, printed.decode().splitlines()


@pytest.mark.parametrize("commands", transcripts())
async def test_commands_print_what_the_page_shows(commands, emulator, tmp_path):
    (folder := tmp_path / "folder").mkdir()
    files(folder, commands)
    program = tmp_path / "tb-mqtt"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tb_mqtt_client "$@"\n')
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TB_", "_TB_"))}
    environment |= {"PATH": f"{tmp_path}:{environment['PATH']}", "COLUMNS": "200"}
    environment |= {"TB_HOST": emulator.host, "TB_PORT": str(emulator.port)}
    code = 0
    for command, shown in commands:
        if command == "echo $?":
            assert shown == [str(code)]
            continue
        token = {} if "provision" in command else {"TB_ACCESS_TOKEN": "GATEWAY_TOKEN" if "--gateway" in command else "DEVICE_TOKEN"}
        code, printed = await typed(command, folder, environment | token)
        assert shape(printed) == shape(shown), command


def test_there_are_transcripts():
    assert len(transcripts()) >= 12
