"""The settings of a connection, from options, a TOML file and the environment.

As in ``common/config_loader.py``, an option takes precedence over the file given with ``--config``, the file over the
environment, and the environment over the default. Credentials stay together: all of them come from the first of these
places that has any, so that a token from the environment is never sent to the server of a file with its own credentials.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tb_mqtt_client.cli.failures import CommandError, ExitCode
from tb_mqtt_client.cli.secrets import Redactor, read_secret, warn_if_exposed
from tb_mqtt_client.common.config_loader import DeviceConfig, GatewayConfig
from tb_mqtt_client.common.options import nearest_option
from tb_mqtt_client.entities.server_address import parse_servers
from tb_mqtt_client.entities.store import Store

CREDENTIALS = ("access_token", "username", "password")
SECRETS = ("access_token", "password", "private_key_password")
PATHS = ("ca_cert", "client_cert", "private_key")
FILES_OF_SECRETS = {"token_file": "access_token", "password_file": "password", "private_key_password_file": "private_key_password"}
AGENT_TABLE: str = "agent"
"""The table with the settings of ``tb-mqtt agent``, which is not a profile."""
LIMITS_TIMEOUT = 5.0
"""Seconds to wait for the server's limits: short, because the user is waiting."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The connection options of the command line; ``None`` if an option is not given."""

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
    """A configuration, and where its host and credentials come from."""

    config: DeviceConfig
    connect_timeout: float
    """Seconds that connecting may take, including all attempts."""
    origin_of_host: str
    origin_of_credentials: str
    """Empty if there are no credentials."""
    store: Store | None = None
    """The store of the configuration. ``config`` has none, since no command uses a store that was not named."""

    @property
    def target(self) -> str:
        """Return the host and port of each server, separated by commas."""
        return ", ".join(map(str, self.config.servers()))


def load(options: ConnectionOptions, redactor: Redactor, config_class: type[DeviceConfig] = DeviceConfig) -> Settings:
    """Return the settings of one run.

    Args:
        options: The options of the command line.
        redactor: Receives all secrets.
        config_class: The configuration of a device or of a gateway.

    Raises:
        CommandError: If there is no host, or if an option, key, variable or file, which the message names, is not usable.
    """
    # All secrets of the environment are added first, even if the run does not use them.
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
    port = _overriding_port(given, explicit)
    try:
        config = config_class(given)
        # A command that is not about the store must not take it from the program that uses it.
        store, config.store = config.store, None
        if port is not None:
            config.port = port
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
        store=store,
    )


def _overriding_port(given: dict[str, Any], explicit: Mapping[str, Any]) -> int | None:
    """Let the command line win if the host and the port come from two places, and the host includes a port too.

    Args:
        given: All settings; the port that is not used is removed.
        explicit: The settings of the command line.

    Returns:
        The port of the command line if it replaces the port in the host of the file.
    """
    if "port" in explicit and "host" not in explicit:
        return given.pop("port") if "host" in given else None
    if "host" in explicit and "port" not in explicit and _includes_port(explicit["host"]):
        given.pop("port", None)
    return None


def _includes_port(host: Any) -> bool:
    try:
        return any(server.port is not None for server in parse_servers("host", host))
    except ValueError:
        # The same error is reported when the configuration is created.
        return False


def _redact_proxy(url: object, redactor: Redactor) -> None:
    """Add the secrets of a proxy's URL to a redactor, as written and decoded."""
    # Everything between the slashes and the last @ sign is taken, because an invalid URL may contain a secret too.
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
        raise CommandError("--token and --token-file: give only one of them", ExitCode.USAGE)
    # --connect-timeout limits connecting as a whole, the option of the configuration one attempt.
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
    if "store" in profile:
        profile["store"] = _store_in(folder, profile["store"])
    for name, secret in FILES_OF_SECRETS.items():
        if (path := profile.pop(name, None)) is not None:
            if secret in profile:
                raise CommandError(f"{_place(options)}: {name} and {secret}: give only one of them", ExitCode.USAGE)
            profile[secret] = read_secret(path, f"{_place(options)}: {name}", redactor)
    known = GatewayConfig.option_names()
    if unknown := profile.keys() - set(known):
        name, allowed = min(unknown), ", ".join([*known, *FILES_OF_SECRETS])
        raise CommandError(
            f"{_place(options)}: unknown key {name!r}{nearest_option(name, known)}", ExitCode.USAGE, f"allowed are {allowed}"
        )
    return profile


def _store_in(folder: Path, store: Any) -> Any:
    """Return the store of a file with its path relative to the folder of the file. What is not a store is refused later."""
    match store:
        case str(path) if path:
            return str(folder / path)
        case {"path": str(path)} if path:
            return store | {"path": str(folder / path)}
    return store


def _profile(path: Path, name: str | None) -> dict[str, Any]:
    """Return one profile of a file: the table with the given name, or the keys outside any table.

    Raises:
        CommandError: If the file cannot be read, is not TOML, or does not contain the profile.
    """
    document = _document(path)
    # The value of an option may be a table, too.
    options = GatewayConfig.option_names()
    profiles = {key: value for key, value in document.items() if isinstance(value, dict) and key not in {*options, AGENT_TABLE}}
    if name is None:
        plain: Mapping[str, Any] = {key: value for key, value in document.items() if key not in {*profiles, AGENT_TABLE}}
        if not plain and profiles:
            raise CommandError(f"--config: {path} has profiles only", ExitCode.USAGE, f"give --profile {'|'.join(profiles)}")
        return dict(plain)
    if name not in profiles:
        there_are = ", ".join(profiles) or "none"
        raise CommandError(f"--profile: {path} has no [{name}]", ExitCode.USAGE, f"its profiles: {there_are}")
    return dict(profiles[name])


def table_of(path: Path, name: str) -> dict[str, Any]:
    """Return a table of a file; an empty one if there is none.

    Raises:
        CommandError: If the file cannot be read, is not TOML, or has another value with this name.
    """
    found = _document(path).get(name, {})
    if not isinstance(found, dict):
        raise CommandError(f"--config: {name!r} in {path} must be a table: [{name}]", ExitCode.USAGE)
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        # Some editors on Windows start a file with a byte order mark.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CommandError(f"--config: {path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except ValueError as error:
        raise CommandError(f"--config: {path} is not valid TOML: {error}", ExitCode.USAGE) from error
