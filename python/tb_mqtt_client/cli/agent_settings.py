"""The table ``[agent]`` of a configuration file: where ``tb-mqtt agent`` reads, and how."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.line_protocol import from_line_protocol
from tb_mqtt_client.cli.reading import Parse
from tb_mqtt_client.cli.records import Fields, from_csv, from_ndjson
from tb_mqtt_client.cli.settings import AGENT_TABLE, table_of
from tb_mqtt_client.cli.times import Unit
from tb_mqtt_client.common.json_annotations import json_type
from tb_mqtt_client.common.options import nearest_option


@dataclass(frozen=True)
class AgentSettings:
    """The keys of the table."""

    socket: str | None = None
    """The path of a UNIX socket to listen on, relative to the file. With neither ``socket`` nor ``directory``, standard input is
    read."""
    directory: str | None = None
    """The path of a directory of files to read, relative to the file."""
    pattern: str = "*"
    """The names of files to read in the directory."""
    after: Literal["delete", "rename"] = "delete"
    """What happens to a file whose data is safe; ``rename`` appends ``.done``."""
    format: Literal["ndjson", "csv", "line"] = "ndjson"
    """The format of the input; ``line`` is InfluxDB's line protocol."""
    gateway: bool = False
    """Whether each record names the sub-device that it belongs to."""
    device_field: str = "device"
    """The field, column or tag with the name of the sub-device."""
    device_profile: str = "default"
    """The profile of sub-devices that the platform creates."""
    attributes: bool = False
    """Whether the values are client attributes instead of telemetry."""
    ts_field: str | None = None
    """The field or column with the time; ``None`` for ``ts``. It is never guessed, since a service cannot show the guess."""
    ts_unit: Literal["ms", "s", "us", "ns"] | None = None
    """The unit of times that are numbers. ``None``: milliseconds, or nanoseconds in the line protocol."""
    stop_timeout: float = 20.0
    """Seconds that the agent sends on after SIGTERM. What is left then stays in the store."""
    health_port: int | None = None
    """The TCP port on 127.0.0.1 for health checks; ``None`` for none."""

    def parser(self) -> Parse:
        """Return what parses the lines of an input."""
        device = self.device_field if self.gateway else None
        unit = None if self.ts_unit is None else Unit(self.ts_unit)
        found = Fields(device, self.ts_field, unit, guess_ts=False, timeless=self.attributes)
        return partial({"ndjson": from_ndjson, "csv": from_csv, "line": from_line_protocol}[self.format], fields=found)

    @property
    def source(self) -> str:
        """What the agent reads, for messages."""
        if self.directory is not None:
            return f"the directory {self.directory}"
        return "standard input" if self.socket is None else f"the socket {self.socket}"


def agent_settings(path: str | None) -> AgentSettings:
    """Read the table of a configuration file.

    Args:
        path: The file; ``None`` for the defaults.

    Raises:
        CommandError: The table has an unknown key, or a value that is not possible.
    """
    if path is None:
        return AgentSettings()
    table = table_of(Path(path), AGENT_TABLE)
    known = [one.name for one in fields(AgentSettings)]
    where = f"[{AGENT_TABLE}] of {path}"
    if unknown := table.keys() - set(known):
        name = min(unknown)
        raise CommandError(
            f"{where}: unknown key {name!r}{nearest_option(name, known)}", ExitCode.USAGE, f"allowed are {', '.join(known)}"
        )
    try:
        settings: AgentSettings = json_type(AgentSettings, AGENT_TABLE).convert(table, AGENT_TABLE)
    except ValueError as error:
        raise CommandError(f"{where}: {error}", ExitCode.USAGE) from error
    if settings.socket is not None and settings.directory is not None:
        raise CommandError(f"{where}: socket and directory: give only one of them", ExitCode.USAGE)
    if settings.stop_timeout <= 0:
        raise CommandError(f"{where}: stop_timeout must be a positive number of seconds", ExitCode.USAGE)
    if settings.health_port is not None and not 0 < settings.health_port <= 65535:
        raise CommandError(f"{where}: health_port must be between 1 and 65535, not {settings.health_port}", ExitCode.USAGE)
    folder = Path(path).parent

    def in_folder(name: str | None) -> str | None:
        return None if name is None else str(folder / name)

    return replace(settings, socket=in_folder(settings.socket), directory=in_folder(settings.directory))
