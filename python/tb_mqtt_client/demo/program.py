"""The demo, from its arguments to its exit code.

Exit codes: 0 if every datapoint was acknowledged and the platform counted the same number; 1 if the numbers of the client
and the platform differ; 2 if the demo could not run; 3 if there is no connection.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from tb_mqtt_client import GatewayClient, GatewayConfig, run
from tb_mqtt_client.cli.failures import explain
from tb_mqtt_client.cli.terminal import visible
from tb_mqtt_client.common.exceptions import TBMQTTError
from tb_mqtt_client.demo.metrics import Machine
from tb_mqtt_client.demo.report import Bulk, Display, Outcome, Tally, show
from tb_mqtt_client.demo.traffic import DemoError, Results, Traffic
from tb_mqtt_client.emulator import Emulator

EMULATOR_TOKEN = "demo-gateway"
SECONDS_BETWEEN_FRAMES = 0.1
SECONDS_WITHOUT_RESULT = 120
"""A run without a result for this long hangs: no rate-limit window in use is longer than 60 s."""


@dataclass(frozen=True)
class Endpoint:
    """The server that receives the data."""

    config: GatewayConfig
    count: Callable[[], int] | None
    """Returns the platform's own count of datapoints. ``None`` for a real server, which does not report it."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m tb_mqtt_client.demo") -> int:
    """Run the demo and return its exit code.

    Args:
        arguments: The arguments, without the program's name. ``None``: those of the process.
        program: The name in the help and in errors.
    """
    options = _options(arguments, program)
    console, errors = Console(), Console(stderr=True)
    try:
        outcome = run(_run(options, console), sigterm_exit_code=143)
    except _NoConnectionError as error:
        errors.print(f"[bold red]✗[/] {escape(visible(str(error)))}", soft_wrap=True)
        return 3
    except (DemoError, TBMQTTError, OSError, ValueError) as error:
        errors.print(f"[bold red]✗[/] {escape(visible(str(error)))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    show(console, outcome)
    return 1 if outcome.disagreements() else 0


async def _run(options: argparse.Namespace, console: Console) -> Outcome:
    async with _endpoint(options) as endpoint:
        client = GatewayClient(endpoint.config)
        try:
            await _connect(client, endpoint.config)
            traffic = Traffic(client, Machine(), options.devices)
            devices = await traffic.register()
            target = "a built-in emulator" if options.host is None else ", ".join(map(str, endpoint.config.servers()))
            console.print(f"{devices} parts of this machine as sub-devices of one gateway, connected to {target}")
            with Display(console) as display:
                await _show_progress(display, "live metrics", None, traffic.results, traffic.stream(options.duration))
                before = client.statistics
                began = time.monotonic()
                if options.points:
                    await _show_progress(display, "history", options.points, traffic.results, traffic.bulk(options.points))
                seconds = time.monotonic() - began
        finally:
            await client.stop()
        after = client.statistics
        return Outcome(
            results=traffic.results,
            tally=Tally(after.accepted, after.acknowledged, after.rejected, after.dropped, after.undelivered),
            platform_datapoints=endpoint.count() if endpoint.count is not None else None,
            bulk=Bulk(
                datapoints=options.points,
                messages=after.messages_published - before.messages_published,
                payload_bytes=after.bytes_published - before.bytes_published,
                limit_bytes=after.payload_limit_bytes - before.payload_limit_bytes,
                seconds=seconds,
            ),
            live_latencies=traffic.live_latencies,
            bulk_latencies=traffic.bulk_latencies,
        )


class _NoConnectionError(Exception):
    """The client could not connect; the message contains the cause and what to try next."""


async def _connect(client: GatewayClient, config: GatewayConfig) -> None:
    try:
        await client.connect()
    except (OSError, TBMQTTError) as error:
        cause = explain(error)
        raise _NoConnectionError(
            f"No connection to {', '.join(map(str, config.servers()))}: {cause.finding}; {cause.advice}"
        ) from error


async def _show_progress(
    display: Display, description: str, total: int | None, results: Results, work: Coroutine[Any, Any, None]
) -> None:
    """Run ``work`` and draw its progress.

    Raises:
        DemoError: If no result arrives for ``SECONDS_WITHOUT_RESULT`` seconds.
    """
    draw = display.phase(description, total, lambda: results.resolved)
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=SECONDS_BETWEEN_FRAMES)
            draw(task.done())
            if not task.done() and time.monotonic() - results.last_result > SECONDS_WITHOUT_RESULT:
                waiting = results.sent - results.resolved
                raise DemoError(
                    f"{waiting:,} datapoints are unacknowledged, and nothing was acknowledged for {SECONDS_WITHOUT_RESULT} s"
                )
        await task
    finally:
        task.cancel()


@asynccontextmanager
async def _endpoint(options: argparse.Namespace) -> AsyncIterator[Endpoint]:
    """Yield the server that the options name, or an emulator that runs until the end of the block."""
    if options.host is not None:
        config = GatewayConfig({"host": options.host, "port": options.port, "access_token": options.token})
        if not (config.access_token or config.username or config.client_cert):
            raise DemoError("a server needs credentials: give --token, or TB_ACCESS_TOKEN in the environment")
        yield Endpoint(config, None)
        return
    # The emulator only counts: storing a million values would measure the memory of this process, not the client.
    async with Emulator(keep_data=False) as emulator:
        emulator.add_gateway(EMULATOR_TOKEN, name="demo gateway")
        config = GatewayConfig(
            {"host": emulator.host, "port": emulator.port, "access_token": EMULATOR_TOKEN, "use_system_ca": False}
        )
        # The environment may contain credentials and certificates for another server.
        config.username = config.password = config.client_id = None
        config.ca_cert = config.client_cert = config.private_key = None
        yield Endpoint(config, lambda: emulator.counters.datapoints)


def argument_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the demo's options.

    Args:
        program: The name in the help and in errors.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description="Send this machine's metrics through a GatewayClient, and count every datapoint on both sides.",
    )
    parser.add_argument("--host", help="a ThingsBoard server (default: a built-in emulator)")
    parser.add_argument("--port", type=int, help="its MQTT port (default: TB_PORT, or 1883)")
    parser.add_argument("--token", help="the gateway's access token (default: TB_ACCESS_TOKEN)")
    parser.add_argument("--duration", type=_seconds, default=5, help="seconds of live metrics (default: %(default)g)")
    parser.add_argument("--points", type=_count, default=1_000_000, help="datapoints to send afterwards (default: %(default)d)")
    parser.add_argument(
        "--devices", type=_count, help="number of sub-devices; parts of this machine are repeated if there are not enough"
    )
    return parser


def _options(arguments: Sequence[str] | None, program: str) -> argparse.Namespace:
    parser = argument_parser(program)
    options = parser.parse_args(arguments)
    if options.devices == 0:
        parser.error("--devices: at least 1")
    if options.host is None and options.token is not None:
        parser.error("--token is for a server: give --host too")
    return options


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration in seconds")
    return value


def _count(text: str) -> int:
    # Checked first because int() accepts "1_000" and " 5 ".
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
