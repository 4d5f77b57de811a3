"""``tb-mqtt firmware``: download, verify and save the assigned package."""

from __future__ import annotations

from typing import Any

import click
from rich.progress import DownloadColumn, TransferSpeedColumn

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import Command, connection_options, output_options
from tb_mqtt_client.cli.running import connected, run
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal
from tb_mqtt_client.constants.firmware import FirmwareStates
from tb_mqtt_client.service.ota.update import UpdateResult


@click.command(cls=Command)
@click.option(
    "--save",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, exists=True),
    default=".",
    help="Folder for the file.  [default: .]",
)
@click.option("--kind", type=click.Choice(["fw", "sw"]), default="fw", help="Firmware or software.  [default: fw]")
@click.option(
    "--current", nargs=2, metavar="TITLE VERSION", help="The installed package; if it is the assigned one, nothing is downloaded."
)
@click.option(
    "--chunk-size",
    metavar="BYTES",
    type=click.IntRange(1),
    help="Size of a chunk.  [default: 32768, or the most that the server allows]",
)
@connection_options
@output_options
def firmware(
    folder: str,
    kind: str,
    current: tuple[str, str] | None,
    chunk_size: int | None,
    connection: ConnectionOptions,
    terminal: Terminal,
) -> int:
    """Download, verify and save the assigned firmware.

    Verifies the checksum, and reports the states of an update to the platform: DOWNLOADING, DOWNLOADED, VERIFIED,
    UPDATING, and UPDATED once the file is saved, or FAILED with the reason. The exit code is 0 even if nothing is
    assigned.
    """
    settings = load(connection, terminal.redactor)
    return run(_update(settings, {"firmware_save_path": folder, "kind": kind, "chunk_size": chunk_size}, current, terminal))


async def _update(settings: Settings, options: dict[str, Any], current: tuple[str, str] | None, terminal: Terminal) -> ExitCode:
    client = DeviceClient(settings.config)
    if current is not None:
        _set_current(client, options["kind"], *current)
    async with connected(client, settings):
        with terminal.progress("downloading", None, DownloadColumn(), TransferSpeedColumn()) as bar:
            result = await (await client.update_firmware(on_progress=bar.reached, **options))
    _show(result, options["kind"], terminal)
    if result.state is FirmwareStates.FAILED:
        raise CommandError(f"The update failed: {result.error}", ExitCode.REFUSED)
    return ExitCode.DONE


def _set_current(client: DeviceClient, kind: str, title: str, version: str) -> None:
    updater = client.firmware_updater
    info = updater.current_firmware_info if kind == "fw" else updater.current_software_info
    info |= {f"current_{kind}_title": title, f"current_{kind}_version": version}


def _show(result: UpdateResult, kind: str, terminal: Terminal) -> None:
    package = result.package
    if terminal.as_json:
        names = ("title", "version", "tag", "size", "checksum", "checksum_algorithm", "url")
        described = {name: getattr(package, name, None) for name in names}
        path = None if result.path is None else str(result.path)
        terminal.document({"state": result.state.value, "kind": kind, **described, "path": path, "error": result.error})
    elif result.state is FirmwareStates.UPDATED and package is not None:
        text = f"{package.title} {package.version}, {package.size:,} bytes, {package.checksum_algorithm} verified: {result.path}"
        terminal.line(terminal.marked(terminal.out, "good", text))
    elif result.state is FirmwareStates.IDLE:
        text = "nothing is assigned" if package is None else f"{package.title} {package.version} is already installed"
        terminal.line(terminal.marked(terminal.out, "good", text))
