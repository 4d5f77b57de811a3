"""docs/emulator.md keeps its word: programs print what stands below them, tests pass, and what it names exists."""

import inspect
import re
from pathlib import Path

import pytest

from programs import run, shown
from tb_mqtt_client.emulator import ConnectVerdict, Device, Emulator, Verdict

DOCUMENT = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
BLOCKS = shown(DOCUMENT)
TESTS = [source for source, _ in BLOCKS if "def test_" in source]
PROGRAMS = [block for block in BLOCKS if block[0] not in TESTS]


def test_blocks_are_found():
    assert (len(TESTS), len(PROGRAMS)) == (4, 4)


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=range(len(PROGRAMS)))
async def test_programs(program, output):
    printed = await run("-c", program)
    if output:
        assert printed == output


@pytest.mark.parametrize("source", TESTS, ids=range(len(TESTS)))
async def test_tests(source, tmp_path):
    (tmp_path / "test_it.py").write_text(source)
    # Nobody's configuration: what stands there is enough.
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    printed = await run("-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path))
    assert "1 passed" in printed


def documented(pattern):
    return set(re.findall(pattern, DOCUMENT))


def test_what_is_named_exists():
    verdicts = documented(r"[^t]Verdict\.(\w+)")
    assert verdicts
    assert verdicts <= set(dir(Verdict))
    assert documented(r"ConnectVerdict\.(\w+)") <= set(dir(ConnectVerdict))
    for name in documented(r"(?<!\.)emulator\.(\w+)[( ]"):
        assert hasattr(Emulator, name), name


def test_what_exists_is_named():
    arguments = set(inspect.signature(Emulator).parameters) - {"host", "port", "accept_any_token", "keep_data", "history_limit"}
    public = {name for name in dir(Emulator) if not name.startswith("_")} - {"device", "devices", "host", "port"}
    attributes = {name for name in Device.__slots__ if not name.startswith("_")} | {"telemetry", "stored_telemetry", "connected"}
    for name in arguments | public | (attributes - {"name", "session"}):
        assert re.search(rf"\b{name}\b", DOCUMENT), name
