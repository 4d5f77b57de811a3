"""``tb-mqtt rpc``, ``attributes`` and ``claim``: send one request, and print the response."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import click

from tb_mqtt_client import DeviceClient
from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.options import FILE, SECONDS, Command, connection_options, json_value, output_options
from tb_mqtt_client.cli.running import connected, run
from tb_mqtt_client.cli.secrets import read_secret
from tb_mqtt_client.cli.send import send_values
from tb_mqtt_client.cli.settings import ConnectionOptions, Settings, load
from tb_mqtt_client.cli.terminal import Terminal
from tb_mqtt_client.common.exceptions import ConnectionLostError, RequestRefusedError
from tb_mqtt_client.constants.reason_codes import LocalReasonCode
from tb_mqtt_client.entities.data.attribute_entry import AttributeEntry
from tb_mqtt_client.entities.data.claim_request import ClaimRequest
from tb_mqtt_client.entities.data.rpc_request import RPCRequest
from tb_mqtt_client.entities.data.rpc_response import RPCStatus

RESPONSE_SECONDS = 10.0
Request = Callable[[DeviceClient], Awaitable[ExitCode]]
"""Sends one request with a connected client, and prints its response."""

_timeout = click.option(
    "--timeout", **SECONDS, default=RESPONSE_SECONDS, help="How long to wait for a response or an acknowledgement.  [default: 10]"
)


@click.command(cls=Command)
@click.argument("method")
@click.argument("params", required=False, metavar="[JSON]", callback=json_value)
@_timeout
@connection_options
@output_options
def rpc(method: str, params: str | None, timeout: float, connection: ConnectionOptions, terminal: Terminal) -> int:
    """Make a client-side RPC, and print its response.

    The platform's rule chain responds. The exit code is 1 if the response is an error, and 4 if there is none.

    \b
      tb-mqtt rpc getCurrentTime
      tb-mqtt rpc setMode '{"mode": "eco"}'
    """  # noqa: D301  # \b is click's own mark

    async def send_rpc(client: DeviceClient) -> ExitCode:
        request = await RPCRequest.build(method, None if params is None else json.loads(params))
        response = await client.send_rpc_request(request, timeout=timeout)
        if response.status is RPCStatus.SUCCESS:
            terminal.value(response.result)
            return ExitCode.DONE
        if response.status is RPCStatus.TIMEOUT:
            raise CommandError("The platform's rule chain did not respond", ExitCode.TIMEOUT, "check that it handles this method")
        raise CommandError(f"The response is an error: {json.dumps(response.error, ensure_ascii=False)}", ExitCode.REFUSED)

    return run(_request(load(connection, terminal.redactor), send_rpc, timeout))


@click.group()
def attributes() -> None:
    """Read client and shared attributes, or set client attributes."""


@attributes.command("get", cls=Command)
@click.option("--client", "client_keys", multiple=True, metavar="KEYS", help="Client attributes, separated by commas.")
@click.option("--shared", "shared_keys", multiple=True, metavar="KEYS", help="Shared attributes, separated by commas.")
@_timeout
@connection_options
@output_options
def get(
    client_keys: tuple[str, ...], shared_keys: tuple[str, ...], timeout: float, connection: ConnectionOptions, terminal: Terminal
) -> int:
    """Print the named attributes, or all of both scopes.

    The exit code is 1 if a named attribute does not exist.
    """
    requested = {"client": _split(client_keys), "shared": _split(shared_keys)}

    async def send_request(client: DeviceClient) -> ExitCode:
        response = await client.request_attributes(requested["shared"] or None, requested["client"] or None, timeout)
        found = {"client": _as_dict(response.client), "shared": _as_dict(response.shared)}
        terminal.value(found)
        missing = [f"{scope} {key}" for scope, keys in requested.items() for key in keys if key not in found[scope]]
        if missing:
            terminal.failure(f"Attribute not found: {', '.join(missing)}")
        return ExitCode.REFUSED if missing else ExitCode.DONE

    return run(_request(load(connection, terminal.redactor), send_request, timeout))


@attributes.command("set", cls=Command)
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUE...")
@_timeout
@connection_options
@output_options
def set_(values: tuple[str, ...], timeout: float, connection: ConnectionOptions, terminal: Terminal) -> int:
    """Set client attributes, like send --attributes. A value that is valid JSON is sent as JSON, any other as text."""
    return send_values(values, load(connection, terminal.redactor), timeout, terminal)


@click.command(cls=Command)
@click.option("--secret-file", metavar="FILE", type=FILE, help="File with the secret.  [env of the secret: TB_CLAIM_SECRET]")
@click.option(
    "--duration", metavar="SECONDS", type=int, help="How long the device can be claimed.  [default: the platform's, 24 hours]"
)
@_timeout
@connection_options
@output_options
def claim(secret_file: str | None, duration: int | None, timeout: float, connection: ConnectionOptions, terminal: Terminal) -> int:
    """Let anyone who knows a secret claim the device.

    Without a secret, anyone who knows the device's name can claim it.
    """
    secret = os.environ.get("TB_CLAIM_SECRET", "")
    terminal.redactor.add(secret)
    if secret_file is not None:
        secret = read_secret(secret_file, "--secret-file", terminal.redactor)
    try:
        request = ClaimRequest.build(secret, duration)
    except ValueError as error:
        raise click.UsageError(str(error)) from error

    async def send_request(client: DeviceClient) -> ExitCode:
        result = await client.claim_device(request, timeout=timeout)
        if result.reason_code == LocalReasonCode.NOT_DELIVERED:
            raise TimeoutError
        if terminal.as_json:
            terminal.document({"acknowledged": result.is_successful(), "reason": result.reason})
        elif result.is_successful():
            text = "request acknowledged (the platform does not say whether claiming is allowed)"
            terminal.line(terminal.marked(terminal.out, "good", text))
        if not result.is_successful():
            raise CommandError(f"The platform refused the request: {result.reason}", ExitCode.REFUSED)
        return ExitCode.DONE

    return run(_request(load(connection, terminal.redactor), send_request, timeout))


async def _request(settings: Settings, send_request: Request, timeout: float) -> ExitCode:
    """Connect, send one request, and turn its expected errors into ``CommandError``."""
    client = DeviceClient(settings.config)
    async with connected(client, settings):
        try:
            return await send_request(client)
        except TimeoutError:
            advice = "the platform does not respond to every request; --timeout waits longer"
            raise CommandError(f"No response within {timeout:g} s", ExitCode.TIMEOUT, advice) from None
        except ConnectionLostError as error:
            raise CommandError(f"The connection was lost: {error}", ExitCode.NO_CONNECTION) from error
        except RequestRefusedError as error:
            raise CommandError(f"The platform refused the request: {error}", ExitCode.REFUSED) from error
        except ValueError as error:
            raise CommandError(str(error), ExitCode.USAGE) from error


def _split(keys: Iterable[str]) -> list[str]:
    return [key.strip() for one in keys for key in one.split(",") if key.strip()]


def _as_dict(entries: Iterable[AttributeEntry]) -> dict[str, Any]:
    return {entry.key: entry.value for entry in entries}
