"""``tb-mqtt provision``: ask the platform for a device and its credentials, and keep them in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click

from tb_mqtt_client import DeviceClient, DeviceConfig
from tb_mqtt_client.cli.options import FILE, SECONDS, Command, connection_options, output_options
from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.running import no_connection, run
from tb_mqtt_client.cli.settings import CREDENTIALS, PATHS, ConnectionOptions, Settings, load, read_secret
from tb_mqtt_client.cli.terminal import Terminal
from tb_mqtt_client.common.exceptions import TBMQTTError
from tb_mqtt_client.entities.data.provisioning_request import (
    AccessTokenProvisioningCredentials,
    BasicProvisioningCredentials,
    ProvisioningCredentials,
    ProvisioningRequest,
    X509ProvisioningCredentials,
)

OWNER_ONLY = 0o600
KEPT = ("host", "port", "use_system_ca", *PATHS, *CREDENTIALS, "client_id")


@click.command(cls=Command)
@click.option("--save", "path", metavar="FILE", type=FILE, required=True, help="New file for the credentials, for --config FILE.")
@click.option(
    "--key", metavar="KEY", envvar="TB_PROVISION_KEY", help="Provision key of the device profile.  [env: TB_PROVISION_KEY]"
)
@click.option("--secret-file", metavar="FILE", type=FILE, help="File with its secret.  [env of the secret: TB_PROVISION_SECRET]")
@click.option("--name", metavar="NAME", help="Name of the device.  [default: one that the platform makes]")
@click.option("--as-gateway", is_flag=True, help="The device is a gateway.")
@click.option(
    "--credentials",
    type=click.Choice(["token", "basic", "x509"]),
    default="token",
    help="What the device wants: a token that the platform makes; --username, --password-file and --client-id; "
    "or --client-cert with --private-key and --ca-cert.  [default: token]",
)
@click.option("--timeout", **SECONDS, default=10.0, help="How long to wait for the answer.  [default: 10]")
@connection_options
@output_options
def provision(
    path: str,
    key: str | None,
    secret_file: str | None,
    name: str | None,
    as_gateway: bool,
    credentials: str,
    timeout: float,
    connection: ConnectionOptions,
    terminal: Terminal,
) -> int:
    """Register a device, and keep its credentials in a file that only you can read.

    \b
      tb-mqtt provision --host HOST --key KEY --secret-file secret --name "meter 7" --save meter7.toml
      tb-mqtt send --config meter7.toml temperature=21.5

    The credentials are not printed.
    """  # noqa: D301  # \b is click's own mark
    redactor = terminal.redactor
    secret = os.environ.get("TB_PROVISION_SECRET", "")
    redactor.add(secret)
    redactor.add(key)
    if secret_file is not None:
        secret = read_secret(secret_file, "--secret-file", redactor)
    if not key or not secret:
        raise click.UsageError("--key and --secret-file (or TB_PROVISION_KEY and TB_PROVISION_SECRET) are needed")
    settings = load(connection, redactor)
    config = settings.config
    try:
        request = ProvisioningRequest(
            str(config.host),
            _wanted(credentials, key, secret, config),
            config.port,
            name,
            as_gateway,
            tls=config.use_tls(),
            ca_cert=config.ca_cert,
            verify_hostname=config.verify_hostname,
            tls_strict=config.tls_strict,
            proxy=config.proxy,
        )
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    return run(_provision(request, settings, path, timeout, terminal))


def _wanted(kind: str, key: str, secret: str, config: DeviceConfig) -> ProvisioningCredentials:
    if kind == "token":
        return AccessTokenProvisioningCredentials(key, secret)
    if kind == "basic":
        if config.username is None and config.client_id is None:
            raise ValueError("--credentials basic needs --username or --client-id")
        return BasicProvisioningCredentials(key, secret, config.client_id, config.username, config.password)
    if not (config.client_cert and config.private_key and config.ca_cert):
        raise ValueError("--credentials x509 needs --client-cert, --private-key and --ca-cert")
    return X509ProvisioningCredentials(key, secret, config.private_key, config.client_cert, config.ca_cert)


async def _provision(request: ProvisioningRequest, settings: Settings, path: str, timeout: float, terminal: Terminal) -> ExitCode:
    # Before anything is asked: credentials that cannot be kept would be lost.
    with _new_file(path) as file:
        try:
            response = await DeviceClient.provision(request, timeout)
        except (OSError, TBMQTTError) as error:
            raise no_connection(error, settings.config) from error
        if response is None:
            raise CommandError(f"There was no answer within {timeout:g} s", ExitCode.TIMEOUT)
        if response.result is None:
            message = f"The platform refused: {response.error or 'without a reason'} ({response.status})"
            raise CommandError(message, ExitCode.REFUSED, "look at the device profile: its key, its secret, and what it allows")
        file.write(_toml(response.result))
    kind = response.credentials_type.value if response.credentials_type is not None else "credentials"
    if terminal.as_json:
        terminal.document({"status": str(response.status), "credentials_type": kind, "file": path})
    else:
        terminal.line(terminal.marked(terminal.out, "good", f"registered; {kind} is in {path}, for --config {path}"))
    return ExitCode.DONE


@contextmanager
def _new_file(path: str) -> Iterator[TextIO]:
    """A file for its owner only, which is gone when the block fails."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        raise CommandError(
            f"--save: {path} is there already", ExitCode.USAGE, "it may hold credentials: choose another name"
        ) from None
    except OSError as error:
        raise CommandError(f"--save: {path} cannot be written: {error.strerror}", ExitCode.USAGE) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        Path(path).unlink()
        raise


def _toml(config: DeviceConfig) -> str:
    """What is needed to connect again; paths as they hold from everywhere."""
    values = {name: getattr(config, name) for name in KEPT}
    for name in PATHS:
        if values[name] is not None:
            values[name] = str(Path(values[name]).absolute())
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in values.items() if value not in {None, False})


def _toml_value(value: str | int | bool) -> str:
    """JSON's notation is TOML's, but for a character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
