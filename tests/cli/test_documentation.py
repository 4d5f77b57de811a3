"""docs/cli.md keeps its word: every command is there, and what it names exists."""

import re
from pathlib import Path

import click

from tb_mqtt_client.cli.failures import ExitCode
from tb_mqtt_client.cli.program import tb_mqtt as program
from tb_mqtt_client.cli.settings import FILES_OF_SECRETS
from tb_mqtt_client.common.config_loader import GatewayConfig

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def commands(group=program, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        yield (*path, name), command


def options(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def test_every_command_has_its_place():
    headings = " ".join(re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)).split()
    assert not [path for path, _ in commands() if path[0] not in headings]


def test_the_options_exist():
    known = {name for _, command in commands() for name in options(command)}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", DOCUMENT))
    assert len(named) > 25
    assert named <= known


def test_the_examples_use_options_of_their_commands():
    known = dict(commands())
    examples = re.findall(r"^\$ (?:.*\| )?tb-mqtt (.*)$", DOCUMENT, re.MULTILINE)
    assert len(examples) >= 15
    for example in examples:
        words = example.split()
        command = known.get((*words[:2],)) or known[words[0],]
        assert set(re.findall(r"(?<!\S)(--[a-z-]+)", example)) <= options(command), example


def test_the_settings_of_the_table_exist():
    rows = re.findall(r"^\| [^|]+ \| `--[^|]+\| (`TB_[^|]+)\| ([^|]+)\|$", DOCUMENT, re.MULTILINE)
    variables = {name for row, _ in rows for name in re.findall(r"`TB_(\w+)`", row)}
    keys = {name for _, row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(rows) == 9
    assert variables <= {option.variable for option in GatewayConfig._options.values()}
    assert keys <= {*GatewayConfig.option_names(), *FILES_OF_SECRETS}


def test_every_exit_code_is_explained():
    table = re.findall(r"^\| (\d+(?:, \d+)?) \|", DOCUMENT, re.MULTILINE)
    assert {int(code) for row in table for code in row.split(", ")} == set(ExitCode)
