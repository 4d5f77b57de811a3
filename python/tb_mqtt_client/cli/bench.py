"""``tb-mqtt bench``: measure encoding, packing and sending, and compare them with other programs for the same data."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tb_mqtt_client import GatewayConfig
from tb_mqtt_client.bench.corpus import FIRST_TS, Corpus, Shape, corpus_of, generate, parse_mix
from tb_mqtt_client.bench.peers import OWN, Peer, importable_sdks, sdk_at, serializers
from tb_mqtt_client.bench.running import Bench, Limits, Measurement, Servers, emulators
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import SECONDS, Command, output_options, server_options
from tb_mqtt_client.cli.reading import numbered_lines
from tb_mqtt_client.cli.records import BadLine, Fields, Record, from_ndjson
from tb_mqtt_client.cli.running import run
from tb_mqtt_client.cli.settings import ConnectionOptions, load
from tb_mqtt_client.cli.terminal import Terminal, counted

WORKS: dict[str, tuple[str, str]] = {
    "encode": ("dicts", "encoded sends"),
    "split": ("dicts", "payloads"),
    "send": ("dicts", "acknowledgements"),
}
"""What each measured work starts from, and what it ends with."""
ROUND = 100_000
"""Datapoints in a round, unless --sends is given."""
DEFAULT_MIX = "float=5,int=3,str,bool"
LARGEST_PACKET: int = 2**28 - 1


@dataclass(frozen=True, slots=True)
class Options:
    """The options that the three measurements share."""

    corpus: Corpus
    file: str | None
    limits: Limits
    repetitions: int
    sdks: list[Peer]
    profile: str | None
    timeout: float


@click.group(short_help="Measure this package with data of your shape.")
def bench() -> None:
    """Measure this package with data of your shape, and compare it with other programs.

    \b
      tb-mqtt bench split --devices 50 --datapoints 100
      tb-mqtt bench encode --values nested --keys 20
      tb-mqtt bench send --corpus history.ndjson --sdk .venv/peers/sdk1

    Each program runs in a process of its own. What it produces in the first round is compared with the data; the rounds
    after it are measured.
    """  # noqa: D301  # \b is click's own mark


def _shape_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of the corpus, the limits and the peers to a command, which receives them as ``options: Options``."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        devices: int,
        keys: int,
        datapoints: int,
        timestamps: int | None,
        sends: int | None,
        values: str,
        corpus_path: str | None,
        max_payload: int,
        max_datapoints: int,
        repetitions: int,
        sdks: tuple[str, ...],
        profile: str | None,
        timeout: float,
        **kwargs: Any,
    ) -> int:
        context = click.get_current_context()
        shaping = ("devices", "keys", "datapoints", "timestamps", "sends", "values")
        given = [name for name in shaping if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
        if corpus_path is not None:
            if given:
                raise click.UsageError(f"--corpus and --{given[0]}: give only one of them; the file has its own shape")
            corpus = read_corpus(corpus_path)
        else:
            try:
                per_send = timestamps or -(-datapoints // keys)
                shape = Shape(devices, keys, datapoints, per_send, sends or max(1, ROUND // datapoints), parse_mix(values))
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            corpus = generate(shape)
        try:
            found = [sdk_at(place) for place in sdks] or importable_sdks(sys.path)
        except ValueError as error:
            raise click.UsageError(f"--sdk: {error}") from error
        if profile is not None and shutil.which("py-spy") is None:
            raise CommandError("--profile needs py-spy, which is not on PATH", ExitCode.USAGE, "pip install py-spy")
        limits = Limits(max_payload, max_datapoints)
        options = Options(corpus, corpus_path, limits, repetitions, found, profile, timeout)
        return command(*args, options=options, **kwargs)

    count = click.IntRange(min=1)
    decorators = (
        click.option("--devices", type=click.IntRange(min=0), default=0, metavar="N",
                     help="Sub-devices of a gateway, which send in turn.  [default: 0, a device with its own data]"),
        click.option("--keys", type=count, default=10, show_default=True, metavar="N", help="Different keys of a device."),
        click.option("--datapoints", type=count, default=10, show_default=True, metavar="N", help="Datapoints in a send."),
        click.option("--timestamps", type=count, metavar="N",
                     help="Timestamps in a send.  [default: as few as the keys allow]"),
        click.option("--sends", type=count, metavar="N", help=f"Sends in a round.  [default: about {ROUND:,} datapoints]"),
        click.option("--values", default=DEFAULT_MIX, show_default=True, metavar="MIX",
                     help="Kinds of values, with weights: int, float, str, bool, nested."),
        click.option("--corpus", "corpus_path", metavar="FILE",
                     help="Measure the records of this NDJSON file, one send a line, in the form that send reads."),
        click.option("--max-payload", type=click.IntRange(64, LARGEST_PACKET), default=65_000, show_default=True, metavar="BYTES",
                     help="Largest payload."),
        click.option("--max-datapoints", type=click.IntRange(min=0), default=0, metavar="N",
                     help="Most datapoints in a payload; not for send.  [default: no limit]"),
        click.option("--repetitions", type=count, default=5, show_default=True, metavar="N",
                     help="Measured rounds of each program."),
        click.option("--sdk", "sdks", multiple=True, metavar="PATH",
                     help="Compare with SDK 1.x or 2.0 in this virtual environment or folder; may be repeated.  "
                     "[default: what is importable]"),
        click.option("--profile", metavar="FILE", help="Write a flame graph of this package (SVG); needs py-spy."),
        click.option("--timeout", **SECONDS, default=300.0, help="Give up a program after this long.  [default: 300]"),
    )  # fmt: skip
    wrapped: Callable[..., int] = gathered
    for decorator in reversed(decorators):
        wrapped = decorator(wrapped)
    return wrapped


def read_corpus(path: str) -> Corpus:
    """Return the records of an NDJSON file as sends.

    A record without a time gets one, a millisecond after the record before it, because the result is compared with the records.

    Raises:
        CommandError: The file cannot be read, or a line, which the message names, is not a record.
    """
    try:
        with Path(path).open("rb") as file:
            first = file.readline()
            file.seek(0)
            device = "device" if b'"device"' in first else None
            lines = numbered_lines(lambda: file.read(2**20))
            items = list(from_ndjson(lines, Fields(device, guess_ts=True)))
    except OSError as error:
        raise CommandError(f"--corpus: {path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except ValueError as error:
        raise CommandError(f"--corpus: {path}: {error}", ExitCode.USAGE) from error
    for item in items:
        if isinstance(item, BadLine):
            raise CommandError(f"--corpus: {path}, line {item.line}: {item.reason}", ExitCode.USAGE)
    records = [item for item in items if isinstance(item, Record)]
    if not records:
        raise CommandError(f"--corpus: {path} has no records", ExitCode.USAGE)
    return corpus_of(
        (one.device, [{"ts": FIRST_TS + index if one.ts is None else one.ts, "values": one.values}])
        for index, one in enumerate(records)
    )


@bench.command(cls=Command)
@_shape_options
@output_options
def encode(options: Options, terminal: Terminal) -> int:
    """Measure encoding: from dicts to sends that are encoded and not yet packed. Peers serialize each dict."""
    return run(_measured("encode", options, terminal, [OWN, *serializers()], nullcontext(None)))


@bench.command(cls=Command)
@_shape_options
@output_options
def split(options: Options, terminal: Terminal) -> int:
    """Measure encoding and packing: from dicts to payloads within the limits.

    This package combines sends. The splitter of an SDK makes payloads within the limits too; json and orjson write one
    document, whatever its size.
    """
    return run(_measured("split", options, terminal, [OWN, *options.sdks, *serializers()], nullcontext(None)))


@bench.command(cls=Command)
@_shape_options
@server_options
@output_options
def send(options: Options, connection: ConnectionOptions, terminal: Terminal) -> int:
    """Measure sending: from the first of all sends, which are not awaited, to the last acknowledgement.

    Without a host it sends to two emulators in a process of their own. With one it sends every round to that server, which
    stores the data; arrival is then not checked, only acknowledgement.
    """
    if options.limits.datapoints:
        raise click.UsageError("--max-datapoints: for sending, the server's limits apply")
    return run(_measured("send", options, terminal, [OWN, *options.sdks], _servers(options, connection, terminal)))


@asynccontextmanager
async def _servers(options: Options, connection: ConnectionOptions, terminal: Terminal) -> AsyncIterator[Servers]:
    """Yield the server of the options, or emulators."""
    if connection.host is None and "TB_HOST" not in os.environ:
        # The payload and the topic, and a few bytes for the header.
        async with emulators(options.corpus.is_gateway, options.limits.payload + 64) as servers:
            yield servers
        return
    config = load(connection, terminal.redactor, GatewayConfig).config
    if config.make_ssl_context() is not None or config.access_token is None:
        raise CommandError(
            "bench send needs an access token and a server without TLS, which all measured programs can use", ExitCode.USAGE
        )
    [first, *_] = config.servers()
    server = {"host": first.host, "port": first.port, "access_token": config.access_token}
    yield Servers(server, server, None)


async def _measured(work: str, options: Options, terminal: Terminal, peers: list[Peer], servers: Any) -> ExitCode:
    """Measure all programs, print the results, and return the exit code."""
    total = options.repetitions * len(peers)
    done = 0
    with tempfile.TemporaryDirectory(prefix="tb-mqtt-bench-") as folder, terminal.progress(f"measuring {work}", total) as bar:

        def reached() -> None:
            nonlocal done
            done += 1
            bar.reached(done, total)

        one = Bench(work, options.corpus, options.limits, options.repetitions, Path(folder), options.timeout, reached)
        async with _entered(servers) as opened:
            results = [(peer, await one.measure(peer, opened)) for peer in peers]
            if options.profile is not None:
                await _profile(one, opened, options.profile, terminal)
    _show(work, options, [measured for _, measured in results], terminal)
    own_failed = bool(results[0][1].problem or results[0][1].unavailable)
    named_failed = any(not measured.seconds for peer, measured in results if peer in options.sdks)
    return ExitCode.REFUSED if own_failed or named_failed else ExitCode.DONE


@asynccontextmanager
async def _entered(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager, asynchronous or not."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def _profile(one: Bench, servers: Servers | None, path: str, terminal: Terminal) -> None:
    """Measure this package again below py-spy, which writes a flame graph.

    Raises:
        CommandError: py-spy wrote no flame graph.
    """
    command = ["py-spy", "record", "--output", path, "--rate", "500"]
    if platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64"):
        # Names of functions of the native core.
        command.append("--native")
    measured = await one.measure(OWN, servers, (*command, "--"))
    if not os.path.exists(path):  # noqa: ASYNC240  # nothing else runs
        raise CommandError(
            f"py-spy wrote no flame graph: {measured.problem or 'no reason given'}",
            ExitCode.REFUSED,
            "in a container, py-spy needs the capability SYS_PTRACE",
        )
    terminal.note(f"flame graph: {path}", "good")


def _show(work: str, options: Options, results: list[Measurement], terminal: Terminal) -> None:
    if terminal.as_json:
        terminal.document(_document(work, options, results))
        return
    corpus = options.corpus
    start, end = WORKS[work]
    terminal.line(
        f"{start} to {end}: {counted(len(corpus.sends), 'send')}, {counted(corpus.datapoints, 'datapoint')}, "
        f"{corpus.json_bytes:,} bytes of JSON; medians of {counted(options.repetitions, 'round')}"
    )
    measured = [one for one in results if one.seconds]
    head = ("", "datapoints/s", "CPU/datapoint", "CPU/send", "payloads", "time")
    rows = [_row(one, corpus, measured[0]) for one in measured]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows) if rows else ():
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        terminal.line("  ".join(cells).rstrip())
    for one in results:
        if not one.seconds:
            reason = one.unavailable or one.problem
            terminal.line(terminal.marked(terminal.out, "skipped", f"{one.name} was not measured: {reason}"))
        elif one.problem:
            terminal.line(terminal.marked(terminal.out, "bad", f"{one.name} is not correct: {one.problem}"))
    if measured and not any(one.problem for one in measured):
        terminal.line(terminal.marked(terminal.out, "good", f"all {len(measured)} results equal the data"))


def _row(one: Measurement, corpus: Corpus, first: Measurement) -> tuple[str, ...]:
    seconds, cpu = one.median(), one.median_cpu()
    return (
        one.name,
        f"{corpus.datapoints / seconds:,.0f}",
        f"{cpu / corpus.datapoints * 1e9:,.0f} ns",
        f"{cpu / len(corpus.sends) * 1e6:,.2f} us",
        "" if one.payloads is None else f"{one.payloads:,}",
        f"{seconds / first.median():.2f} x",
    )


def _document(work: str, options: Options, results: list[Measurement]) -> dict[str, Any]:
    corpus = options.corpus
    start, end = WORKS[work]
    measured = []
    for one in results:
        if not one.seconds:
            continue
        seconds, cpu = one.median(), one.median_cpu()
        measured.append(
            {
                "name": one.name,
                "seconds": seconds,
                "seconds_of_rounds": one.seconds,
                "cpu_seconds": cpu,
                "cpu_seconds_of_rounds": one.cpu_seconds,
                "datapoints_per_second": corpus.datapoints / seconds,
                "cpu_seconds_per_datapoint": cpu / corpus.datapoints,
                "cpu_seconds_per_send": cpu / len(corpus.sends),
                "payloads": one.payloads,
                "payload_bytes": one.payload_bytes,
                "correct": not one.problem,
                "problem": one.problem or None,
            }
        )
    return {
        "bench": work,
        "from": start,
        "to": end,
        "corpus": {
            "file": options.file,
            "gateway": corpus.is_gateway,
            "sends": len(corpus.sends),
            "datapoints": corpus.datapoints,
            "json_bytes": corpus.json_bytes,
        },
        "limits": {"payload_bytes": options.limits.payload, "datapoints": options.limits.datapoints},
        "repetitions": options.repetitions,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "results": measured,
        "not_measured": [{"name": one.name, "reason": one.unavailable or one.problem} for one in results if not one.seconds],
    }
