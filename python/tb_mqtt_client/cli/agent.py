"""``tb-mqtt agent``: deliver what other programs write to standard input, a UNIX socket or a directory, by way of a store."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import click

import tb_mqtt_client
from tb_mqtt_client import DeviceClient, GatewayClient, GatewayConfig
from tb_mqtt_client.cli.agent_settings import AgentSettings, agent_settings
from tb_mqtt_client.cli.consumer import SendOptions
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.forwarder import Forwarder
from tb_mqtt_client.cli.inputs import read_directory, read_standard_input, serve_socket
from tb_mqtt_client.cli.options import SECONDS, Command, connection_options, output_options
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal, counted
from tb_mqtt_client.common.exceptions import NotConnectedError, StoreError, StoreInUseError
from tb_mqtt_client.health_server import HealthServer
from tb_mqtt_client.systemd import SystemdService


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Deliver the input that is there, and end; for timers and cron.")
@click.option("--timeout", **SECONDS, default=120.0, help="With --once: how long delivery may take.  [default: 120]")
@connection_options
@output_options
def agent(once: bool, timeout: float, connection: ConnectionOptions, terminal: Terminal) -> int:
    """Deliver records that other programs write, as a service.

    \b
      mosquitto_sub -t sensors | tb-mqtt agent --config agent.toml
      tb-mqtt agent --config agent.toml            # a UNIX socket or a directory
      tb-mqtt agent --config agent.toml --once     # from a timer

    The file has the settings of the connection, a store, and the table [agent], which says what is read: standard input,
    socket = PATH, or directory = PATH. Records go to the store first, also without a network, and are sent from there. A
    file is deleted (or renamed) when its records are on disk in the store.

    Bad lines are reported and skipped; a file with bad lines is renamed to NAME.bad. Under systemd it reports its state
    (Type=notify) and the watchdog. The exit code after SIGTERM is 0.

    With --once, the exit code is 0 if everything was acknowledged, 5 if bad lines were skipped, 1 if the server refused
    data, and 3 or 4 if data is still in the store because there was no connection or not enough time.
    """  # noqa: D301  # \b is click's own mark
    settings = load(connection, terminal.redactor, GatewayConfig)
    options = agent_settings(connection.config)
    if settings.store is None:
        raise CommandError("The agent needs a store", ExitCode.USAGE, "set store = PATH in the configuration, or TB_STORE")
    if once and options.socket is not None:
        raise CommandError("--once needs input that ends: standard input or a directory, not a socket", ExitCode.USAGE)
    work = _agent(settings, options, timeout if once else None, terminal)
    try:
        return tb_mqtt_client.run(work)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


async def _agent(settings: Settings, options: AgentSettings, once: float | None, terminal: Terminal) -> ExitCode:
    settings.config.store = settings.store
    client = (GatewayClient if options.gateway else DeviceClient)(settings.config)
    send_options = SendOptions(options.attributes, once or 0, options.device_profile, skip_bad=True)
    forwarder = Forwarder(client, send_options, terminal)
    service = SystemdService(client, stop_timeout=options.stop_timeout)
    connect_error: str | None = None
    try:
        async with AsyncExitStack() as stack:
            # A timer needs no health check, and the port may be in use by the service.
            if options.health_port is not None and once is None:
                await _serve_health(client, options.health_port, stack)
            await stack.enter_async_context(service)
            terminal.note(f"reading {options.source}, for {settings.target}")
            if options.socket is not None:
                await serve_socket(options.socket, options.parser(), forwarder, terminal)
            elif options.directory is not None:
                await read_directory(options, forwarder, terminal, once=once is not None)
            else:
                await read_standard_input(options.parser(), forwarder)
            if once is not None:
                connect_error = await _deliver(client, once)
    except StoreError as error:
        raise CommandError(str(error), ExitCode.REFUSED if isinstance(error, StoreInUseError) else ExitCode.USAGE) from error
    finally:
        _show(client, forwarder, terminal)
    return _exit_code(client, forwarder, connect_error) if once is not None else ExitCode.DONE


async def _serve_health(client: DeviceClient, port: int, stack: AsyncExitStack) -> None:
    try:
        await stack.enter_async_context(HealthServer(client, port=port))
    except OSError as error:
        raise CommandError(f"health_port: 127.0.0.1:{port} cannot be used: {error.strerror}", ExitCode.USAGE) from error


async def _deliver(client: DeviceClient, timeout: float) -> str | None:
    """Send what is in the store, for at most ``timeout`` seconds; return why there was no connection, if there was none."""
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        await client.wait_connected(timeout)
    except (TimeoutError, NotConnectedError) as error:
        await client.stop(0)
        return str(error)
    await client.stop(max(0.0, deadline - asyncio.get_running_loop().time()))
    return None


def _exit_code(client: DeviceClient, forwarder: Forwarder, connect_error: str | None) -> ExitCode:
    statistics = client.statistics
    if connect_error is not None:
        raise CommandError(
            f"No connection: {connect_error}", ExitCode.NO_CONNECTION, f"{counted(statistics.kept, 'datapoint')} kept in the store"
        )
    if statistics.kept:
        kept = counted(statistics.kept, "datapoint")
        raise CommandError(f"Not everything was sent in time: {kept} kept in the store", ExitCode.TIMEOUT)
    if statistics.rejected or statistics.dropped or statistics.undelivered:
        return ExitCode.REFUSED
    return ExitCode.INCOMPLETE if forwarder.bad_lines else ExitCode.DONE


def _show(client: DeviceClient, forwarder: Forwarder, terminal: Terminal) -> None:
    statistics = client.statistics
    if terminal.as_json:
        terminal.document(statistics.as_dict() | {"records": forwarder.records, "bad_lines": forwarder.bad_lines})
        return
    lines = f", {counted(forwarder.bad_lines, 'bad line')}" if forwarder.bad_lines else ""
    terminal.line(f"{counted(forwarder.records, 'record')}{lines}: {statistics}")
