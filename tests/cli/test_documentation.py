"""docs/cli.md describes every command, and every option, variable and key that it names exists."""

import dataclasses
import json
import re
from pathlib import Path

import click

from tb_mqtt_client.cli.agent_settings import AgentSettings
from tb_mqtt_client.cli.failures import ExitCode
from tb_mqtt_client.cli.settings import FILES_OF_SECRETS
from tb_mqtt_client.common.config_loader import GatewayConfig
from tb_mqtt_client.program import tb_mqtt as program

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def commands(group=program, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        yield (*path, name), command


def options(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def test_every_command_has_a_section():
    headings = " ".join(re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)).split()
    assert not [path for path, _ in commands() if path[0] not in headings]


def test_documented_options_exist():
    known = {name for _, command in commands() for name in options(command)}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", DOCUMENT))
    assert len(named) > 25
    assert named <= known


def test_examples_use_options_that_their_commands_have():
    known = dict(commands())
    examples = re.findall(r"^\$ (?:.*\| )?tb-mqtt (.*)$", DOCUMENT, re.MULTILINE)
    assert len(examples) >= 15
    for example in examples:
        words = example.split()
        command = known.get((*words[:2],)) or known[words[0],]
        assert set(re.findall(r"(?<!\S)(--[a-z-]+)", example)) <= options(command), example


def test_documented_variables_and_keys_are_read(monkeypatch):
    rows = re.findall(r"^\| [^|]+ \| `--[^|]+\| (`TB_[^|]+)\| ([^|]+)\|$", DOCUMENT, re.MULTILINE)
    variables = {name for row, _ in rows for name in re.findall(r"`TB_(\w+)`", row)}
    keys = {name for _, row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(rows) == 9
    assert keys <= {*GatewayConfig.option_names(), *FILES_OF_SECRETS}
    values = {"PORT": "1", "TLS": "1", "PROXY": "http://proxy:1"}
    for variable in variables:
        key = {"TLS": "use_system_ca"}.get(variable, variable.lower())
        default = getattr(GatewayConfig(), key)
        monkeypatch.setenv(f"TB_{variable}", values.get(variable, "value"))
        assert getattr(GatewayConfig(), key) != default, variable


def test_every_exit_code_is_documented():
    table = re.findall(r"^\| (\d+(?:, \d+)?) \|", DOCUMENT, re.MULTILINE)
    assert {int(code) for row in table for code in row.split(", ")} == set(ExitCode)


def test_keys_of_the_agent_are_documented_with_their_defaults():
    section = DOCUMENT.partition("\n## agent and config\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? *\|", section, re.MULTILINE)
    assert [name for name, _ in rows] == [field.name for field in dataclasses.fields(AgentSettings)]
    documented = {name: json.loads(default) if default else None for name, default in rows}
    # Without a field for the time, "ts" is read.
    assert documented == dataclasses.asdict(AgentSettings()) | {"ts_field": "ts"}
