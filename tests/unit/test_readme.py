"""The README keeps its word: its programs run as they stand, its commands and files exist."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from programs import run, shown
from tb_mqtt_client.emulator import Emulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAMS = [program for program, _ in shown(README)]
TOKEN = "readme-token"


async def run_program(source: str, emulator: Emulator) -> str:
    # What a reader replaces too; the port is left out in the README, so that the environment gives it.
    source = source.replace('"localhost"', f'"{emulator.host}"').replace('"TOKEN"', f'"{TOKEN}"')
    return await run("-c", source, environment={**os.environ, "TB_PORT": str(emulator.port)})


def test_the_programs_are_short():
    assert [len(program.split("\n\n\n")) for program in PROGRAMS] == [3, 3]
    for program in PROGRAMS:
        assert len([line for line in program.splitlines() if line]) <= 11


async def test_the_device_program():
    async with Emulator() as emulator:
        emulator.add_device(TOKEN, name="thermometer")
        assert await run_program(PROGRAMS[0], emulator) == "acknowledged\n"
        assert {(point.key, point.value) for point in emulator.device("thermometer").telemetry} == {
            ("temperature", 21.5),
            ("humidity", 48),
        }


async def test_the_gateway_program():
    async with Emulator() as emulator:
        emulator.add_gateway(TOKEN, name="gateway")
        assert await run_program(PROGRAMS[1], emulator) == "acknowledged\n"
        meter = emulator.device("meter 7")
        assert meter.profile == "meter"
        assert [(point.key, point.value) for point in meter.telemetry] == [("kwh", 1204.7)]


@pytest.mark.parametrize("sizes", [("0", "0"), ("0.3", "20001")], ids=["nothing but one reading", "live and bulk"])
async def test_the_demo(sizes):
    """What `make demo` runs, in small; its own check makes it end with 1 when a datapoint is missing."""
    duration, points = sizes
    output = await run("-m", "tb_mqtt_client.demo", "--duration", duration, "--points", points, "--devices", "30")
    assert "acknowledged and counted on both sides" in output
    assert ("datapoints per second" in output) == (points != "0")


def test_the_commands_exist():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"\bmake ([a-z]+)\b", README))
    assert {"demo", "test", "bench", "help"} <= named
    assert not {target for target in named if f"  make {target} " not in listed}


def test_the_files_exist():
    named = re.findall(r"`((?:rust|python|tests|benches)/[\w./]*)`", README)
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]
