"""``tb-mqtt doctor``: check a connection step by step."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click
from rich.text import Text

from tb_mqtt_client.cli.checks import BAD, STEPS, WARNING, Examination, Finding
from tb_mqtt_client.cli.failures import ExitCode
from tb_mqtt_client.cli.options import Command, connection_options, output_options
from tb_mqtt_client.cli.running import run
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal, counted

_WIDTH = max(len(step) for step in STEPS)


@click.command(cls=Command)
@connection_options
@output_options
def doctor(connection: ConnectionOptions, terminal: Terminal) -> int:
    """Check a connection step by step.

    The steps are settings, name, TCP, TLS, clock, protocol, credentials, limits and payload size. Each prints a finding
    and, if something is wrong, what to try next. If several servers are given, each one is checked. Nothing is stored on
    the server. A program that is connected with the same credentials loses its session for a moment. The exit code is 0
    if no step failed, else 1.
    """
    return run(_examine(load(connection, terminal.redactor), terminal))


async def _examine(settings: Settings, terminal: Terminal) -> ExitCode:
    findings = []
    servers = settings.config.servers()
    for server in servers:
        if len(servers) > 1 and not terminal.as_json:
            terminal.line(f"{server}:")
        async for finding in Examination(settings, server).findings():
            findings.append((server, finding))
            if not terminal.as_json:
                _show(finding, terminal)
    statuses = Counter(finding.status for _, finding in findings)
    if terminal.as_json:
        described = [{"server": str(server)} | asdict(finding) for server, finding in findings]
        terminal.document({"ok": not statuses[BAD], "findings": described})
    elif statuses[BAD]:
        terminal.line(terminal.marked(terminal.out, "bad", "the connection does not work"))
    else:
        warnings = f", with {counted(statuses[WARNING], 'warning')}" if statuses[WARNING] else ""
        terminal.line(terminal.marked(terminal.out, "good", f"the connection works{warnings}"))
    return ExitCode.REFUSED if statuses[BAD] else ExitCode.DONE


def _show(finding: Finding, terminal: Terminal) -> None:
    clean = terminal.redactor.clean
    terminal.line(terminal.marked(terminal.out, finding.status, f"{finding.step:{_WIDTH}}  {clean(finding.finding)}"))
    if finding.advice:
        advice = terminal.marked(terminal.out, "next", clean(finding.advice))
        terminal.line(Text(" " * (_WIDTH + 4)).append_text(advice))
    if finding.topic:
        terminal.line(f"{'':{_WIDTH + 6}}(docs/troubleshooting.md#{finding.topic})")
