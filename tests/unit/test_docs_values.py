"""The table in docs/values.md is correct for the client and the emulator. Its programs run with those of all documents."""

import json
import re
from pathlib import Path

import pytest

from tb_mqtt_client import _native
from tb_mqtt_client.emulator.payloads import decode_json
from tb_mqtt_client.emulator.values import ValueKind, stored

DOCUMENT = (Path(__file__).parents[2] / "docs" / "values.md").read_text()
ROWS = re.findall(r"^\| `(.*)` \| `(.*)` \| (\w+)(?: `(.*)`)? \|$", DOCUMENT, re.MULTILINE)


def test_all_rows_of_the_table_are_read():
    assert len(ROWS) == len(re.findall(r"^\| `", DOCUMENT, re.MULTILINE)) > 20


@pytest.mark.parametrize(("expression", "sent", "kind", "value"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_table_is_correct(expression, sent, kind, value):
    uplink = _native.EncodedUplink.attributes({"k": eval(expression)})  # the text is from a page of this repository
    [payload] = _native.pack_attributes([uplink], gateway=False, max_size=1000).payloads
    assert payload.data.decode() == f'{{"k":{sent}}}'
    found = stored(decode_json(payload.data)["k"])
    assert found.kind == (ValueKind.DROPPED if kind == "nothing" else kind)
    if value:
        as_text = json.dumps(found.value, separators=(",", ":")) if kind == "JSON" else str(found.value)
        assert as_text == value
    number_as_text = kind == "STRING" and not expression.startswith('"')
    assert uplink.conversions[1] == number_as_text
