"""Where to connect, and as whom: from options, a TOML file and the environment.

Precedence, as in ``common/config_loader.py``: what is named on the command line (an option, then a file given with
``--config``) wins over the environment, and that over the default. Credentials go together: they come from the first of
these that has any, so that a token of the environment never goes to a server of a file that has its own.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tb_mqtt_client.cli.exposed_files import warn_if_exposed
from tb_mqtt_client.cli.outcomes import CommandError, ExitCode
from tb_mqtt_client.cli.terminal import Redactor
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.option_hints import nearest_option
from tb_mqtt_client.entities.server_address import parse_servers

CREDENTIALS = ("access_token", "username", "password")
SECRETS = ("access_token", "password", "private_key_password")
PATHS = ("ca_cert", "client_cert", "private_key")
FILES_OF_SECRETS = {"token_file": "access_token", "password_file": "password", "private_key_password_file": "private_key_password"}
LIMITS_TIMEOUT = 5.0
"""Seconds to wait for the server's limits: the user is waiting."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The options of the command line; ``None``: not given."""

    config: str | None = None
    profile: str | None = None
    host: str | None = None
    port: int | None = None
    token: str | None = None
    token_file: str | None = None
    username: str | None = None
    password_file: str | None = None
    client_id: str | None = None
    tls: bool | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    private_key: str | None = None
    private_key_password_file: str | None = None
    verify_hostname: bool | None = None
    tls_strict: bool | None = None
    proxy: str | None = None
    mqtt_version: str | None = None
    connect_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration, and the places its parts come from."""

    config: DeviceConfig
    connect_timeout: float
    origin_of_host: str
    origin_of_credentials: str
    """Empty when there are none."""

    @property
    def target(self) -> str:
        """Host and port of each server, for people."""
        return ", ".join(map(str, self.config.servers()))


def load(options: ConnectionOptions, redactor: Redactor, config_class: type[DeviceConfig] = DeviceConfig) -> Settings:
    """Return the settings of one run, after adding their secrets to ``redactor``.

    Raises ``CommandError`` that names the option, key, variable or file that is not usable, and when there is no host.
    """
    # From the environment first, whatever is used of it later.
    for prefix in ("TB_", "TB_GW_"):
        for name in SECRETS:
            redactor.add(os.environ.get(f"{prefix}{name.upper()}"))
        _redact_proxy(os.environ.get(f"{prefix}PROXY"), redactor)
    explicit = _from_options(options, redactor)
    file = _from_file(options, redactor)
    origins = [explicit.keys(), file.keys()]
    if not explicit.keys().isdisjoint(CREDENTIALS):
        file = {name: value for name, value in file.items() if name not in CREDENTIALS}
    given = {"limits_timeout": LIMITS_TIMEOUT} | file | explicit
    late = _later_port(given, explicit)
    try:
        config = config_class(given)
        if late is not None:
            config.port = late
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    if not given.keys().isdisjoint(CREDENTIALS):
        for name in CREDENTIALS:
            if name not in given:
                setattr(config, name, None)
    if options.tls is False:
        config.use_system_ca, config.ca_cert, config.client_cert, config.private_key = False, None, None, None
    if not config.host:
        raise CommandError(
            "No host given",
            ExitCode.USAGE,
            "give --host HOST, TB_HOST in the environment, or host in --config FILE",
        )
    _check_certificates(config)
    if config.private_key:
        warn_if_exposed(config.private_key)
    has_credentials = any(getattr(config, name) for name in CREDENTIALS)
    return Settings(
        config,
        options.connect_timeout,
        origin_of_host=_origin({"host"}, origins, options),
        origin_of_credentials=_origin(set(CREDENTIALS), origins, options) if has_credentials else "",
    )


def _later_port(given: dict[str, Any], explicit: Mapping[str, Any]) -> int | None:
    """Let the command line win where a host and a port are from two places, and the host names a port too.

    Args:
        given: All settings; the port that loses is removed.
        explicit: Those of the command line.

    Returns:
        A port of the command line that replaces the one in the file's host.
    """
    if "port" in explicit and "host" not in explicit:
        return given.pop("port") if "host" in given else None
    if "host" in explicit and "port" not in explicit and _names_port(explicit["host"]):
        given.pop("port", None)
    return None


def _names_port(host: Any) -> bool:
    try:
        return any(server.port is not None for server in parse_servers("host", host))
    except ValueError:
        # Reported when the configuration is made.
        return False


def _redact_proxy(url: object, redactor: Redactor) -> None:
    """Add the secrets of a proxy's URL to a redactor, as they are written and decoded."""
    # Whatever is between the slashes and the last @ sign: a URL that cannot be read may hold a secret, too.
    credentials, at, _ = str(url).partition("://")[2].rpartition("@")
    if at:
        password = credentials.partition(":")[2]
        for secret in (credentials, password, unquote(password)):
            redactor.add(secret or None)


