"""docs/observability.md keeps its word: its programs print what stands below them, and what it names exists."""

import asyncio
import re
from pathlib import Path

import pytest
from test_readme import run

from tb_mqtt_client import GatewayClient
from tb_mqtt_client.metrics import _BY_REASON, _METRICS, _SINCE, PREFIX

DOCUMENT = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_programs_are_found():
    assert len(PROGRAMS) == DOCUMENT.count("```python") == 2


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=["health", "metrics"])
async def test_the_programs(program, output):
    assert await run("-c", program) == output


async def test_the_fields_of_the_table_are_those_of_the_snapshot():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", DOCUMENT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    client = GatewayClient({"host": "localhost", "access_token": "TOKEN"})
    assert len(named) > 15
    assert named <= client.health().keys()
    await client.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_metrics_exist():
    named = set(re.findall(rf"\b{PREFIX}(\w+?)(?:_total)?\b", DOCUMENT))
    assert len(named) >= 5
    assert named <= {described.name for described in (*_METRICS, _BY_REASON, _SINCE)}
