"""Tables in the documentation list all options, errors and policies, with their values."""

import re

import pytest
from documents import ROOT, read

from tb_mqtt_client import Certainty, QueuePolicy
from tb_mqtt_client.common import exceptions
from tb_mqtt_client.common.options import DEVICE_OPTIONS, GATEWAY_OPTIONS

DEVICES = (ROOT / "docs" / "devices.md").read_text()
LIMITS = (ROOT / "docs" / "limits.md").read_text()
DELIVERY = (ROOT / "docs" / "delivery.md").read_text()
ROWS = {
    name: [cell.strip() for cell in row[1:-1].split("|")]
    for row in re.findall(r"^\| `.*\|$", DEVICES.split("\n## Options\n")[1].split("\n## ")[0], re.MULTILINE)
    for name in re.findall(r"`(\w+)`", row[1:-1].split("|")[0])
}


def test_every_option_is_in_the_table():
    assert ROWS.keys() == DEVICE_OPTIONS.keys()


@pytest.mark.parametrize("name", DEVICE_OPTIONS)
def test_the_defaults(name):
    default, shown = DEVICE_OPTIONS[name].default, ROWS[name][1]
    if default is None:
        assert not shown
    elif isinstance(default, bool):
        assert shown == str(default).lower()
    elif name == "max_queued_bytes":
        assert f"{default // 2**20} MiB" in shown
    elif isinstance(default, int | float):
        assert re.search(rf"\b{default:,.0f}\b", shown) or re.search(rf"\b{default:g}\b", shown)
    else:
        assert shown == f'`"{default}"`'


@pytest.mark.parametrize("name", DEVICE_OPTIONS)
def test_the_environment_variables(name):
    variable = DEVICE_OPTIONS[name].variable
    named = re.findall(r"TB_\w+", ROWS[name][2])
    assert named == [] if variable is None else f"TB_{variable}" in named


def test_the_options_of_gateways():
    text = (ROOT / "docs" / "gateways.md").read_text()
    assert all(f"`{name}`" in text for name in GATEWAY_OPTIONS.keys() - DEVICE_OPTIONS.keys())


def test_the_queue_policies():
    assert set(re.findall(r'^\| `"(\w+)"`', LIMITS, re.MULTILINE)) == set(QueuePolicy)


def test_the_certainties_of_results():
    assert re.findall(r'^\| `"(\w+)"`', DELIVERY, re.MULTILINE) == list(Certainty)


def test_the_tree_of_errors():
    [tree] = [block.source for block in read(ROOT / "docs" / "devices.md").blocks if "+-- NotConnectedError" in block.source]
    defined = {name for name, one in vars(exceptions).items() if isinstance(one, type) and one.__module__ == exceptions.__name__}
    published = {name for name in defined if issubclass(vars(exceptions)[name], exceptions.TBMQTTError)}
    assert set(re.findall(r"^(?:\+-- )?(\w+)", tree, re.MULTILINE)) == published
