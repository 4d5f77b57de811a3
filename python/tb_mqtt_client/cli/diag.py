"""``tb-mqtt diag``: write what a report about a problem needs into one archive, without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import platform
import ssl
import sys
import tarfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from tb_mqtt_client import __version__
from tb_mqtt_client.cli.agent_settings import agent_settings
from tb_mqtt_client.cli.checks import BAD, Examination
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.health_request import checked_url, health_of
from tb_mqtt_client.cli.options import Command, connection_options, output_options
from tb_mqtt_client.cli.running import run
from tb_mqtt_client.cli.secrets import Redactor
from tb_mqtt_client.cli.settings import SECRETS, ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal

PACKAGES = ("gmqtt", "click", "rich", "cryptography", "uvloop", "prometheus-client", "python-socks", "asyncinotify")
"""The packages whose versions matter."""
LOG_LINES = 10_000
"""The last lines of the log that are kept."""
INCLUDED_BYTES = 1024 * 1024
"""The last bytes of a file of the user that are included."""
HIDDEN = "***"

README = """\
This archive was written by tb-mqtt diag. It contains no access token, password or key; look through it before you send it.

versions.json       versions of this package, Python, the packages that it uses, and the system
configuration.json  the options of the client, without secrets, and where they come from
doctor.json         the findings of tb-mqtt doctor for each server
health.json         health() of the session of each server that doctor tested
running.json        health() of running programs: of the agent with health_port, and of those that were named with --health
errors.json         warnings and errors in the log of these sessions
log.txt             the whole log of these sessions, at the level DEBUG
included/           the ends of the files that were named with --include
"""


@click.command(cls=Command, short_help="Write an archive for a report about a problem.")
@click.option("-o", "--output", metavar="FILE", help="The archive.  [default: tb-mqtt-diag-TIME.tar.gz in this folder]")
@click.option("--include", metavar="FILE", multiple=True, help="A log or another text file to add, without secrets; repeatable.")
@click.option(
    "--health",
    "health_urls",
    metavar="URL",
    multiple=True,
    help="Where a running program serves its health, such as http://127.0.0.1:8080; repeatable.",
)
@click.option("--no-connect", is_flag=True, help="Do not connect to the server: no findings of doctor.")
@connection_options
@output_options
def diag(
    output: str | None,
    include: tuple[str, ...],
    health_urls: tuple[str, ...],
    no_connect: bool,
    connection: ConnectionOptions,
    terminal: Terminal,
) -> int:
    """Write what a report about a problem needs into one archive: versions, configuration, findings, health and log.

    Secrets are never in it: access token, passwords and the credentials of a proxy are replaced by *** in every file. It
    connects as doctor does, so a program that is connected with the same credentials loses its session for a moment.
    """
    settings = load(connection, terminal.redactor)
    urls = [checked_url(url) for url in health_urls]
    if (port := agent_settings(connection.config).health_port) is not None:
        urls.append(f"http://127.0.0.1:{port}")
    included = [(Path(name), _end_of(name)) for name in include]
    return run(_diagnose(settings, included, urls, output, terminal, connects=not no_connect))


async def _diagnose(
    settings: Settings,
    included: list[tuple[Path, str]],
    urls: list[str],
    output: str | None,
    terminal: Terminal,
    *,
    connects: bool,
) -> ExitCode:
    path = Path(output or time.strftime("tb-mqtt-diag-%Y%m%d-%H%M%S.tar.gz"))
    findings: list[dict[str, Any]] = []
    health: dict[str, Any] = {}
    # First, because a program with the same credentials loses its session when doctor connects.
    running = {url: await asyncio.to_thread(health_of, url) for url in urls}
    with _captured_log() as lines:
        for server in settings.config.servers() if connects else []:
            examination = Examination(settings, server)
            findings += [{"server": str(server)} | asdict(finding) async for finding in examination.findings()]
            health[str(server)] = examination.health
    archive = _Archive(terminal.redactor)
    archive.add_text("README.txt", README)
    archive.add("versions.json", _versions())
    archive.add("configuration.json", _configuration(settings))
    archive.add("doctor.json", findings)
    archive.add("health.json", health)
    if running:
        archive.add("running.json", running)
    archive.add("errors.json", [line for level, line in lines if level >= logging.WARNING])
    archive.add_text("log.txt", "".join(f"{line}\n" for _, line in lines))
    for number, (file, text) in enumerate(included, 1):
        archive.add_text(f"included/{number}-{file.name}", text)
    archive.write(path)
    bad = [described for described in findings if described["status"] == BAD]
    if terminal.as_json:
        terminal.document({"archive": str(path), "files": archive.names, "ok": not bad if connects else None})
        return ExitCode.DONE
    for described in bad:
        terminal.note(f"{described['server']}: {described['step']}: {described['finding']}", "bad")
    for url, response in running.items():
        if "error" in response:
            terminal.note(f"{url}: {response['error']}", "warning")
    terminal.line(f"{path}: {', '.join(archive.names)}")
    return ExitCode.DONE


class _Archive:
    """Files of an archive, in which secrets are replaced."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._files: dict[str, bytes] = {}

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return list(self._files)

    def add(self, name: str, value: Any) -> None:
        """Add a JSON value. Its texts are cleaned before JSON escapes some of their characters."""
        self.add_text(name, json.dumps(self._cleaned(value), indent=2, ensure_ascii=False) + "\n")

    def add_text(self, name: str, text: str) -> None:
        """Add a text."""
        clean = self._redactor.clean
        self._files[clean(name)] = clean(text).encode(errors="backslashreplace")

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redactor.clean(value)
        if isinstance(value, dict):
            return {self._redactor.clean(str(name)): self._cleaned(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._cleaned(one) for one in value]
        return value

    def write(self, path: Path) -> None:
        """Write the archive, which only its owner can read.

        Raises:
            CommandError: There is a file already, or it cannot be written.
        """
        folder = path.name.removesuffix(".gz").removesuffix(".tar")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, data in self._files.items():
                    member = tarfile.TarInfo(f"{folder}/{name}")
                    member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
                    archive.addfile(member, io.BytesIO(data))
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}", ExitCode.USAGE) from error


