"""The README is for the first ten minutes; its programs, links and commands are tested with those of all documents."""

import pytest
from documents import ROOT, programs, read

from programs import running

README = read(ROOT / "README.md")


def test_the_programs_are_short():
    assert len(programs(README)) >= 2
    for program in programs(README):
        assert len([line for line in program.source.splitlines() if line]) <= 14, program.block.name


@pytest.mark.parametrize("sizes", [("0", "0"), ("0.3", "20001")], ids=["nothing but one reading", "live and bulk"])
async def test_the_demo(sizes):
    """What `make demo` runs, in small; its own check makes it end with 1 when a datapoint is missing."""
    duration, points = sizes
    async with running("-m", "tb_mqtt_client.demo", "--duration", duration, "--points", points, "--devices", "30") as demo:
        output = await demo.end()
    assert "acknowledged and counted on both sides" in output
    assert ("datapoints per second" in output) == (points != "0")