def _check_certificates(config: DeviceConfig) -> None:
    try:
        config.make_ssl_context()
    except (OSError, ValueError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _origin(names: set[str], origins: list[Any], options: ConnectionOptions) -> str:
    places = ["the command line", _place(options)]
    return next((place for place, keys in zip(places, origins, strict=True) if names & set(keys)), "the environment")


def _place(options: ConnectionOptions) -> str:
    return f"[{options.profile}] of {options.config}" if options.profile else str(options.config)


def _from_options(options: ConnectionOptions, redactor: Redactor) -> dict[str, Any]:
    redactor.add(options.token)
    _redact_proxy(options.proxy, redactor)
    if options.token is not None and options.token_file is not None:
        raise CommandError("--token and --token-file: give one of them", ExitCode.USAGE)
    # That of the command line is for the whole of connecting, that of the configuration for one attempt.
    names = {one.name for one in fields(options)} & set(DeviceConfig.option_names()) - {"connect_timeout"}
    given = {name: value for name in sorted(names) if (value := getattr(options, name)) is not None}
    for name, secret in FILES_OF_SECRETS.items():
        if (path := getattr(options, name)) is not None:
            given[secret] = read_secret(path, f"--{name.replace('_', '-')}", redactor)
    if options.token is not None:
        given["access_token"] = options.token
    if options.tls is not None:
        given["use_system_ca"] = options.tls
    if options.mqtt_version is not None:
        given["mqtt_version"] = 5 if options.mqtt_version == "5" else 4
    return given


def _from_file(options: ConnectionOptions, redactor: Redactor) -> dict[str, Any]:
    if options.config is None:
        if options.profile is not None:
            raise CommandError("--profile names a part of a file: give --config FILE too", ExitCode.USAGE)
        return {}
    profile = _profile(Path(options.config), options.profile)
    for name in SECRETS:
        redactor.add(profile.get(name))
    if not profile.keys().isdisjoint(SECRETS) or "@" in str(profile.get("proxy")):
        warn_if_exposed(options.config)
    _redact_proxy(profile.get("proxy"), redactor)
    folder = Path(options.config).parent
    for name in (*PATHS, *FILES_OF_SECRETS):
        if (path := profile.get(name)) is None:
            continue
        if not isinstance(path, str):
            raise CommandError(f"{_place(options)}: {name} must be a path, not of type {type(path).__name__}", ExitCode.USAGE)
        profile[name] = str(folder / path)
    for name, secret in FILES_OF_SECRETS.items():
        if (path := profile.pop(name, None)) is not None:
            if secret in profile:
                raise CommandError(f"{_place(options)}: {name} and {secret}: give one of them", ExitCode.USAGE)
            profile[secret] = read_secret(path, f"{_place(options)}: {name}", redactor)
    known = GatewayConfig.option_names()
    if unknown := profile.keys() - set(known):
        name, allowed = min(unknown), ", ".join([*known, *FILES_OF_SECRETS])
        raise CommandError(
            f"{_place(options)}: unknown key {name!r}{nearest_option(name, known)}", ExitCode.USAGE, f"allowed are {allowed}"
        )
    return profile


def _profile(path: Path, name: str | None) -> dict[str, Any]:
    """Return one profile of a file: the table of this name, or the keys outside any table."""
    try:
        # Windows editors start a file with a byte order mark.
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CommandError(f"--config: {path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except ValueError as error:
        raise CommandError(f"--config: {path} is not valid TOML: {error}", ExitCode.USAGE) from error
    profiles = {key: value for key, value in document.items() if isinstance(value, dict)}
    if name is None:
        plain: Mapping[str, Any] = {key: value for key, value in document.items() if key not in profiles}
        if not plain and profiles:
            raise CommandError(f"--config: {path} has profiles only", ExitCode.USAGE, f"give --profile {'|'.join(profiles)}")
        return dict(plain)
    if name not in profiles:
        there_are = ", ".join(profiles) or "none"
        raise CommandError(f"--profile: {path} has no [{name}]", ExitCode.USAGE, f"its profiles: {there_are}")
    return dict(profiles[name])


def read_secret(path: str, option: str, redactor: Redactor) -> str:
    """Return the first line of a file."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise CommandError(f"{option}: {path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except ValueError:
        raise CommandError(f"{option}: {path} is not a text file", ExitCode.USAGE) from None
    secret = lines[0].strip() if lines else ""
    if not secret:
        raise CommandError(f"{option}: {path} is empty", ExitCode.USAGE)
    redactor.add(secret)
    warn_if_exposed(path)
    return secret
