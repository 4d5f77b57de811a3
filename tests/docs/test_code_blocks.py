"""Every code block of the documentation works: programs run without changes, and commands and files exist."""

import ast
import json
import re
import subprocess
import tomllib
from importlib.util import find_spec

import click
import pytest
from documents import DOCUMENTS, PART, ROOT, SHAPE, programs, read
from platform_side import SCENARIOS, platform_for

from programs import running
from tb_mqtt_client.program import tb_mqtt

BLOCKS = [block for path in DOCUMENTS for block in read(path).blocks]
PROGRAMS = [program for path in DOCUMENTS for program in programs(read(path))]
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function", "--rootdir=."]
"""Runs pytest without the configuration of this repository, as in the project of a user."""


def named(blocks):
    return {"argvalues": blocks, "ids": [block.name for block in blocks]}


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.block.name for program in PROGRAMS])
async def test_program(program, tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text(program.source)
    command = [*PYTEST, file] if program.is_a_test else [file]
    scenario = SCENARIOS.get((program.block.document.name, program.block.heading))
    async with (
        platform_for(program.block, tmp_path) as (emulator, environment),
        running(*command, folder=tmp_path, **environment) as process,
    ):
        if scenario is not None:
            await scenario(emulator, process)
        output = await process.end()
    if program.output is not None:
        expected = re.escape(program.output).replace(r"\.\.\.", ".*")
        assert re.fullmatch(expected, output), output


def test_the_scenarios_are_of_blocks_that_exist():
    headings = {(program.block.document.name, program.block.heading) for program in PROGRAMS}
    assert not set(SCENARIOS) - headings


def test_pages_say_what_their_programs_read():
    """A program that names no server reads the environment, which its page has to set."""
    silent = set()
    for program in PROGRAMS:
        connects = re.search(r"with \w+Client\(|\.connect\(\)|environ\[", program.source)
        names_a_server = re.search(r"\bhost\b", program.source)
        exported = any("export TB_HOST=" in block.source for block in read(program.block.document).blocks)
        if connects and not names_a_server and not exported:
            silent.add(program.block.name)
    assert not silent


def test_marks_are_known_and_rare():
    """Most blocks must be complete programs, because readers copy a single block."""
    python = [block for block in BLOCKS if block.language == "python"]
    assert {block.mark for block in python} <= {"", PART, SHAPE}
    assert not [block.name for block in BLOCKS if block.mark and block.language != "python"]
    assert len([block for block in python if block.mark in {PART, SHAPE}]) <= len(python) // 5


@pytest.mark.parametrize("block", **named([block for block in BLOCKS if block.mark == SHAPE]))
def test_a_shape_is_python(block):
    ast.parse(block.source)


@pytest.mark.parametrize("block", **named([block for block in BLOCKS if block.language == "json"]))
def test_json(block):
    json.loads(block.source)


@pytest.mark.parametrize("block", **named([block for block in BLOCKS if block.language == "toml"]))
def test_toml(block):
    tomllib.loads(block.source)


TEXT = "\n".join(path.read_text() for path in DOCUMENTS)


def test_make_targets_exist():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    mentioned = set(re.findall(r"`make ([a-z-]+)\b", TEXT)) | set(re.findall(r"^(?:\$ )?make ([a-z-]+)\b", TEXT, re.MULTILINE))
    assert {"demo", "test", "bench", "help"} <= mentioned
    assert not {target for target in mentioned if f"  make {target} " not in listed}


def test_commands_exist():
    mentioned = set(re.findall(r"^(?:\$ )?tb-mqtt ([a-z]+)", TEXT, re.MULTILINE)) | set(re.findall(r"`tb-mqtt ([a-z]+)", TEXT))
    assert {"send", "doctor"} <= mentioned <= set(tb_mqtt.list_commands(click.Context(tb_mqtt)))


def test_modules_exist():
    mentioned = set(re.findall(r"\bpython -m ([\w.]+)", TEXT))
    assert "tb_mqtt_client.emulator" in mentioned
    assert not {module for module in mentioned if find_spec(module) is None}


def test_files_exist():
    """Those of the repository, and those below the package, which are named without its path."""
    mentioned = re.findall(r"`((?:rust|python|tests|benches|docs|examples)/[\w./]*)`", TEXT)
    below_package = re.findall(r"`((?:common|constants|entities|service|emulator)/[\w./]*)`", TEXT)
    assert len(mentioned) > 10
    assert len(below_package) > 10
    places = [ROOT / path for path in mentioned] + [ROOT / "python" / "tb_mqtt_client" / path for path in below_package]
    assert not [str(path) for path in places if not path.exists()]
