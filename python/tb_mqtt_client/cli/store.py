"""``tb-mqtt store``: inspect, verify and export the store of a client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from tb_mqtt_client.cli.details import write_details
from tb_mqtt_client.cli.drain import drain
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import Command, output_options
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.service.store.contents import StoreContents, StoredRecord, StoredSend
from tb_mqtt_client.service.store.log import PRIORITIES

AGES = (
    (60, "under 1 minute"),
    (3600, "under 1 hour"),
    (86_400, "under 1 day"),
    (7 * 86_400, "under 1 week"),
    (None, "1 week and more"),
)
"""Upper bounds of the groups of ages in seconds, and their names."""
DEFAULT_PROFILE = "default"
"""The profile of sub-devices for which the program gave none."""
CONNECTED_DEVICE = "(connected device)"


@click.group()
def store() -> None:
    """Look into the disk store of a client, and send its data.

    \b
      tb-mqtt store inspect /var/lib/meter/queue
      tb-mqtt store export /var/lib/meter/queue > backlog.ndjson
      tb-mqtt store drain /var/lib/meter/queue --host platform.example --token-file token
    """  # noqa: D301  # \b is click's own mark


store.add_command(drain)


@contextmanager
def opened(path: str) -> Iterator[StoreContents]:
    """Open a store for reading.

    Raises:
        CommandError: The path has no store, or the store cannot be read.
    """
    try:
        contents = StoreContents(path)
    except OSError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    try:
        with contents:
            yield contents
    except OSError as error:
        advice = "if a client uses the store, it may just have removed a file: run the command again"
        raise CommandError(f"{path} cannot be read: {error}", ExitCode.REFUSED, advice) from error


@dataclass(slots=True)
class _Sums:
    sends: int = 0
    telemetry: int = 0
    attributes: int = 0
    nbytes: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None

    def add(self, send: StoredSend) -> None:
        uplink, accepted = send.uplink, send.accepted_ms
        self.sends += 1
        self.telemetry += uplink.timeseries_count
        self.attributes += uplink.attribute_count
        self.nbytes += uplink.nbytes
        self.oldest_ms = accepted if self.oldest_ms is None else min(accepted, self.oldest_ms)
        self.newest_ms = accepted if self.newest_ms is None else max(accepted, self.newest_ms)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Inspection:
    """The sums of a store: all of it, by device and by age."""

    now_ms: int
    total: _Sums = field(default_factory=_Sums)
    devices: dict[str | None, _Sums] = field(default_factory=dict)
    ages: list[_Sums] = field(default_factory=lambda: [_Sums() for _ in AGES])

    def add(self, send: StoredSend) -> None:
        self.total.add(send)
        sums = self.devices.get(send.device)
        if sums is None:
            sums = self.devices[send.device] = _Sums()
        sums.add(send)
        age = (self.now_ms - send.accepted_ms) / 1000
        self.ages[next(index for index, (end, _) in enumerate(AGES) if end is None or age < end)].add(send)

    def by_device(self) -> list[tuple[str | None, _Sums]]:
        """Return the sums of each device, by name; the connected device is the first."""
        return sorted(self.devices.items(), key=lambda item: (item[0] is not None, item[0] or ""))


@store.command(cls=Command)
@click.argument("path", metavar="PATH")
@output_options
def inspect(path: str, terminal: Terminal) -> int:
    """Show what is in a store: totals, and counts by device and by age.

    A client may use the store at the same time. Nothing is changed.
    """
    with opened(path) as contents:
        inspection = _Inspection(time.time_ns() // 1_000_000)
        with terminal.progress("reading", contents.sends) as bar:
            for attributes in (True, False):
                for sends in contents.batches(attributes=attributes):
                    for send in sends:
                        inspection.add(send)
                    bar.reached(inspection.total.sends, contents.sends)
        quarantined, quarantined_bytes = contents.quarantined()
        if terminal.as_json:
            terminal.document(
                {
                    "path": path,
                    "owner": contents.owner,
                    **inspection.total.as_dict(),
                    "disk_bytes": contents.disk_bytes,
                    "damaged_places": contents.damaged_places,
                    "damaged_bytes": contents.damaged_bytes,
                    "quarantined_files": quarantined,
                    "quarantined_bytes": quarantined_bytes,
                    "devices": [{"device": name} | sums.as_dict() for name, sums in inspection.by_device()],
                    "ages": [{"under_seconds": end} | sums.as_dict() for (end, _), sums in zip(AGES, inspection.ages, strict=True)],
                }
            )
            return ExitCode.DONE
        _show(terminal, path, contents, inspection)
        if contents.damaged_places:
            terminal.note(f"{contents.damaged_bytes:,} bytes cannot be read; tb-mqtt store verify has details", "warning")
        if quarantined:
            terminal.line(f"quarantine: {counted(quarantined, 'file')} with {quarantined_bytes:,} unreadable bytes")
    return ExitCode.DONE


def _show(terminal: Terminal, path: str, contents: StoreContents, inspection: _Inspection) -> None:
    total = inspection.total
    datapoints = counted(total.telemetry + total.attributes, "datapoint")
    sends = counted(total.sends, "send")
    terminal.line(f"{path}: {datapoints} in {sends}, {total.nbytes:,} bytes; {contents.disk_bytes:,} on disk")
    # Without the hash of the credential.
    terminal.line(f"for {contents.owner.partition(' ')[0]}")
    if not total.sends:
        return
    terminal.line()
    rows = [(CONNECTED_DEVICE if name is None else name, sums) for name, sums in inspection.by_device()]
    for line in _table("device", rows):
        terminal.line(line)
    terminal.line()
    ages = [(name, sums) for (_, name), sums in zip(AGES, inspection.ages, strict=True) if sums.sends]
    for line in _table("age", ages):
        terminal.line(line)


def _table(title: str, rows: Iterable[tuple[str, _Sums]]) -> list[str]:
    """Return lines with aligned columns: a name, counts, and when the oldest send was accepted."""
    head = (title, "sends", "telemetry", "attributes", "bytes", "oldest")
    cells = [
        (name, f"{sums.sends:,}", f"{sums.telemetry:,}", f"{sums.attributes:,}", f"{sums.nbytes:,}", utc(sums.oldest_ms))
        for name, sums in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in (head, *cells)
    ]  # fmt: skip


def utc(ms: int | None) -> str:
    """Return a time as text, such as ``2026-01-31 12:00:00 UTC``; a dash for no time or one that no calendar has."""
    try:
        return "-" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return "-"


@store.command(cls=Command)
@click.argument("path", metavar="PATH")
@output_options
def verify(path: str, terminal: Terminal) -> int:
    """Read every byte of a store, and check it.

    The exit code is 1 if something cannot be read. Nothing is changed: the client moves unreadable bytes aside, into
    the folder quarantine, when it opens the store, and uses the rest.
    """
    with opened(path) as contents:
        result = contents.verify()
        quarantined, quarantined_bytes = contents.quarantined()
        is_damaged = bool(result.faults or contents.damaged_places)
        if terminal.as_json:
            terminal.document(
                {
                    "path": path,
                    "files": result.files,
                    "frames": result.frames,
                    "bytes": result.nbytes,
                    "sends": contents.sends,
                    "datapoints": contents.datapoints,
                    "damaged_places": contents.damaged_places,
                    "damaged_bytes": contents.damaged_bytes,
                    "faults": [fault._asdict() for fault in result.faults],
                    "quarantined_files": quarantined,
                    "quarantined_bytes": quarantined_bytes,
                }
            )
            return ExitCode.REFUSED if is_damaged else ExitCode.DONE
        if places := contents.damaged_places - len(contents.obstacles):
            text = f"{contents.damaged_bytes:,} bytes at {counted(places, 'place')} cannot be read"
            terminal.line(terminal.marked(terminal.out, "bad", text))
        for fault in result.faults:
            where = f"{fault.nbytes:,} bytes from {fault.offset:,} on: " if fault.nbytes else ""
            text = f"{fault.file}: {where}{fault.reason}"
            terminal.line(terminal.marked(terminal.out, "bad", text))
        summary = (
            f"{counted(result.files, 'file')}, {result.nbytes:,} bytes in {counted(result.frames, 'frame')} with correct "
            f"checksums, {counted(contents.datapoints, 'datapoint')} to send"
        )
        terminal.line(terminal.marked(terminal.out, "warning" if is_damaged else "good", summary))
        if quarantined:
            terminal.line(f"quarantine: {counted(quarantined, 'file')} with {quarantined_bytes:,} unreadable bytes from earlier")
    return ExitCode.REFUSED if is_damaged else ExitCode.DONE


@store.command(cls=Command)
@click.argument("path", metavar="PATH")
@click.option("-a", "--attributes", is_flag=True, help="Export attributes instead of telemetry.")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Only this sub-device; may be repeated.")
@click.option("--sub-devices", is_flag=True, help="Only data of sub-devices.")
@click.option("--own", is_flag=True, help="Only data of the connected device itself.")
@output_options
def export(path: str, attributes: bool, devices: tuple[str, ...], sub_devices: bool, own: bool, terminal: Terminal) -> int:
    """Print the data of a store as NDJSON, in the form that send reads. Nothing is changed.

    \b
      tb-mqtt store export queue --own | tb-mqtt send
      tb-mqtt store export queue | tb-mqtt send --gateway
      tb-mqtt store export queue --attributes | tb-mqtt send --attributes

    Each line is {"device": NAME, "ts": MS, "values": {...}}, without the device for data of the connected device, and
    without ts for attributes. If a send has more than these, its lines have it next to the values: profile, metadata,
    priority, and expires (a time).
    """  # noqa: D301  # \b is click's own mark
    if own + sub_devices + bool(devices) > 1:
        raise click.UsageError("--own, --sub-devices and --device: give only one of them")

    def is_wanted(device: str | None) -> bool:
        if devices:
            return device in devices
        return not (own and device is not None) and not (sub_devices and device is None)

    kinds: set[bool] = set()
    with opened(path) as contents:
        exported = 0
        # A send may have both kinds, so sends with attributes are read for telemetry, too.
        for lane in (True,) if attributes else (True, False):
            for sends in contents.batches(attributes=lane):
                chosen = [send for send in sends if is_wanted(send.device)]
                kinds.update(send.device is None for send in chosen)
                documents = [document for send in chosen for document in _documents(send, attributes=attributes)]
                exported += len(documents)
                terminal.documents(documents)
        if len(kinds) > 1:
            terminal.note(
                "the export has data of the connected device and of sub-devices, which send reads separately: "
                "export --own and --sub-devices into two files",
                "warning",
            )
        if not exported:
            terminal.note(f"{path} has no {'attributes' if attributes else 'telemetry'} to export")
    return ExitCode.DONE


def _records(send: StoredSend, *, attributes: bool) -> Iterable[StoredRecord]:
    if not attributes:
        return send.timeseries()
    record = send.attributes()
    return () if record is None else (record,)


def _documents(send: StoredSend, *, attributes: bool) -> Iterator[dict[str, Any]]:
    """Yield the lines of a send."""
    # Data for this profile is sent without naming it.
    profile = None if send.profile == DEFAULT_PROFILE else send.profile
    metadata = None if attributes else send.metadata()
    details = write_details(profile, metadata, PRIORITIES[send.priority], send.expires_ms)
    for record in _records(send, attributes=attributes):
        document: dict[str, Any] = {} if record.device is None else {"device": record.device}
        if record.ts is not None:
            document["ts"] = record.ts
        yield document | details | {"values": record.values}
