"""``tb-mqtt store drain``: send the data of a store, and empty it."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import click
from rich.progress import ProgressColumn, Task
from rich.text import Text

from tb_mqtt_client import DeviceClient, GatewayClient, GatewayConfig, Statistics, Store
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import SECONDS, Command, connection_options, output_options
from tb_mqtt_client.cli.running import connected, run
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.constants.reason_codes import reason_name
from tb_mqtt_client.service.delivery.statistics import DELIVERY_STATES
from tb_mqtt_client.service.store.contents import StoreContents

TICK = 0.1
"""Seconds between two updates of the progress bar, which also show whether the store is empty."""
NO_LIMIT = 2**62
"""Bytes; more than any disk has."""


@click.command(cls=Command)
@click.argument("path", metavar="PATH")
@click.option("--timeout", **SECONDS, default=120.0, help="Give up after this long without an acknowledgement.  [default: 120]")
@connection_options
@output_options
def drain(path: str, timeout: float, connection: ConnectionOptions, terminal: Terminal) -> int:
    """Send the data of a store and empty it, with the platform and the credential that it is for.

    No other program may use the store at the same time. Unacknowledged data stays in the store. The exit code is 0 only
    if the server acknowledged everything.
    """
    settings = load(connection, terminal.redactor, GatewayConfig)
    try:
        with StoreContents(path) as contents:
            datapoints = contents.datapoints
            is_gateway = any(device.name is not None for device in contents.devices())
    except OSError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    # Draining writes only which data is settled, so that a full disk must not prevent it.
    settings.config.store = Store(path, max_bytes=NO_LIMIT, min_free=0)
    client = (GatewayClient if is_gateway else DeviceClient)(settings.config)
    return run(_drain(client, settings, path, datapoints, timeout, terminal))


async def _drain(
    client: DeviceClient, settings: Settings, path: str, datapoints: int, timeout: float, terminal: Terminal
) -> ExitCode:
    began = time.monotonic()
    if not datapoints:
        _show(terminal, path, client.statistics, 0)
        return ExitCode.DONE
    try:
        async with connected(client, settings):
            with terminal.progress("sending", datapoints, _Sent(client), _Left(client)) as bar:
                last, deadline = 0, time.monotonic() + timeout
                while (statistics := client.statistics).queued or statistics.in_flight:
                    settled = statistics.acknowledged + statistics.rejected + statistics.dropped
                    bar.reached(settled, statistics.recovered)
                    if settled != last:
                        last, deadline = settled, time.monotonic() + timeout
                    if time.monotonic() > deadline:
                        raise _no_acknowledgement(timeout, isinstance(client, GatewayClient))
                    await asyncio.sleep(TICK)
    finally:
        # Printed after a failure and after Ctrl-C too. The client is stopped, so these numbers are final.
        if client.statistics.recovered:
            _show(terminal, path, client.statistics, time.monotonic() - began)
    totals = client.statistics
    return ExitCode.DONE if totals.acknowledged == totals.recovered else ExitCode.REFUSED


def _no_acknowledgement(timeout: float, is_gateway: bool) -> CommandError:
    advice = "is the connection up? --verbose shows the log, and tb-mqtt doctor checks each step"
    if is_gateway:
        # Unless the device is a gateway, the platform does not acknowledge its data for sub-devices
        # (docs/platform_contract.md, section 4).
        advice = f"is the device with these credentials marked as a gateway in ThingsBoard? {advice}"
    return CommandError(f"No acknowledgement for {timeout:g} s; the rest stays in the store", ExitCode.TIMEOUT, advice)


def _show(terminal: Terminal, path: str, statistics: Statistics, seconds: float) -> None:
    """Print the totals to stdout."""
    if terminal.as_json:
        terminal.document(statistics.as_dict() | {"seconds": round(seconds, 3)})
        return
    if not statistics.recovered:
        terminal.line(terminal.marked(terminal.out, "good", f"{path} is empty"))
        return
    states = {state: getattr(statistics, state) for state in DELIVERY_STATES}
    # "acknowledged" is shown even if it is 0, because a sum needs at least one term.
    terms = [f"{name} {count:,}".replace("_", " ") for name, count in states.items() if count or name == "acknowledged"]
    mark = "good" if statistics.acknowledged == statistics.recovered else "bad"
    datapoints = "datapoint" if statistics.recovered == 1 else "datapoints"
    terminal.line(terminal.marked(terminal.out, mark, f"found {statistics.recovered:,} = {' + '.join(terms)} {datapoints}"))
    for code, count in sorted(statistics.rejected_by_reason.items()):
        terminal.line(f"  rejected: {count:,} as {reason_name(code)} ({code:#04x})")
    parts = [
        counted(statistics.messages_published, "message"),
        counted(statistics.bytes_published, "byte"),
    ]
    if statistics.reconnects:
        parts.append(counted(statistics.reconnects, "reconnect"))
    terminal.line(f"  {', '.join(parts)}, {seconds:.1f} s")


class _Sent(ProgressColumn):
    """Shows how many of the recovered datapoints are acknowledged."""

    def __init__(self, client: DeviceClient) -> None:
        super().__init__()
        self._client = client

    def render(self, task: Task) -> Text:
        statistics = self._client.statistics
        return Text(f"{statistics.acknowledged:,} of {statistics.recovered:,} datapoints acknowledged")


class _Left(ProgressColumn):
    """Shows when the store will be empty, at the rate that the client measures."""

    def __init__(self, client: DeviceClient) -> None:
        super().__init__()
        self._client = client

    def render(self, task: Task) -> Text:
        eta = self._client.health()["backlog"]["eta_seconds"]
        return Text("" if eta is None else f"{timedelta(seconds=round(eta))} left")
