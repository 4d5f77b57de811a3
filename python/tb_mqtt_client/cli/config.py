"""``tb-mqtt config``: check a configuration file without connecting."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tb_mqtt_client import GatewayConfig
from tb_mqtt_client.cli.agent_settings import AgentSettings, agent_settings
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import Command, connection_options, output_options
from tb_mqtt_client.cli.settings import ConnectionOptions, load
from tb_mqtt_client.cli.terminal import Terminal


@click.group()
def config() -> None:
    """Check configuration files."""


@config.command(cls=Command)
@connection_options
@output_options
def check(connection: ConnectionOptions, terminal: Terminal) -> int:
    """Check the settings of a connection, and the table [agent] of the file, without connecting.

    \b
      tb-mqtt config check --config agent.toml

    The exit code is 0 if a command can use these settings, and 2 if not. doctor checks the connection itself.
    """  # noqa: D301  # \b is click's own mark
    settings = load(connection, terminal.redactor, GatewayConfig)
    agent = agent_settings(connection.config)
    _check_paths(agent)
    store = None if settings.store is None else str(settings.store.path)
    if store is None and agent != AgentSettings():
        raise CommandError("The agent needs a store", ExitCode.USAGE, "set store = PATH in the file, or TB_STORE")
    if terminal.as_json:
        terminal.document({"servers": settings.target, "credentials": settings.origin_of_credentials, "store": store})
        return ExitCode.DONE
    terminal.line(f"server: {settings.target} ({settings.origin_of_host})")
    terminal.line(f"credentials: from {settings.origin_of_credentials}" if settings.origin_of_credentials else "credentials: none")
    terminal.line(f"store: {store or 'none'}")
    if store is not None:
        terminal.line(f"agent: reads {agent.source}")
    return ExitCode.DONE


def _check_paths(agent: AgentSettings) -> None:
    if agent.directory is not None and not os.access(agent.directory, os.R_OK | os.W_OK | os.X_OK):
        text = f"[agent]: directory: {agent.directory} is not a directory that files can be removed from"
        raise CommandError(text, ExitCode.USAGE)
    if agent.socket is not None and not os.access(Path(agent.socket).parent, os.W_OK | os.X_OK):
        raise CommandError(f"[agent]: socket: {Path(agent.socket).parent} is not a directory that is writable", ExitCode.USAGE)
