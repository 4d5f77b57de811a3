"""The fields and metrics in docs/observability.md exist. Its programs run with those of all documents."""

import asyncio
import re
from dataclasses import fields
from pathlib import Path

import tb_mqtt_client
from tb_mqtt_client import ConnectionEvent, GatewayClient
from tb_mqtt_client.exported_metrics import HISTOGRAMS, METRICS
from tb_mqtt_client.metrics import PREFIX

DOCUMENT = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
HEALTH, _, EVENTS = DOCUMENT.partition("## Metrics")[0].partition("\n## Connection events")


async def test_the_table_has_the_fields_of_health():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", HEALTH, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    client = GatewayClient({"host": "localhost", "access_token": "TOKEN"})
    assert len(named) > 15
    assert named <= client.health().keys()
    await client.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_table_of_events_has_all_events_with_all_fields():
    shown = {
        name: re.findall(r"`(\w+)`", cell)
        for names, cell in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \|", EVENTS, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    exported = [one for one in vars(tb_mqtt_client).values() if isinstance(one, type) and issubclass(one, ConnectionEvent)]
    events = {one.__name__: [field.name for field in fields(one)] for one in exported if one is not ConnectionEvent}
    assert shown == events


def test_the_metrics_on_the_page_exist():
    named = set(re.findall(rf"\b{PREFIX}(\w+?)(?:_total)?\b", DOCUMENT))
    assert len(named) >= 5
    assert named <= {one.name for one in (*METRICS, *HISTOGRAMS)}
