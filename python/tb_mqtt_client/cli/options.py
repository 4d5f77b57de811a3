"""Options that several commands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from tb_mqtt_client.cli.secrets import Redactor
from tb_mqtt_client.cli.settings import ConnectionOptions
from tb_mqtt_client.cli.terminal import Terminal

Decorator = Callable[[Any], Any]

FILE = click.Path(dir_okay=False)


def _positive(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter(f"{value:g} is not a positive number of seconds")
    return value


SECONDS: dict[str, Any] = {"metavar": "SECONDS", "type": float, "callback": _positive}
"""Settings of an option that is a duration in seconds."""


def json_value(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check that the value of an option is JSON, and return it unchanged.

    Raises:
        click.BadParameter: If it is not JSON, for example text without quotes.
    """
    if value is not None:
        try:
            json.loads(value)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(
                f"{value!r} is not valid JSON ({error}); text needs quotes: '\"text\"'", param=parameter
            ) from error
    return value


class _SharedOption(click.Option):
    """An option that the help lists in a named section, after the command's own options."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """A command whose help groups the options into sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options to the formatter, one section after the other."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            # Arguments are left out, because the usage line and the text describe them.
            if not isinstance(parameter, click.Option):
                continue
            section = parameter.section if isinstance(parameter, _SharedOption) else "Options"
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def _connection(*names: str, **settings: Any) -> Decorator:
    return click.option(*names, cls=_SharedOption, section="Connection", **settings)


def _output(*names: str, **settings: Any) -> Decorator:
    return click.option(*names, cls=_SharedOption, section="Output", **settings)


_SERVER = (
    _connection(
        "--host", metavar="HOST", help="Server, or several separated by commas; also HOST:PORT and mqtts://HOST.  [env: TB_HOST]"
    ),
    _connection("--port", metavar="PORT", type=click.IntRange(1, 65535), help="MQTT port.  [env: TB_PORT; default: 1883]"),
    _connection("--token-file", metavar="FILE", type=FILE, help="File with the access token.  [env of the token: TB_ACCESS_TOKEN]"),
    _connection("--token", metavar="TOKEN", help="Access token; other users of this machine can see it in the list of processes."),
)
_CONNECTION = (
    _connection("--config", metavar="FILE", type=FILE, help="TOML file with these and other settings of the client."),
    _connection("--profile", metavar="NAME", help="Table of the file to use.  [default: the keys outside any table]"),
    *_SERVER,
    _connection("--username", metavar="NAME", help="User name, instead of a token.  [env: TB_USERNAME]"),
    _connection(
        "--password-file", metavar="FILE", type=FILE, help="File with the password of the user.  [env of the password: TB_PASSWORD]"
    ),
    _connection("--client-id", metavar="ID", help="MQTT client id.  [env: TB_CLIENT_ID; default: a random one]"),
    _connection("--tls/--no-tls", default=None, help="Use TLS and trust the system's authorities, or use no TLS.  [env: TB_TLS]"),
    _connection("--ca-cert", metavar="FILE", type=FILE, help="Use TLS and trust this authority instead.  [env: TB_CA_CERT]"),
    _connection("--client-cert", metavar="FILE", type=FILE, help="Certificate of this client.  [env: TB_CLIENT_CERT]"),
    _connection("--private-key", metavar="FILE", type=FILE, help="Private key of that certificate.  [env: TB_PRIVATE_KEY]"),
    _connection(
        "--private-key-password-file",
        metavar="FILE",
        type=FILE,
        help="File with the password of that key.  [env of the password: TB_PRIVATE_KEY_PASSWORD]",
    ),
    _connection(
        "--verify-hostname/--no-verify-hostname", default=None, help="Require that the certificate is for HOST.  [default: yes]"
    ),
    _connection(
        "--tls-strict/--no-tls-strict",
        default=None,
        help="Require that certificates follow RFC 5280 strictly.  [default: as Python does]",
    ),
    _connection(
        "--proxy",
        metavar="URL",
        help="http://HOST:PORT or socks5://HOST:PORT; put a URL with a password in the variable or in a file.  [env: TB_PROXY]",
    ),
    _connection(
        "--mqtt-version",
        type=click.Choice(["5", "3.1.1"]),
        help="MQTT version.  [default: 5, or 3.1.1 if the server does not support 5]",
    ),
    _connection("--connect-timeout", **SECONDS, default=30.0, help="How long to wait for a session.  [default: 30]"),
)
_OUTPUT = (
    _output("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    _output("-q", "--quiet", is_flag=True, help="Print only errors on stderr, no progress or remarks."),
    _output("-v", "--verbose", count=True, help="Print the client's log on stderr; twice for debug messages."),
)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the connection options to a command, which receives them as ``connection: ConnectionOptions``."""

    @functools.wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        connection = ConnectionOptions(**{one.name: kwargs.pop(one.name) for one in fields(ConnectionOptions)})
        return command(*args, connection=connection, **kwargs)

    return _with(_CONNECTION, gathered)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the connection options for a host and a token to a command, which receives ``connection: ConnectionOptions``."""

    @functools.wraps(command)
    def gathered(*args: Any, host: str | None, port: int | None, token_file: str | None, token: str | None, **kwargs: Any) -> Any:
        return command(*args, connection=ConnectionOptions(host=host, port=port, token_file=token_file, token=token), **kwargs)

    return _with(_SERVER, gathered)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``, ``--quiet`` and ``--verbose`` to a command, which receives ``terminal: Terminal``."""

    @functools.wraps(command)
    def gathered(*args: Any, as_json: bool, quiet: bool, verbose: int, **kwargs: Any) -> Any:
        redactor = click.get_current_context().find_object(Redactor) or Redactor()
        return command(*args, terminal=Terminal(redactor, as_json=as_json, quiet=quiet, verbosity=verbose), **kwargs)

    return _with(_OUTPUT, gathered)


def _with(options: tuple[Decorator, ...], command: Callable[..., Any]) -> Callable[..., Any]:
    # Applied in reverse, because click lists options in the order of their decorators, the outermost first.
    for option in reversed(options):
        command = option(command)
    return command
