"""``tb-mqtt send``: send telemetry or attributes of a device or of sub-devices, from arguments, NDJSON or CSV."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import click
from rich.progress import ProgressColumn, Task
from rich.text import Text

from tb_mqtt_client import DeviceClient, GatewayClient, GatewayConfig
from tb_mqtt_client.cli.column_sender import send_columns
from tb_mqtt_client.cli.columns import ColumnFile, ColumnFormat, Columns, format_of
from tb_mqtt_client.cli.consumer import SendOptions
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import SECONDS, Command, connection_options, output_options
from tb_mqtt_client.cli.reading import Batch, InputReader, Parse
from tb_mqtt_client.cli.records import Fields, Record, from_arguments, from_csv, from_ndjson
from tb_mqtt_client.cli.running import connected, run
from tb_mqtt_client.cli.sender import Sender, Totals
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.storer import StoredTotals, Storer, closing, open_writer
from tb_mqtt_client.cli.terminal import Bar, Terminal
from tb_mqtt_client.cli.times import DEFAULT_FIELD, GUESSED_FIELDS, Unit, parse_ts

DEVICE_FIELD = "device"
_OR_GUESSED = f"{', '.join(GUESSED_FIELDS[:-1])} or {GUESSED_FIELDS[-1]}"


@dataclass(frozen=True, slots=True)
class Source:
    """The records to send, or the file that contains them."""

    records: Batch
    """The records of the command line; empty if there is a file."""
    path: str | None = None
    """The file; ``-`` is standard input."""
    parse: Parse | None = None
    """Parses the lines of the file."""


@click.command(cls=Command)
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-f", "--file", "path", metavar="FILE", help="Read records from a file, or from - (standard input).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["ndjson", "csv", *(form.value for form in ColumnFormat)]),
    help="Format of the records.  [default: by the file's ending, else ndjson]",
)
@click.option("--delimiter", default=",", show_default=True, metavar="CHARACTER", help="Character between the cells of a CSV row.")
@click.option("-a", "--attributes", is_flag=True, help="Send client attributes instead of telemetry.")
@click.option("--ts", metavar="TIME", help="Time of KEY=VALUE: milliseconds since the epoch, or ISO 8601.  [default: now]")
@click.option(
    "--ts-field",
    metavar="NAME",
    help=f"Field or column with the time.  [default: {DEFAULT_FIELD}, or else {_OR_GUESSED}, if its values are times]",
)
@click.option("--no-guess-ts", is_flag=True, help=f"Never read the time from a field other than {DEFAULT_FIELD}.")
@click.option(
    "--ts-unit",
    type=click.Choice([unit.value for unit in Unit]),
    help="Unit of times that are numbers.  [default: ms; numbers that look like another unit are refused]",
)
@click.option("--gateway", is_flag=True, help="Send for sub-devices of this gateway; each record names its sub-device.")
@click.option("--device-field", metavar="NAME", help=f"Field or column with the sub-device's name.  [default: {DEVICE_FIELD}]")
@click.option("--device", metavar="NAME", help="Sub-device of KEY=VALUE; implies --gateway.")
@click.option("--device-profile", default="default", show_default=True, metavar="NAME", help="Profile of new sub-devices.")
@click.option("--skip-bad", is_flag=True, help="Skip and report malformed lines (exit code 5 if any was skipped).")
@click.option(
    "--store",
    "store_path",
    metavar="PATH",
    help="Put the records into this store and do not connect; tb-mqtt store drain sends them.",
)
@click.option("--timeout", **SECONDS, default=120.0, help="Give up after this long without an acknowledgement.  [default: 120]")
@connection_options
@output_options
def send(
    values: tuple[str, ...],
    path: str | None,
    form: str | None,
    delimiter: str,
    attributes: bool,
    ts: str | None,
    ts_field: str | None,
    no_guess_ts: bool,
    ts_unit: str | None,
    gateway: bool,
    device_field: str | None,
    device: str | None,
    device_profile: str,
    skip_bad: bool,
    store_path: str | None,
    timeout: float,
    connection: ConnectionOptions,
    terminal: Terminal,
) -> int:
    """Send telemetry or client attributes.

    \b
      tb-mqtt send temperature=21.5 state=on
      tb-mqtt send --file history.csv
      tail -f log.ndjson | tb-mqtt send --gateway --device-field meter

    A value that is valid JSON (21.5, true, [1,2], "7") is sent as JSON, any other as text. NDJSON: one object per line,
    {"temperature": 21.5}, with its time as {"ts": 1700000000000, "values": {...}} or beside the values. CSV: a header, then
    one row per record; an empty cell is not a value. Parquet and Arrow files (extra "table") have a column per key.
    Times are milliseconds since the epoch, or ISO 8601 with an offset
    from UTC.

    At the end it prints the totals, in datapoints. The exit code is 0 only if the server acknowledged all of them and
    none was superseded by a later value with the same key and time.

    With --store it returns as soon as the records are on disk, also without a network. The exit code is 0 if all of them
    are. While another process uses the store, it waits for --timeout.
    """  # noqa: D301  # \b is click's own mark
    gateway = gateway or device is not None or device_field is not None
    unit = None if ts_unit is None else Unit(ts_unit)
    if values:
        if path is not None:
            raise click.UsageError("KEY=VALUE and --file: give only one of them")
        if gateway and device is None:
            raise click.UsageError("--device NAME is needed with --gateway and KEY=VALUE")
        source = Source([_from_arguments(values, device, ts, attributes, unit)])
    else:
        if device is not None or ts is not None:
            raise click.UsageError(
                "--device and --ts need KEY=VALUE; records in a file have their own (--device-field, --ts-field)"
            )
        if ts_field is not None and no_guess_ts:
            raise click.UsageError("--ts-field and --no-guess-ts: give only one of them")
        # A service may be started without a standard input.
        if path is None and (sys.stdin is None or sys.stdin.isatty()):
            raise click.UsageError("nothing to send: give KEY=VALUE, or --file FILE (- for standard input)")
        device_field = (device_field or DEVICE_FIELD) if gateway else None
        column_format = ColumnFormat(form) if form in set(ColumnFormat) else None if form else format_of(path)
        if column_format is not None:
            given = {"--attributes": attributes, "--skip-bad": skip_bad, "--store": store_path is not None}
            columns = Columns(ts_field, unit, not no_guess_ts, device_field)
            file = _column_file(
                path, column_format, columns, device_profile, [name for name, is_given in given.items() if is_given]
            )
            settings = load(connection, terminal.redactor, GatewayConfig)
            return run(_send_columns(GatewayClient if gateway else DeviceClient, settings, file, timeout, terminal))
        fields = Fields(device_field, ts_field, unit, guess_ts=not no_guess_ts, timeless=attributes)
        source = Source([], path or "-", _parser(form, path, delimiter, fields))
    settings = load(connection, terminal.redactor, GatewayConfig)
    options = SendOptions(attributes=attributes, timeout=timeout, device_profile=device_profile, skip_bad=skip_bad)
    if store_path is not None:
        return run(_store(store_path, settings, source, options, terminal))
    client_class = GatewayClient if gateway else DeviceClient
    return run(_send(client_class, settings, source, options, terminal))


def _column_file(path: str | None, form: ColumnFormat, columns: Columns, profile: str, unavailable: list[str]) -> ColumnFile:
    if unavailable:
        raise click.UsageError(f"{unavailable[0]} is not available for files of the format {form}")
    if path is None or path == "-":
        raise click.UsageError(f"--format {form} needs --file FILE; such a file cannot be read from standard input")
    return ColumnFile(path, form, columns, profile)


def _from_arguments(
    arguments: tuple[str, ...], device: str | None = None, ts: str | None = None, attributes: bool = False, unit: Unit | None = None
) -> Record:
    if attributes and ts is not None:
        raise click.UsageError("--ts: attributes have no time")
    try:
        return Record(0, device, None if ts is None else parse_ts(ts, unit), from_arguments(arguments))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _parser(form: str | None, path: str | None, delimiter: str, fields: Fields) -> Parse:
    if form is None:
        form = "csv" if path is not None and path.lower().endswith(".csv") else "ndjson"
    if form == "ndjson":
        return partial(from_ndjson, fields=fields)
    delimiter = delimiter.replace("\\t", "\t")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise click.UsageError("--delimiter must be one character, but not a quote or a line end; \\t is a tab")
    return partial(from_csv, fields=fields, delimiter=delimiter)


def send_values(values: tuple[str, ...], settings: Settings, timeout: float, terminal: Terminal) -> int:
    """Send ``KEY=VALUE`` arguments as client attributes of the connected device, and return the exit code.

    Args:
        values: The arguments.
        settings: Where to connect.
        timeout: Seconds without an acknowledgement after which sending gives up.
        terminal: Where to print.
    """
    source = Source([_from_arguments(values, attributes=True)])
    return run(_send(DeviceClient, settings, source, SendOptions(attributes=True, timeout=timeout), terminal))


async def _send(
    client_class: type[DeviceClient], settings: Settings, source: Source, options: SendOptions, terminal: Terminal
) -> ExitCode:
    client = client_class(settings.config)
    sender = Sender(client, options, terminal)
    began = time.monotonic()
    failed = True
    try:
        with _opened(source) as (reader, size):
            async with connected(client, settings):
                with terminal.progress("sending", size, _Acknowledged(client)) as bar:
                    await sender.send_all(_with_progress(reader, bar, size) if reader else _one_batch(source.records))
        failed = False
    except asyncio.CancelledError:
        # The user ended the command, which is not a failure.
        failed = False
        raise
    finally:
        # The client is stopped, so these numbers are final. They are printed after a failure and after Ctrl-C too.
        seconds = time.monotonic() - began
        totals = Totals(
            client.statistics,
            sender.records,
            sender.timeless,
            sender.bad_lines,
            seconds,
            attributes=options.attributes,
            failed=failed,
        )
        if totals.statistics.connections:
            totals.show(terminal)
    return totals.exit_code()


async def _send_columns(
    client_class: type[DeviceClient], settings: Settings, file: ColumnFile, timeout: float, terminal: Terminal
) -> ExitCode:
    client = client_class(settings.config)
    began = time.monotonic()
    failed = True
    try:
        async with connected(client, settings):
            with terminal.progress("sending", None, _Acknowledged(client)):
                await send_columns(client, file, timeout)
        failed = False
    except asyncio.CancelledError:
        # The user ended the command, which is not a failure.
        failed = False
        raise
    finally:
        # Printed after a failure and after Ctrl-C too, as in `_send`.
        seconds = time.monotonic() - began
        totals = Totals(client.statistics, file.rows, 0, 0, seconds, attributes=False, failed=failed)
        if totals.statistics.connections:
            totals.show(terminal)
    return totals.exit_code()


async def _store(path: str, settings: Settings, source: Source, options: SendOptions, terminal: Terminal) -> ExitCode:
    began = time.monotonic()
    with _opened(source) as (reader, size):
        writer = await open_writer(path, settings, options.timeout)
        with closing(writer):
            storer = Storer(writer, options, terminal)
            try:
                with terminal.progress("storing", size) as bar:
                    await storer.store_all(_with_progress(reader, bar, size) if reader else _one_batch(source.records))
            finally:
                # Printed after a failure and after Ctrl-C too: what was written is safe.
                seconds = time.monotonic() - began
                sums = storer.records, storer.timeless, storer.bad_lines, seconds
                totals = StoredTotals(path, settings.target, writer.written, writer.in_store, *sums)
                totals.show(terminal)
    return totals.exit_code()


@contextmanager
def _opened(source: Source) -> Iterator[tuple[InputReader | None, int | None]]:
    """Open the file of a source for the block.

    Yields:
        A reader, and the size of the file in bytes if it is known; ``None`` and ``None`` if the source is not a file.
    """
    if source.path is None or source.parse is None:
        yield None, None
        return
    if source.path == "-" and sys.stdin is None:
        raise CommandError("--file -: there is no standard input", ExitCode.USAGE)
    try:
        descriptor = sys.stdin.fileno() if source.path == "-" else os.open(source.path, os.O_RDONLY)
    except OSError as error:
        raise CommandError(f"{source.path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise CommandError(f"{source.path} cannot be read: {os.strerror(errno.EISDIR)}", ExitCode.USAGE)
        yield InputReader(descriptor, source.parse), status.st_size if stat.S_ISREG(status.st_mode) else None
    finally:
        if source.path != "-":
            os.close(descriptor)


async def _one_batch(records: Batch) -> AsyncIterator[Batch]:
    yield records


async def _with_progress(reader: InputReader, bar: Bar, size: int | None) -> AsyncIterator[Batch]:
    async for batch in reader.batches():
        yield batch
        bar.reached(reader.bytes_read, size)


class _Acknowledged(ProgressColumn):
    """Shows how many datapoints the client has accepted, and how many of them are acknowledged."""

    def __init__(self, client: DeviceClient) -> None:
        super().__init__()
        self._client = client

    def render(self, task: Task) -> Text:
        statistics = self._client.statistics
        return Text(f"{statistics.acknowledged:,} of {statistics.accepted:,} datapoints acknowledged")
