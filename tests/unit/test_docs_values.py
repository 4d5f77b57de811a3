"""docs/values.md keeps its word: its programs print what stands below them, its table is what client and platform do."""

import re
from pathlib import Path

import pytest

from programs import run, shown
from reference.stored import stored
from tb_mqtt_client import _native

DOCUMENT = (Path(__file__).parents[2] / "docs" / "values.md").read_text()
PROGRAMS = list(zip(shown(DOCUMENT, "python"), shown(DOCUMENT, "text"), strict=True))
ROWS = re.findall(r"^\| `(.*)` \| `(.*)` \| (\w+)(?: `(.*)`)? \|$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
async def test_the_programs(program, output):
    assert await run("-c", program) == output


def test_the_table_is_read():
    table = DOCUMENT.split("\n## ")[0]
    assert len(ROWS) == table.count("\n| `") == 22


@pytest.mark.parametrize(("expression", "sent", "kind", "value"), ROWS, ids=[row[0] for row in ROWS])
def test_the_table(expression, sent, kind, value):
    uplink = _native.EncodedUplink.attributes({"k": eval(expression)})  # what the documentation says, not a stranger
    [payload] = _native.pack_attributes([uplink], gateway=False, max_size=1000).payloads
    assert payload.data.decode() == f'{{"k":{sent}}}'
    assert stored(sent) == (None if kind == "nothing" else (kind, value))
    number_as_text = kind == "STRING" and not expression.startswith('"')
    assert uplink.conversions[1] == number_as_text