def _versions() -> dict[str, Any]:
    return {
        "tb_mqtt_client": __version__,
        "python": sys.version,
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: _version_of(name) for name in PACKAGES},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _configuration(settings: Settings) -> dict[str, Any]:
    config = settings.config
    options = {name: getattr(config, name) for name in config.option_names()}
    for name in SECRETS:
        if options.get(name) is not None:
            options[name] = HIDDEN
    return {
        "options": {name: value if isinstance(value, bool | int | float | None) else str(value) for name, value in options.items()},
        "host from": settings.origin_of_host,
        "credentials from": settings.origin_of_credentials,
        "store": None if settings.store is None else str(settings.store.path),
        "environment": sorted(name for name in os.environ if name.startswith("TB_")),
    }


def _end_of(name: str) -> str:
    """Return the last part of a text file.

    Raises:
        CommandError: The file cannot be read.
    """
    try:
        with open(name, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - INCLUDED_BYTES))
            # From the next line on: a secret that is cut in two would not be found.
            skipped = file.readline() if file.tell() else b""
            return (b"[...]\n" if skipped else b"").decode() + file.read().decode(errors="backslashreplace")
    except OSError as error:
        raise CommandError(f"--include: {name} cannot be read: {error.strerror}", ExitCode.USAGE) from error


class _Lines(logging.Handler):
    """Keeps the last lines of a log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: deque[tuple[int, str]] = deque(maxlen=LOG_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, self.format(record)))


@contextmanager
def _captured_log() -> Iterator[deque[tuple[int, str]]]:
    """Keep the log of the client and of gmqtt at the level DEBUG. What is printed stays as it was."""
    kept = _Lines()
    loggers = [logging.getLogger(name) for name in ("tb_mqtt_client", "gmqtt")]
    levels = [logger.level for logger in loggers]
    for handler in loggers[0].handlers:
        handler.setLevel(loggers[0].level)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(kept)
    try:
        yield kept.lines
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)
